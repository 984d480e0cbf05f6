"""A target packs its donors into one model: they teach a student that begins as the best of them.

Every donor's model gets a head for the target's classes, unless it brought one for the same classes, and is trained on the
target's labelled examples (``packing.teachers``). The student learns from the labels it has, and from the teachers on all of
the target's inputs, those without labels (``data.unlabelled-fraction``) included. No input leaves a client, but those of
donors that have consented, under ``packing.data = "parent"`` or ``"both"``: teachers are asked about them too.

Donors of the other modality (``packing.twins``) teach by the twins of the target's inputs: client/twin_teachers.py.

Two controls have the student's start, steps, batches and random numbers: ``pack-start`` learns from the labels alone,
``pack-self`` from the result of that as its one teacher, which is self-distillation.

Source: Hinton et al., 2015, the distillation; Furlanello et al., "Born-Again Neural Networks", ICML 2018, one's own model as
the teacher. Docs: docs/packing.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from client.continual.memory import Memory, install, remember
from client.continual.methods import METHODS, Work, optimisation
from client.continual.ownership import claim_free
from client.continual.train import counts
from client.donors import Donor, slowed
from client.given_inputs import inputs_given
from client.pack_teachers import fresh_model, student_start, taught, teachers_of, unlabelled_of
from client.packing.data import PackData, Parent
from client.packing.packer import Packed, pack
from client.packing.teachers import Teacher
from client.scoring import DonorError, fetch
from client.stream import Metrics, Stream, learn_task, open_stream
from config import Packing, RunConfig
from models.arrays import Arrays
from models.groups import copy_model, get_tensors, named_tensors, stored_names
from strategies.protocol import DONORS, PACK_LOSSES, PACK_SELF, PACK_START, Instruction, Manifest


def pack_task(
    config: RunConfig,
    told: Instruction,
    folder: Path,
    manifests: Sequence[Manifest],
    sent: Mapping[str, Arrays],
    similarities: Sequence[float] = (),
) -> tuple[Metrics, list[str]]:
    """Pack donors into the client's model of its task, save it, and return metrics and facts as ``learn_task`` does.

    Args:
        config: settings of the run.
        told: its ``method`` is the arm: :data:`strategies.protocol.PACK`, ``PACK_START``, ``PACK_SELF`` or one of
            ``PACK_LOSSES``.
        folder: the client's state on disk.
        manifests: of the donors, the best first; the controls use the first alone.
        sent: arrays by hash, of those that the client does not have.
        similarities: of the donors to the target, for ``packing.weights = "similarity"``.

    Raises:
        DonorError: what a donor sent does not fit, is neither here nor there, or diverges in training.
        PackingError: the settings would teach noise, with the reasons.
    """
    begun: list[Stream] = []
    # of the arm of no student, so its model has the donors' size
    parents = open_stream(config, replace(told, arm=DONORS), folder, told.round, blank=True)
    given = inputs_given(parents, manifests, sent, folder.parent / DONORS)
    donors = fetch(parents, manifests, sent, folder)

    def prepare(stream: Stream) -> None:
        names = " ".join(manifest.sha256 + manifest.inputs for manifest in manifests)
        stream.built_on = hashlib.sha256(f"{told.method} {names}".encode()).hexdigest()
        begun.append(stream)

    def learn(model: nn.Module, memory: Memory, work: Work) -> None:
        settle(*student_of(begun[0], parents, donors, told.method, similarities, given, work), model, memory, work)

    try:
        return learn_task(config, replace(told, method=""), folder, prepare, learn)
    except FloatingPointError as error:
        first = manifests[0].partition_id
        raise DonorError(first, f"a student that begins as it diverges: {error}") from None


def student_of(
    stream: Stream,
    parents: Stream,
    donors: Sequence[Donor],
    arm: str,
    similarities: Sequence[float],
    given: tuple[Parent, ...],
    work: Work,
) -> tuple[nn.Module, Packed]:
    """Return the trained student of an arm, and its log.

    Args:
        stream: of the target, whose model has the student's size.
        parents: the same with a model of the donors' size.
        donors: the best first.
        arm: see :func:`pack_task`.
        similarities: of the donors to the target; none: not known.
        given: inputs of donors.
        work: the task.
    """
    settings, seed = settings_of(stream.config.packing, arm, given), stream.seed
    how, classes = optimisation(stream.config), stream.data.subgroup.classes
    labelled = PackData(work.data, classes)
    student = student_start(stream, parents, donors[0]) if settings.student == "best" else fresh_model(stream)
    sizes = {name: stored_size(model) for name, model in (("student", student), ("donor", fresh_model(parents)))}
    work.record("pack-size", **{f"{name}_{key}": value for name, found in sizes.items() for key, value in found.items()})
    teachers: list[Teacher] = []
    data = labelled if arm == PACK_START else replace(labelled, unlabelled=unlabelled_of(stream), parents=given)
    if arm == PACK_SELF:
        own = copy_model(student)
        alone = settings.model_copy(update={"data": "child"})
        told = pack(own, [], labelled, alone, how, seed=seed).epochs[-1]
        work.record("pack-teacher", teacher="self", validation=told.validation, epochs=settings.epochs)
        teachers = [replace(taught("self", own, work.data, classes, settings), similarity=1.0)]
    if arm not in (PACK_START, PACK_SELF):
        teachers = teachers_of(parents, donors, similarities, how, work, settings, data.unlabelled)
    return student, pack(student, teachers, data, settings, how, seed=seed, record=work.record)


def stored_size(model: nn.Module) -> dict[str, int]:
    """Return the parameters of a model, and the bytes of all that is stored of it."""
    tensors = [named_tensors(model)[name] for name in stored_names(model)]
    parameters = sum(tensor.numel() for tensor in tensors if isinstance(tensor, nn.Parameter))
    return {"parameters": parameters, "bytes": sum(tensor.nbytes for tensor in tensors)}


def settings_of(settings: Packing, arm: str, given: Sequence[Parent]) -> Packing:
    """Return the settings of an arm: with losses of its own, if it compares some, and the donors who have consented.

    Without inputs of donors there are those of the target alone.
    """
    consented = ",".join(str(parent.partition_id) for parent in given)
    changed = {"consent": consented} if given and arm != PACK_START else {"data": "child"}
    if arm.startswith(PACK_LOSSES):
        changed["losses"] = settings.compared[int(arm.removeprefix(PACK_LOSSES)) - 1]
    return settings.model_copy(update=changed)


@torch.no_grad()
def settle(student: nn.Module, packed: Packed, model: nn.Module, memory: Memory, work: Work) -> None:
    """Make the student the target's task: as it is, or as what ``continual.method`` begins with (``packing.then``).

    Args:
        student: trained.
        packed: its log.
        model: of the stream, with owners.
        memory: of the stream.
        work: the task.
    """
    install(model, get_tensors(student, stored_names(student)))
    settings, last = work.config.packing, packed.epochs[-1]
    loss, facts = last.losses.get("cross-entropy", 0.0), {"epochs": settings.epochs, "validation": last.validation}
    if settings.then == "method":
        work.record("pack", task=work.task, loss=loss, **facts, **counts(model, work.task))
        with torch.enable_grad():
            METHODS[work.config.continual.method](model, memory, replace(work, config=slowed(work.config)))
        return
    claim_free(model, work.task)
    work.record("pack", task=work.task, loss=loss, **facts, **counts(model, work.task))
    remember(model, memory, work.task, torch.zeros(0, dtype=torch.bool))
