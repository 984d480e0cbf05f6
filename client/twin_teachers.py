"""Donors of the other modality as teachers: they are asked about the twins of the student's inputs, which its client holds.

An image client that has the texts of its images, also of those without labels, lets a text model say what they show, and
learns that from the images. Inputs stay on the client. A row without a twin is not asked about.

    donor of texts    its whole model, on the texts    ── logits ──┐
    student           on the images of the same rows ─────────────┴─ KL

Source: distillation between modalities on paired inputs without labels, Gupta, Hoffman & Malik, "Cross Modal Distillation for
Supervision Transfer", CVPR 2016.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from client.continual.train import TaskData
from client.donors import Donor
from client.learner import cached_model
from client.modeldiff.swap import whole_model
from client.modeldiff.tune import start
from client.scoring import DonorError
from client.stream import Stream, augmented_data
from data_partition.client_data import ClientData, Split, load_twins, load_unlabelled_twins
from data_partition.files import DataError
from data_partition.subgroups import Modality
from models.arrays import set_arrays
from models.groups import copy_model
from strategies.protocol import RunError


@dataclass(frozen=True)
class TwinRows:
    """The student's rows in the other modality.

    Attributes:
        modality: the other one.
        inputs: row i is the twin of row i of the student's data, labelled, then unlabelled; zeros where there is none.
        known: bool (n,), whether there is one.
        task: the labelled twins, which teachers are trained on; there are none to validate by.
    """

    modality: Modality
    inputs: Tensor
    known: Tensor
    task: TaskData


def twin_rows(stream: Stream, unlabelled: Tensor | None) -> TwinRows:
    """Return the twins of a client's training inputs.

    Args:
        stream: of the client.
        unlabelled: its inputs without labels; None: none.

    Raises:
        RunError: its data set has no twins, or the client no twin of a labelled input.
    """
    config, data, fraction = stream.config, stream.data, stream.instruction.train_fraction or None
    group, train = data.subgroup, data.train
    try:
        places, labelled = load_twins(config.data, group, fraction)
        beyond = load_unlabelled_twins(config.data, group, fraction)
    except DataError as error:
        raise RunError(f"packing.twins = {config.packing.twins}: client {group.partition_id}: {error}") from None
    parts = [spread(places, labelled, len(train))]
    if beyond is not None and unlabelled is not None:
        parts.append(spread(*beyond, len(unlabelled)))
    inputs, known = (torch.cat(part) for part in zip(*parts, strict=True))
    modality: Modality = "text" if group.modality == "image" else "image"
    nothing = Split(labelled[:0], train.labels[:0])
    twins = ClientData(replace(group, modality=modality), Split(labelled, train.labels[places]), nothing, nothing)
    return TwinRows(modality, inputs, known, augmented_data(config, twins, stream.device))


def spread(places: Tensor, values: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Return ``rows`` inputs with values in some places and zeros in the others, and which places these are, bool (rows,)."""
    inputs, known = values.new_zeros(rows, *values.shape[1:]), torch.zeros(rows, dtype=torch.bool)
    inputs[places], known[places] = values, True
    return inputs, known


def twin_model(stream: Stream, donor: Donor, rows: TwinRows) -> nn.Module:
    """Return a donor's whole model, with a head for the target's classes, on the target's device.

    Raises:
        DonorError: its adapter or a tensor is missing or of another shape, or its modality is not that of the twins.
    """
    config, group, manifest = stream.config, stream.data.subgroup, donor.manifest
    cached, initial = cached_model(config.model, config.data, rows.modality, len(group.classes), config.run.seed)
    fresh = copy_model(cached)
    set_arrays(fresh, initial)
    try:
        if manifest.modality != rows.modality:
            raise ValueError(
                f"its modality is {manifest.modality}, and the twins of the target's inputs are of {rows.modality}"
            )
        model = whole_model(donor.arrays | donor.aside, manifest.modality, fresh, fresh)
    except ValueError as error:
        raise DonorError(manifest.partition_id, error) from None
    return start(model, fresh, same_modality=True, same_classes=manifest.classes == group.classes).to(stream.device)
