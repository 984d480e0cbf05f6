"""Section ``[selection]``."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, field_validator

from config.base import Count, NotNegative, PositiveFraction, Section

LocalScorer = Literal[
    "modeldiff",
    "modeldiff-logits",
    "modeldiff-released",
    "cka",
    "logme",
    "h-score",
    "leep",
    "linear-probe",
    "few-step",
]
LOCAL_SCORERS: tuple[str, ...] = get_args(LocalScorer)
"""Scorers that a target computes on its own data."""
Rule = Literal["same-modality-random", "random"]
"""Scorers that need no data."""


class Selection(Section):
    """Which donors a target of strategy ``backpack`` learns on top of."""

    scorer: LocalScorer | Rule = Field("modeldiff", description="what donors are ranked by; larger is better")
    also: str = Field("", description="more scorers to record, comma-separated; they decide nothing")
    routing: Literal["top-n", "all-pairs"] = Field("top-n", description="all-pairs: every donor for every target, one by one")
    top: Count = Field(1, description="donors N that a target learns on top of")
    combine: Literal["first", "average", "block-union"] = Field(
        "first",
        description="what N > 1 donors become: the best one alone, their mean, or each weight from the best that owns it",
    )
    abstain: bool = Field(True, description="no donor, where a short training without one validates better")
    tune_epochs: Count = Field(3, description="epochs of that short training, and of the scorer few-step")
    across: bool = Field(False, description="donors of the other modality are candidates too; only their backbone is used")
    exclude_twins: bool = Field(False, description="leave out clients of the other modality with the same classes")
    donor_fraction: PositiveFraction = Field(1.0, description="data.train-fraction of a client as donor")
    donor_epochs: Count = Field(30, description="epochs of a donor's own task, before it is pruned")
    probes: Count = Field(100, description="probes: training examples of the target, at most")
    pairs: Count = Field(400, description="pairs of probes")
    margin: NotNegative = Field(0.0, description="abstain: validation that no donor may be better by, and still not win")

    @field_validator("also")
    @classmethod
    def _scorers_are_known(cls, value: str) -> str:
        unknown = [name for name in value.split(",") if value and name.strip() not in LOCAL_SCORERS]
        if unknown:
            raise ValueError(f"{', '.join(unknown)} unknown: expected comma-separated names of {', '.join(LOCAL_SCORERS)}")
        return value
