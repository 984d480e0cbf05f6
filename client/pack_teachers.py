"""The donors of a target as teachers, and what student and teachers begin as and are asked about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from client.continual.methods import Work
from client.continual.train import Optimisation, TaskData, validate
from client.donors import Donor
from client.modeldiff.swap import candidate_model
from client.modeldiff.tune import Budget, start
from client.packing.teachers import Teacher, prototypes_of, train_teacher
from client.scoring import DonorError
from client.stream import Stream
from client.twin_teachers import TwinRows, twin_model, twin_rows
from config import Packing
from data_partition.client_data import load_unlabelled
from models.groups import Group, copy_model
from models.resizing import fitted

TRAINED = {"fine-tuned": (Group.BACKBONE, Group.ADAPTER, Group.HEAD), "calibrated": (Group.ADAPTER, Group.HEAD)}
"""What of a donor's model is trained before it teaches."""


def beginning(parents: Stream, donor: Donor) -> nn.Module:
    """Return the donor's model as the target begins with it, on the target's device.

    Args:
        parents: of the target, with a model of the donors' size.
        donor: as it came.

    Raises:
        DonorError: its head has a shape that no model has.
    """
    group, fresh = parents.data.subgroup, fresh_model(parents)
    try:
        model = candidate_model(donor.arrays, donor.manifest.modality, fresh, group.modality)
    except ValueError as error:
        raise DonorError(donor.manifest.partition_id, error) from None
    same = donor.manifest.modality == group.modality
    return start(model, fresh, same_modality=same, same_classes=donor.manifest.classes == group.classes)


def fresh_model(stream: Stream) -> nn.Module:
    """Return a copy of the target's model as initialised, on its device."""
    return copy_model(stream.fresh).to(stream.device)


def student_start(stream: Stream, parents: Stream, donor: Donor) -> nn.Module:
    """Return what a student begins as: a donor's model, or what fits of it in a student of another size.

    Args:
        stream: of the target, with a model of the student's size.
        parents: see :func:`beginning`.
        donor: as it came.

    Raises:
        DonorError: see :func:`beginning`.
    """
    model = beginning(parents, donor)
    return model if stream.config.packing.student_size == 1.0 else fitted(model, fresh_model(stream))


def unlabelled_of(stream: Stream) -> Tensor | None:
    """Return the client's inputs without labels; None: it has none."""
    return load_unlabelled(stream.config.data, stream.data.subgroup, stream.instruction.train_fraction or None)


def teachers_of(
    parents: Stream,
    donors: Sequence[Donor],
    similarities: Sequence[float],
    how: Optimisation,
    work: Work,
    settings: Packing,
    unlabelled: Tensor | None,
) -> list[Teacher]:
    """Return each donor's model as a teacher, of the other modality by twins if there are such; see :func:`teacher_of`.

    Args:
        parents: of the target, with a model of the donors' size.
        donors: the best first.
        similarities: of the donors to the target; none: not known.
        how: the target's optimisation.
        work: the task.
        settings: of the arm.
        unlabelled: the target's inputs without labels; None: it has none.
    """
    across = [settings.twins > 0 and donor.manifest.modality != parents.data.subgroup.modality for donor in donors]
    rows = twin_rows(parents, unlabelled) if any(across) else None
    known: list[float | None] = list(similarities) or [None] * len(donors)
    return [
        teacher_of(parents, donor, similarity, how, work, settings, rows if by_twins else None)
        for donor, similarity, by_twins in zip(donors, known, across, strict=True)
    ]


def teacher_of(
    parents: Stream,
    donor: Donor,
    similarity: float | None,
    how: Optimisation,
    work: Work,
    settings: Packing,
    rows: TwinRows | None = None,
) -> Teacher:
    """Train a donor's model on the target's labelled examples, and record how it validates.

    Args:
        parents: of the target, with a model of the donors' size.
        donor: of any modality; without ``rows`` its backbone learns to read the target's own inputs.
        similarity: to the target, if it is known.
        how: the target's optimisation.
        work: the task.
        settings: of the arm.
        rows: the donor is asked about these, and trained on the labelled ones; none of them is there to validate by.

    Raises:
        DonorError: the model does not fit, or its training diverges.
    """
    classes, name = parents.data.subgroup.classes, str(donor.manifest.partition_id)
    budget = Budget(
        settings.teacher_epochs, replace(how, learning_rate=how.learning_rate * settings.teacher_rate), parents.seed
    )
    model, data = (beginning(parents, donor), work.data) if rows is None else (twin_model(parents, donor, rows), rows.task)
    try:
        model = train_teacher(model, data, budget, TRAINED[settings.teachers], settings.checkpoint)
    except FloatingPointError as error:
        raise DonorError(donor.manifest.partition_id, f"training it as a teacher diverges: {error}") from None
    found = validate(model, model, data) if rows is None else None
    work.record("pack-teacher", teacher=name, validation=found, epochs=settings.teacher_epochs)
    one = replace(taught(name, model, data, classes, settings), similarity=similarity)
    return one if rows is None else replace(one, inputs=rows.inputs, known=rows.known)


def taught(name: str, model: nn.Module, data: TaskData, classes: tuple[str, ...], settings: Packing) -> Teacher:
    """Return a model as a teacher, with class prototypes if a loss reads them."""
    prototypes = None
    if "edu-attention" in settings.weighted:
        device = next(model.parameters()).device
        prototypes = prototypes_of(model, data.train.inputs, data.train.labels, len(classes), device)
    return Teacher(name, model, classes, prototypes=prototypes)
