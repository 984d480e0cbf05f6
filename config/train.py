"""Section ``[train]``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from config.base import Count, NotNegative, Positive, PositiveFraction, Section, ascending_shares


class Train(Section):
    """Local optimisation: AdamW or SGD with gradient clipping and a schedule over the whole run."""

    epochs: Count = Field(2, description="local epochs per round")
    batch_size: Count = 32
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.9, description="sgd: Nesterov momentum; 0: none")
    learning_rate: Positive = 2e-3
    weight_decay: NotNegative = Field(
        0.05, description="of matrices; adamw: apart from the gradient; sgd: L2, in the gradient"
    )
    schedule: Literal["cosine", "one-cycle", "constant", "steps"] = "cosine"
    warmup: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.1, description="share of the steps of the run that warm up; one-cycle has a warm-up of its own"
    )
    milestones: str = Field("0.5,0.8", description="steps: shares of all steps at which the learning rate falls, ascending")
    milestone_factor: PositiveFraction = Field(0.1, description="steps: what it is multiplied by at each milestone")
    clip_norm: NotNegative = Field(1.0, description="largest gradient norm; 0: no clipping")
    restart_optimizer: bool = Field(True, description="a fresh optimizer every round; false: its state stays with the client")
    class_weights: bool = Field(True, description="weight the loss by inverse class frequency")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="bfloat16: autocast; weights stay float32")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Count = Field(1, description="torch threads of one client")

    @field_validator("milestones")
    @classmethod
    def _milestones_ascend(cls, value: str) -> str:
        ascending_shares(value)
        return value
