"""The inputs of packing: whose they are, and which of them teachers are asked about."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from client.continual.train import TaskData
from config import Packing


@dataclass(frozen=True)
class Parent:
    """Inputs of a donor, which are used only with its consent (``packing.consent``).

    Attributes:
        partition_id: of the donor.
        inputs: of the student's modality; its labels are not asked for.
    """

    partition_id: int
    inputs: Tensor


@dataclass(frozen=True)
class PackData:
    """What a student learns from. Rows are numbered: labelled, then unlabelled, then those of each parent.

    Attributes:
        task: the student's own labelled examples, which may be none, and its validation examples.
        label_ids: names of the student's classes, in the order of its logits.
        unlabelled: more inputs of the student's client, without labels; None: none.
        parents: inputs of donors; not touched unless ``packing.data`` says so.
    """

    task: TaskData
    label_ids: tuple[str, ...]
    unlabelled: Tensor | None = None
    parents: tuple[Parent, ...] = ()


def all_inputs(data: PackData, settings: Packing) -> Tensor:
    """Return the inputs of all rows."""
    parents = [parent.inputs for parent in data.parents] if settings.data != "child" else []
    return torch.cat([data.task.train.inputs, *([] if data.unlabelled is None else [data.unlabelled]), *parents])


def pool_of(data: PackData, settings: Packing) -> tuple[bool, Tensor]:
    """Return whether teachers are asked about labelled examples, and the numbers of the other rows they are asked about."""
    labelled = len(data.task.train)
    own = labelled + (0 if data.unlabelled is None else len(data.unlabelled))
    everything = own + (sum(len(parent.inputs) for parent in data.parents) if settings.data != "child" else 0)
    first = own if settings.data == "parent" else labelled
    rows = torch.arange(first, everything) if settings.distil_on != "labelled" else torch.arange(0)
    return settings.distil_on != "unlabelled" and settings.data != "parent" and labelled > 0, rows


def data_faults(data: PackData, settings: Packing, teachers: int) -> list[str]:
    """Return why the data cannot be learned from under these settings; empty: they can."""
    faults = []
    labelled, (asked, pool) = len(data.task.train), pool_of(data, settings)
    if settings.data != "child":
        faults += [
            f"packing.data = '{settings.data}' uses inputs of donor {parent.partition_id}, who has not consented: found "
            f"packing.consent = '{settings.consent}'. Leave its inputs out, or get and record its consent"
            for parent in data.parents
            if not settings.consents(parent.partition_id)
        ]
        if not data.parents:
            faults.append(f"packing.data = '{settings.data}' and no inputs of a donor came: use 'child'")
    if teachers and not asked and not len(pool):
        faults.append(
            f"there is no input to ask teachers about: packing.distil-on = '{settings.distil_on}' of packing.data = "
            f"'{settings.data}', with {labelled} labelled and {0 if data.unlabelled is None else len(data.unlabelled)} "
            "unlabelled inputs"
        )
    if not (labelled and settings.cross_entropy) and (not teachers or settings.stop_epoch):
        faults.append(
            f"nothing is left to learn by: {labelled} labelled examples, packing.cross-entropy = {settings.cross_entropy}, "
            f"{teachers} teachers until packing.stop-epoch = {settings.stop_epoch}"
        )
    return faults
