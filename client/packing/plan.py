"""What is settled before a student is trained: what each teacher teaches it by, its weight, and what it can be asked at once.

Every reason why this would teach noise, or cannot be done, is told in one error before the first step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from client.continual.train import random_stream
from client.packing import weights as weighting
from client.packing.data import PackData, all_inputs, data_faults
from client.packing.labels import LogitRule, logit_rule, teacher_labels
from client.packing.lessons import Lesson, Shape
from client.packing.losses.table import NEEDS
from client.packing.needs import PackingError, Pair, doubts, refusals
from client.packing.projectors import related, stage_pairs
from client.packing.teachers import Answers, Teacher, ask_all, trace_of
from config import Packing
from models.beit3 import BEiT3

PER_ANSWER = ("ebkd", "ca-mkd", "cross-entropy")
"""Weights that go by the answers of teachers."""
BY_LABEL = ("ca-mkd", "cross-entropy")


@dataclass(frozen=True)
class Plan:
    """See the module's docstring.

    Attributes:
        lessons: one for each teacher.
        weights: w_bk, (n, K), of all rows; 0 where a teacher is not asked about a row.
        answers: of each teacher, for all rows, or for all its inputs if it is unpaired, on the host; None: it is asked in
            each step.
        stages: of each teacher that are compared.
        warnings: what may teach noise.
    """

    lessons: nn.ModuleList
    weights: Tensor
    answers: tuple[Answers | None, ...]
    stages: tuple[tuple[int, ...], ...]
    warnings: tuple[str, ...]


def make_plan(
    student: nn.Module, teachers: Sequence[Teacher], data: PackData, settings: Packing, seed: int, device: torch.device
) -> Plan:
    """Check everything, ask teachers one after another what they can be asked before training, and weigh them.

    Weights of samples are those of the inputs as they are, also where teachers see augmented ones in training.

    Raises:
        PackingError: a combination would teach noise or cannot be computed, with all reasons.
    """
    faults = data_faults(data, settings, len(teachers)) + teacher_faults(student, teachers, data, settings)
    if faults:
        raise refused(faults)
    if not teachers:
        return Plan(nn.ModuleList(), torch.zeros(0, 0), (), (), ())
    inputs = all_inputs(data, settings)
    own = shape_of(student, inputs[:2].to(device))
    lessons, stages, rules, warnings = nn.ModuleList(), [], [], []
    with random_stream(seed, 0, "packing/maps", 0, device):
        for teacher in teachers:
            seen = inputs if teacher.inputs is None else teacher.inputs
            other = shape_of(teacher.model.to(device), seen[:2].to(device))
            lesson, doubtful, faulty = make_lesson(student, teacher, data, settings, (own, other))
            if asked_once(teacher, settings):
                teacher.model.to("cpu")
            faults += faulty
            warnings += doubtful + padding_doubts(teacher, lesson, seen)
            if lesson is not None:
                lessons.append(lesson.to(device))
                stages.append(tuple(sorted({lesson.stages[i][1] for usable in lesson.usable.values() for i in usable})))
                rules.append(lesson.rule)
    if faults:
        raise refused(faults)
    answers: list[Answers | None] = []
    logits: list[Tensor] = []
    weigh = settings.weights in PER_ANSWER and len(teachers) > 1
    for k, teacher in enumerate(teachers):
        keep, found = asked_once(teacher, settings), None
        if keep or weigh:
            seen = inputs if teacher.inputs is None else teacher.inputs
            found = ask_all(teacher.model.to(device), seen, stages[k] if keep else (), device, data.task.precision)
            logits.append(found.logits)
        answers.append(found if keep else None)
        if keep:
            teacher.model.to("cpu")
    weights = row_weights(settings, teachers, rules, logits, data, len(inputs)).to(device)
    return Plan(lessons, weights, tuple(answers), tuple(stages), tuple(warnings))


def asked_once(teacher: Teacher, settings: Packing) -> bool:
    """Whether a teacher's answers are kept from before training; one that sees inputs of its own sees them as they are."""
    return teacher.inputs is not None or settings.views == "clean"


def make_lesson(
    student: nn.Module, teacher: Teacher, data: PackData, settings: Packing, shapes: tuple[Shape, Shape]
) -> tuple[Lesson | None, list[str], list[str]]:
    """Return what a teacher teaches by, None where it is refused, what may be noise in it, and why it is refused."""
    own, other = shapes
    stages = stage_pairs(len(own.rows), len(other.rows), settings.stages)
    rule = logit_rule(data.label_ids, teacher.label_ids, settings.disjoint)
    pair = Pair(
        teacher.name,
        teacher.paired,
        tuple((own.rows[i], other.rows[j]) for i, j in stages),
        tuple((own.widths[i], other.widths[j]) for i, j in stages),
        related(student, teacher.model),
        len(rule.student),
        teacher.prototypes is not None,
    )
    losses = tuple(name for name in settings.weighted if teacher.losses is None or name in teacher.losses)
    faults = [fault for name in losses for fault in refusals(name, NEEDS[name], pair)]
    warnings = [doubt for name in losses for doubt in doubts(name, NEEDS[name], pair)]
    if "kd" in losses and rule.kind == "none":
        told = f"teacher '{teacher.name}' and the student have {pair.common} classes in common, and kd needs 2"
        if losses == ("kd",):
            faults.append(
                f"{told}: it would teach nothing. Set packing.disjoint = 'teacher-head', add a loss of latents, or give the "
                "teacher a head for the student's classes"
            )
        warnings.append(f"{told}: its logits are left out")
    if not losses:
        faults.append(f"teacher '{teacher.name}' teaches by {teacher.losses}, none of packing.losses = '{settings.losses}'")
    if faults:
        return None, warnings, faults
    return Lesson(settings, losses, pair, stages, rule, shapes, teacher.model, teacher.prototypes), warnings, []


def teacher_faults(student: nn.Module, teachers: Sequence[Teacher], data: PackData, settings: Packing) -> list[str]:
    """Return what is wrong with teachers before anything is computed."""
    faults, seen = [], set()
    own = {id(parameter) for parameter in student.parameters() if parameter.requires_grad}
    n = len(all_inputs(data, settings))
    for teacher in teachers:
        name = teacher.name
        if name in seen:
            faults.append(f"two teachers are named '{name}': give each a name of its own")
        seen.add(name)
        if any(id(parameter) in own for parameter in teacher.model.parameters()):
            faults.append(f"teacher '{name}' shares parameters with the student, and would be trained: pass a copy")
        if not teacher.paired and teacher.inputs is None:
            faults.append(f"teacher '{name}' is unpaired and has no inputs of its own: set Teacher.inputs")
        if teacher.inputs is not None and teacher.paired and len(teacher.inputs) != n:
            faults.append(
                f"teacher '{name}' has {len(teacher.inputs)} inputs, expected {n}: one for each row of the student's, or set "
                "Teacher.paired = False"
            )
        if teacher.known is not None and (teacher.inputs is None or not teacher.paired or teacher.known.shape != (n,)):
            faults.append(
                f"teacher '{name}' says of which of {tuple(teacher.known.shape)} rows it has an input, expected {(n,)} and "
                "paired inputs of its own: set Teacher.inputs, or leave Teacher.known out"
            )
        if settings.weights == "similarity" and teacher.similarity is None:
            faults.append(f"packing.weights = 'similarity' and teacher '{name}' has none: set Teacher.similarity")
        if len(teachers) > 1 and settings.weights in PER_ANSWER and not teacher.paired:
            faults.append(
                f"packing.weights = '{settings.weights}' goes by answers to the student's inputs, and teacher '{name}' is "
                "unpaired: use 'uniform' or 'similarity'"
            )
        if len(teachers) > 1 and settings.weights in BY_LABEL and (unknown := set(data.label_ids) - set(teacher.label_ids)):
            faults.append(
                f"packing.weights = '{settings.weights}' needs a teacher's cross-entropy on the student's labels, and teacher "
                f"'{name}' does not know {sorted(unknown)}: use 'uniform', 'similarity' or 'ebkd'"
            )
    if len(teachers) > 1 and settings.weights in BY_LABEL and not len(data.task.train):
        faults.append(f"packing.weights = '{settings.weights}' needs labelled examples, found 0: use 'uniform'")
    return faults


def row_weights(
    settings: Packing,
    teachers: Sequence[Teacher],
    rules: Sequence[LogitRule],
    logits: Sequence[Tensor],
    data: PackData,
    n: int,
) -> Tensor:
    """Return the weights of K teachers for n rows, (n,K), each row with the sum 1, or 0 where no teacher has an input for it.

    ``ca-mkd`` weighs labelled rows, and the others equally. ``ebkd`` goes by the classes in common.
    """
    known = torch.stack([torch.ones(n, dtype=torch.bool) if t.known is None else t.known for t in teachers], dim=1)
    found = known * weights_of_all(settings, teachers, rules, logits, data, known)
    return found if bool(known.all()) else found / found.sum(dim=1, keepdim=True).clamp(min=1e-30)


def weights_of_all(
    settings: Packing,
    teachers: Sequence[Teacher],
    rules: Sequence[LogitRule],
    logits: Sequence[Tensor],
    data: PackData,
    known: Tensor,
) -> Tensor:
    """Return the weights as if every teacher had an input for every row; the mean cross-entropy is over ``known`` ones."""
    n = len(known)
    K, labels = len(teachers), data.task.train.labels
    if K == 1 or settings.weights == "uniform":
        return weighting.uniform(K).expand(n, K)
    if settings.weights == "similarity":
        similarities = torch.tensor([teacher.similarity for teacher in teachers], dtype=torch.float32)
        return weighting.by_similarity(similarities, settings.weight_temperature).expand(n, K)
    if settings.weights == "ebkd":
        shown = [
            found[:, rule.teacher] if rule.kind == "columns" else found for found, rule in zip(logits, rules, strict=True)
        ]
        return weighting.ebkd(torch.stack([weighting.entropy(found) for found in shown], dim=1))
    losses = torch.stack(
        [
            F.cross_entropy(found[: len(labels)], teacher_labels(labels, rule), reduction="none")
            for found, rule in zip(logits, rules, strict=True)
        ],
        dim=1,
    )
    if settings.weights == "cross-entropy":
        there = known[: len(labels)]
        mean = torch.where(there, losses, 0.0).sum(dim=0) / there.sum(dim=0).clamp(min=1)
        return weighting.by_cross_entropy(mean, settings.weight_temperature).expand(n, K)
    return torch.cat([weighting.ca_mkd(losses), weighting.uniform(K).expand(n - len(labels), K)])


@torch.no_grad()
def shape_of(model: nn.Module, inputs: Tensor) -> Shape:
    """Return the shapes of a model's trace; its mode is as before."""
    mode = model.training
    trace = trace_of(model.eval(), inputs)
    model.train(mode)
    return Shape(
        tuple(stage.shape[1] for stage in trace.latents),
        tuple(stage.shape[2] for stage in trace.latents),
        trace.queries.shape[2],
    )


def padding_doubts(teacher: Teacher, lesson: Lesson | None, inputs: Tensor) -> list[str]:
    """Return a warning where latents are tokens, and some of them padding."""
    if lesson is None or not lesson.usable or not isinstance(teacher.model, BEiT3) or inputs.is_floating_point():
        return []
    if inputs.ndim != 2 or bool((inputs != 0).all()):
        return []
    return [f"the latents of teacher '{teacher.name}' are tokens, padding included: its part in the loss is noise; use 'kd'"]


def refused(faults: Sequence[str]) -> PackingError:
    """Return the error that lists all reasons."""
    return PackingError("the student cannot learn so:\n" + "\n".join(f"  - {fault}" for fault in faults))
