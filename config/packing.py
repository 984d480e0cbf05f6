"""Section ``[packing]``."""

from __future__ import annotations

import math
from typing import Literal, get_args

from pydantic import Field, field_validator, model_validator

from config.base import Count, CountOrZero, NotNegative, Positive, PositiveFraction, Section

DISTILL_WEIGHTS = {
    "kd": 1.0,
    "cosine": 1.0,
    "amd": 16.0,
    "amd-local": 4.0,
    "sp": 100.0,
    "cka": 1.0,
    "ifalign": 1.0,
    "edu-attention": 1.0,
    "mse": 1.0,
    "mse-batch": 1.0,
}
"""Losses that a student can learn from teachers by, and the weight of each where ``packing.losses`` gives none.

``amd`` and ``amd-local`` have the paper's ratio of 0.8 to 0.2, and together γ = 20 on its squared norm, which is the 5000 that
its released code multiplies a mean over 256 positions by.
"""
How = Literal["distil", "ensemble", "average", "task-arithmetic", "ties", "fisher", "block-union"]
MERGES: tuple[str, ...] = get_args(How)[2:]
"""Ways to make one model of several by its parameters alone."""


def weighted_losses(value: str) -> dict[str, float]:
    """Read comma-separated names of losses, each with a weight behind a colon or with that of ``DISTILL_WEIGHTS``.

    >>> weighted_losses("kd, amd:5")
    {'kd': 1.0, 'amd': 5.0}

    Raises:
        ValueError: a name is unknown or there twice, or a weight is no number above 0.
    """
    found: dict[str, float] = {}
    for part in value.split(","):
        name, colon, weight = (word.strip() for word in part.partition(":"))
        if name not in DISTILL_WEIGHTS:
            raise ValueError(f"{name!r} is no loss: expected comma-separated names of {', '.join(DISTILL_WEIGHTS)}")
        if name in found:
            raise ValueError(f"{name!r} is there twice: name each loss once, with one weight")
        try:
            found[name] = float(weight) if colon else DISTILL_WEIGHTS[name]
        except ValueError:
            found[name] = -1.0
        if not 0 < found[name] < math.inf:
            raise ValueError(f"the weight {weight!r} of {name!r} is no number above 0: write it as in 'kd:1.0,amd:16'")
    return found


class Packing(Section):
    """How N donors become one student: by distillation, or by merging their parameters.

    Batches, optimizer, clipping, weight decay, schedule and peak learning rate are those of ``[train]``; the schedule has no
    warm-up.
    """

    how: How = Field(
        "distil",
        description="distil: one student learns from all; ensemble: keep all and average their logits, the reference at N "
        "times the cost; others: merge the parameters of models of one shape",
    )
    teachers: Literal["fine-tuned", "calibrated"] = Field(
        "fine-tuned",
        description="what of a donor is trained on the target's labelled examples before it teaches: all, or adapter and head",
    )
    teacher_epochs: Count = Field(12, description="epochs of that")
    teacher_rate: Positive = Field(0.5, description="peak learning rate of teachers, in units of train.learning-rate")
    student: Literal["best", "fresh"] = Field(
        "best", description="what the student begins as: the best donor, of another size what fits of it, or a new model"
    )
    student_size: Positive = Field(
        1.0, description="channels and heads of the student, in units of the donors'; convolutional networks: channels"
    )
    then: Literal["nothing", "method"] = Field(
        "nothing",
        description="the student is the target's task as it is; or continual.method learns the task on top of it, for "
        "continual.epochs",
    )
    controls: bool = Field(
        True, description="also train the student without a teacher, and with the result of that as its one teacher"
    )
    epochs: Count = Field(20, description="epochs of the student over its labelled examples; without any, over its inputs")
    rate: Positive = Field(1.0, description="peak learning rate of the student, in units of train.learning-rate")
    losses: str = Field(
        "kd",
        description="what the student learns from teachers by, comma-separated, each with a weight if need be, as in "
        "'kd:1.0,amd:16'",
    )
    losses_compared: str = Field(
        "",
        description="more values of losses, each for a student of its own beside the result of the run, with semicolons "
        "between them, as in 'kd,sp:100; mse'",
    )
    cross_entropy: NotNegative = Field(1.0, description="weight of the cross-entropy on labelled examples")
    temperature: Positive = Field(2.0, description="kd, edu-attention: τ of the softmax of teachers and student")
    weights: Literal["uniform", "similarity", "ebkd", "ca-mkd", "cross-entropy"] = Field(
        "uniform",
        description="of teachers: equal; softmax of their similarity to the target; by the entropy of each answer; by the "
        "cross-entropy of each answer, on labelled examples; softmax of minus their mean cross-entropy",
    )
    weight_temperature: Positive = Field(
        0.25, description="similarity, cross-entropy: of that softmax; towards 0 the best teacher alone, far above 1 uniform"
    )
    disjoint: Literal["none", "teacher-head"] = Field(
        "none",
        description="kd with fewer than two classes in common: leave such a teacher's logits out; or read the student's "
        "projected features with the teacher's frozen classifier",
    )
    stages: Literal["all", "last"] = Field("all", description="latents that are compared: of all stages, or of the last")
    projector: Literal["always", "where-needed"] = Field(
        "always",
        description="losses between channels read the student through a learned map: always, or where its width differs",
    )
    views: Literal["same", "clean"] = Field(
        "same",
        description="what teachers see: the student's augmented batch, each step; or the inputs as they are, once, and their "
        "answers are kept on the host",
    )
    distil_on: Literal["all", "unlabelled", "labelled"] = Field(
        "all",
        description="which inputs of packing.data teachers are asked about; the cross-entropy is on labelled examples alone",
    )
    unlabelled_batch: CountOrZero = Field(0, description="unlabelled inputs of a step; 0: train.batch-size")
    data: Literal["child", "parent", "both"] = Field(
        "child", description="whose inputs teachers are asked about: the student's client's, the donors', or both"
    )
    twins: CountOrZero = Field(
        0,
        description="donors of the other modality among selection.top: whole models that are asked about the twins of the "
        "student's inputs, which its client holds (images and their texts), also of those without labels",
    )
    consent: str = Field(
        "",
        description="donors who let their inputs be used: comma-separated partition ids, or all; node: those whose SuperNode "
        "says consent=true in its node config, which wins over the others too",
    )
    checkpoint: Literal["best-validation", "last"] = Field(
        "last", description="which epoch of a teacher's training teaches (ESKD of the wearable papers: best-validation)"
    )
    stop_epoch: CountOrZero = Field(
        0, description="epoch from which the student learns by cross-entropy alone (ESKD of Cho & Hariharan); 0: never"
    )
    attention_scale: NotNegative = Field(
        0.0, description="edu-attention: C that its scores are divided by; 0: the root of the teacher's width"
    )
    arithmetic_scale: Positive = Field(0.4, description="task-arithmetic: λ of the sum of differences")
    ties_scale: Positive = Field(1.0, description="ties: λ of the merged difference")
    ties_keep: PositiveFraction = Field(0.2, description="ties: share of each donor's largest differences that is kept")
    fisher_samples: Count = Field(200, description="fisher: examples that the Fisher information is estimated from")

    @property
    def weighted(self) -> dict[str, float]:
        """Weights of the losses, by name."""
        return weighted_losses(self.losses)

    @property
    def compared(self) -> tuple[str, ...]:
        """The values of ``losses_compared``."""
        return tuple(one.strip() for one in self.losses_compared.split(";")) if self.losses_compared else ()

    def consents(self, partition_id: int) -> bool:
        """Whether a donor lets its inputs be used, as far as the settings of the run can say so."""
        return self.consent == "all" or str(partition_id) in [part.strip() for part in self.consent.split(",")]

    @field_validator("losses")
    @classmethod
    def _losses_are_known(cls, value: str) -> str:
        weighted_losses(value)
        return value

    @model_validator(mode="after")
    def _compared_losses_differ(self) -> Packing:
        found = [self.weighted]
        for value in self.compared:
            try:
                weights = weighted_losses(value)
            except ValueError as error:
                raise ValueError(f"packing.losses-compared: {error}") from None
            if weights in found:
                raise ValueError(
                    f"packing.losses-compared = '{self.losses_compared}' with packing.losses = '{self.losses}' has '{value}' "
                    "twice: each student learns by losses of its own"
                )
            found.append(weights)
        return self

    @field_validator("consent")
    @classmethod
    def _consent_names_donors(cls, value: str) -> str:
        if value not in ("", "all", "node") and not all(part.strip().isdigit() for part in value.split(",")):
            raise ValueError("expected '', 'all', 'node' or comma-separated partition ids such as '0,3,6'")
        return value

    @model_validator(mode="after")
    def _settings_work_together(self) -> Packing:
        if self.data != "child" and not self.consent:
            raise ValueError(
                f"packing.data = '{self.data}' uses inputs of donors, and packing.consent names none who let them be used: "
                "name them, or use 'node' where each says so itself, or packing.data = 'child'"
            )
        if self.data != "child" and self.distil_on == "labelled":
            raise ValueError(
                f"packing.distil-on = 'labelled' asks about the student's own labelled examples, found packing.data = "
                f"'{self.data}': use 'child', or another packing.distil-on"
            )
        if self.weights == "ca-mkd" and (self.distil_on == "unlabelled" or self.data == "parent"):
            raise ValueError(
                "packing.weights = 'ca-mkd' goes by the labels of what teachers are asked about, and packing.distil-on = "
                f"'{self.distil_on}' of packing.data = '{self.data}' has none: use 'ebkd' or 'cross-entropy'"
            )
        if 0 < self.epochs <= self.stop_epoch:
            raise ValueError(
                f"packing.stop-epoch = {self.stop_epoch} is never reached in packing.epochs = {self.epochs}: use 0, or an "
                "earlier one"
            )
        return self

    @model_validator(mode="after")
    def _some_loss_is_used(self) -> Packing:
        if self.disjoint == "teacher-head" and "kd" not in self.weighted:
            raise ValueError(
                f"packing.disjoint = 'teacher-head' is for the loss kd, found packing.losses = '{self.losses}': add it, or "
                "use 'none'"
            )
        return self
