"""Section ``[selection]``."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, field_validator, model_validator

from config.base import Count, CountOrZero, Positive, PositiveFraction, Section

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
Rule = Literal["same-modality-random", "random", "best-on-average", "oracle", "none"]
"""Scorers that look at no model; none: every target learns alone."""
AFTERWARDS = ("best-on-average", "oracle")
"""Rules that go by what targets reached with each donor."""


class Selection(Section):
    """Which donors a target of strategy ``backpack`` learns on top of."""

    scorer: LocalScorer | Rule = Field("modeldiff", description="what donors are ranked by; larger is better")
    also: str = Field("", description="more scorers to record, comma-separated; they decide nothing")
    routing: Literal["top-n", "cluster", "all-pairs"] = Field(
        "top-n",
        description="cluster: from donors of the target's cluster alone; all-pairs: also every donor for every target, one by "
        "one: the truth that choices are compared with",
    )
    clusters: CountOrZero = Field(0, description="routing cluster: clusters of a modality; 0: by the highest silhouette")
    repeats: Count = Field(1, description="all-pairs: times that each pair is trained, with other random numbers")
    top: Count = Field(1, description="donors N that a target learns on top of")
    combine: Literal["first", "average", "block-union", "pack"] = Field(
        "first",
        description="what N donors become: the best one alone, their mean, each weight from the best that owns it, or "
        "teachers of one student (section packing)",
    )
    rate: Positive = Field(
        0.5, description="learning rate on top of donors, in units of train.learning-rate; without donors it is 1"
    )
    abstain: bool = Field(True, description="no donor, where a short training without one validates better")
    finalists: Count = Field(1, description="best donors by the scorer that take this test; the best of it goes first")
    margin: float = Field(
        0.05, description="abstain: validation by which a donor must be better than none; tests of few epochs favour a donor"
    )
    tune_epochs: Count = Field(3, description="epochs of that short training, and of the scorer few-step")
    across: bool = Field(
        False,
        description="donors of the other modality are candidates too; only their backbone is used, except by packing.twins",
    )
    exclude_twins: bool = Field(False, description="leave out clients of the other modality with the same classes")
    donor_fraction: PositiveFraction = Field(1.0, description="data.train-fraction of a client as donor")
    donor_epochs: Count = Field(30, description="epochs of a donor's own task, before it is pruned")
    own_epochs: CountOrZero = Field(
        40, description="epochs of the target's own model, which donors are compared with; 0: it is that of the control"
    )
    candidate: Literal["swap", "calibrate", "paired"] = Field(
        "swap",
        description="a donor's model on the target: as it came; or with adapter and head trained a little on its data, after "
        "which scores compare across modalities; or, of the other modality, whole, on twins of the target's probes: there "
        "few-step still trains on the target's own inputs, leep scores nothing, others with labels read the twins",
    )
    calibration_epochs: Count = Field(6, description="calibrate: epochs of that")
    probes: Count = Field(100, description="probes: training examples of the target, at most")
    pairs: Count = Field(400, description="pairs of probes")
    pairing: Literal["random", "gradient", "words", "hill-climb"] = Field(
        "random",
        description="modeldiff: a probe's partner: another probe; or its copy, along gradients, in some words (images: along "
        "gradients), or by hill climbing",
    )
    shortlist: CountOrZero = Field(
        0, description="donors that a target scores, those with the most similar sketches; 0: all, and no sketches"
    )
    sketch: Literal["weights", "responses"] = Field(
        "weights", description="2 KB that a client tells of its model first: of its update, or of its answers to common probes"
    )

    @field_validator("also")
    @classmethod
    def _scorers_are_known(cls, value: str) -> str:
        unknown = [name for name in value.split(",") if value and name.strip() not in LOCAL_SCORERS]
        if unknown:
            raise ValueError(f"{', '.join(unknown)} unknown: expected comma-separated names of {', '.join(LOCAL_SCORERS)}")
        return value

    @property
    def scorers(self) -> tuple[str, ...]:
        """Names of what targets compute, that which decides first."""
        named = [self.scorer, *(name.strip() for name in self.also.split(","))]
        return tuple(name for name in dict.fromkeys(named) if name in LOCAL_SCORERS)

    @model_validator(mode="after")
    def _rules_have_what_they_go_by(self) -> Selection:
        if self.scorer in AFTERWARDS and self.routing != "all-pairs":
            raise ValueError(
                f"selection.scorer = '{self.scorer}' goes by what targets reached with each donor: set selection.routing = "
                "'all-pairs'"
            )
        if self.routing == "cluster" and self.scorer not in LOCAL_SCORERS:
            raise ValueError(
                f"selection.routing = 'cluster' groups clients by similarity, and selection.scorer = '{self.scorer}' is a "
                "rule: use a scorer such as 'modeldiff'"
            )
        if self.shortlist and not self.scorers:
            raise ValueError(
                f"selection.shortlist = {self.shortlist} chooses the donors that are scored, and selection.scorer = "
                f"'{self.scorer}' scores none: use 0, or a scorer such as 'modeldiff'"
            )
        if self.shortlist and self.across and self.sketch == "responses":
            raise ValueError(
                "selection.sketch = 'responses' tells answers to images or to texts, which do not compare across modalities: "
                "with selection.across = true use 'weights'"
            )
        if self.candidate == "paired" and not (self.across and self.pairing == "random"):
            raise ValueError(
                "selection.candidate = 'paired' shows donors of the other modality the twins of probes, and perturbed copies "
                "have none: set selection.across = true and selection.pairing = 'random', found "
                f"{str(self.across).lower()} and '{self.pairing}'"
            )
        others = [name for name in self.scorers if not name.startswith("modeldiff")]
        if self.pairing != "random" and others:
            raise ValueError(
                f"selection.pairing = '{self.pairing}' changes the probes, which is for modeldiff alone: found the scorers "
                f"{', '.join(others)}"
            )
        if self.finalists > 1 and not self.abstain:
            raise ValueError(
                f"selection.finalists = {self.finalists} take the test of selection.abstain: set it to true, or use 1"
            )
        return self
