"""Section ``[continual]``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from config.base import Count, CountOrZero, Fraction, NotNegative, Positive, PositiveFraction, Section, ascending_shares


class Continual(Section):
    """How a client learns one task of a stream after another, where ``data.tasks-per-client`` is above 1.

    Batches, optimizer, clipping, weight decay, schedule and peak learning rate are those of ``[train]``; the schedule starts
    anew with each phase of a task, without a warm-up. Scores of picks are always trained by Adam.
    """

    method: Literal["cpg", "packnet", "piggyback", "finetune", "ewc"] = "cpg"
    epochs: Count = Field(40, description="strategy 'continual': epochs of a task before pruning, and of each growth")
    adapter: Literal["private", "first"] = Field(
        "private", description="each task has its own adapter, or all have that of the first; not for finetune and ewc"
    )
    start: Literal["previous", "fresh"] = Field(
        "fresh", description="what a task's own adapter, norms and latents begin as: those of the task before, or new ones"
    )
    goal: Literal["scratch", "none"] = Field(
        "scratch", description="cpg: validation to reach: that of a model trained on the task alone; none: never grow"
    )
    goal_margin: float = Field(0.0, description="cpg: added to the goal; negative: less is enough")
    tolerance: NotNegative = Field(0.02, description="cpg: pruning goes on while validation is this little below the goal")
    ratios: str = Field("0.3,0.5,0.7,0.8,0.9", description="cpg: shares of a task's own and free weights to free, ascending")
    reserve: Fraction = Field(
        0.5, description="cpg: share of the later tasks' equal part that a task frees even where validation falls"
    )
    prune_epochs: Count = Field(4, description="cpg: epochs of each ratio")
    prune_share: PositiveFraction = Field(0.5, description="cpg: share of these steps in which the ratio rises")
    prune_every: Count = Field(10, description="cpg: steps between two prunings")
    prune_rate: Positive = Field(0.1, description="cpg: constant learning rate while pruning, in units of train.learning-rate")
    retrain_epochs: CountOrZero = Field(8, description="cpg, packnet: epochs after pruning")
    retrain_rate: Positive = Field(0.1, description="cpg, packnet: learning rate then, in units of train.learning-rate")
    score_learning_rate: Positive = Field(5e-4, description="cpg, piggyback: learning rate of the scores of picks (Adam)")
    retrain_score_rate: NotNegative = Field(0.2, description="cpg: while retraining, in units of score-learning-rate")
    growth_step: NotNegative = Field(0.25, description="cpg: share of the first widths that one growth adds; 0: no growth")
    growth_cap: Annotated[float, Field(ge=1.0)] = Field(1.5, description="cpg: widest, in units of the first widths")
    packnet_ratio: Fraction = Field(0.6, description="packnet: share of a task's own weights that it frees")
    ewc_strength: NotNegative = Field(1000.0, description="ewc: price λ of moving a weight that earlier tasks need")
    ewc_samples: Count = Field(200, description="ewc: training examples that the Fisher information is estimated from")
    weit_l1: NotNegative = Field(1e-3, description="fedweit: price of masks and adaptive parameters")
    weit_drift: NotNegative = Field(100.0, description="fedweit: price of moving what earlier tasks compute with")
    weit_threshold: NotNegative = Field(2e-3, description="fedweit: adaptive parameters up to this are 0")
    weit_start: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.0, description="fedweit: share of the base that a task's adaptive parameters begin as"
    )

    @field_validator("ratios")
    @classmethod
    def _ratios_ascend(cls, value: str) -> str:
        ascending_shares(value)
        return value

    @model_validator(mode="after")
    def _settings_belong_to_the_method(self) -> Continual:
        if self.adapter == "first" and self.method in ("finetune", "ewc"):
            raise ValueError(
                f"continual.adapter = 'first' keeps the adapter of the first task, and continual.method = '{self.method}' "
                "trains everything: use 'private'"
            )
        return self
