"""Section ``[distil]``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from config.base import Count, CountOrZero, Fraction, Positive, Section
from config.model import ModelName


class Distil(Section):
    """Strategy distil: which teachers clients train, and whose teachers a student learns from.

    How a student learns from them is section ``packing``, ``packing.checkpoint`` of teachers included; batches, optimizer,
    clipping, weight decay and schedule of both are those of ``[train]``, and the schedule has no warm-up.
    """

    teacher: ModelName | Literal["same"] = Field("same", description="model.name of teachers; same: that of students")
    teacher_width: Positive = Field(1.0, description="model.width of teachers, where distil.teacher names a model")
    teacher_epochs: Count = Field(15, description="epochs of a teacher")
    teacher_fraction: Fraction = Field(
        0.0, description="data.train-fraction of clients as they train a teacher; 0: as when they train a student"
    )
    sources: Literal["own", "others", "all"] = Field(
        "own", description="teachers of a student: its own client's, those of other clients of its modality, or both"
    )
    teachers: CountOrZero = Field(0, description="number of them, drawn by run.seed; 0: all there are")
    augment: Literal["student", "both"] = Field(
        "both", description="who learns from augmented inputs, where data.augment is on: students alone, or teachers too"
    )
