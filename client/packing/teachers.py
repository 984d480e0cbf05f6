"""Teachers: what they are, how they come to be, and how they are asked.

A teacher is asked in evaluation mode and without a graph, and of its answer only what the losses read is kept. What it is
asked before training is kept on the host.

Shapes: B batch, n all rows of the student's data, N latents, D channels, C classes of the teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from client.continual.train import TaskData, random_stream, train, validate
from client.modeldiff.swap import parameters_of
from client.modeldiff.tune import Budget, with_decay
from client.packing.losses.edu_attention import class_prototypes
from client.training import autocast, steps_per_epoch
from models.groups import Group, copy_model, named_tensors
from models.trace import Trace

BATCH = 256


@dataclass(frozen=True)
class Teacher:
    """A frozen model that a student learns from.

    Attributes:
        name: in logs, facts and errors; one of its own.
        model: is put in evaluation mode and never changed; it must share no parameter with the student.
        label_ids: names of its classes, in the order of its logits.
        similarity: to the target, such as ModelDiff's; for the weights ``similarity``.
        prototypes: its feature of each class (C,D), for the loss ``edu-attention``; see :func:`prototypes_of`.
        inputs: what it sees in place of the student's inputs, such as another modality of the same instances; None: the same.
        paired: row i of ``inputs`` is the same instance as row i of the student's data (labelled, unlabelled, then those of
            parents, as far as they are there). If not, a random batch of them is drawn in each step.
        known: of paired ``inputs``, bool (n,): False where there is no such instance for a row; the teacher is not asked about
            it, and what stands in its place is not read. None: all are there.
        losses: names of ``packing.losses`` that it teaches by; None: all.
    """

    name: str
    model: nn.Module
    label_ids: tuple[str, ...]
    similarity: float | None = None
    prototypes: Tensor | None = None
    inputs: Tensor | None = None
    paired: bool = True
    known: Tensor | None = None
    losses: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Answers:
    """What a teacher computed for some rows, as far as it is needed, float32.

    Attributes:
        latents: of the stages that are compared, by stage.
        features: mean of the queries, (B,D).
        logits: (B,C).
        grids: of every stage, see :class:`models.trace.Trace`.
    """

    latents: dict[int, Tensor]
    features: Tensor
    logits: Tensor
    grids: tuple[tuple[int, ...], ...] = ()

    def rows(self, rows: Tensor, device: torch.device) -> Answers:
        """Return the answers for some rows, on a device."""
        latents = {stage: value[rows].to(device) for stage, value in self.latents.items()}
        return Answers(latents, self.features[rows].to(device), self.logits[rows].to(device), self.grids)


def trace_of(model: nn.Module, inputs: Tensor) -> Trace:
    """Run a model and return its trace."""
    return model.trace(inputs)  # type: ignore[no-any-return, operator]


@torch.no_grad()  # not inference mode, whose tensors no later graph may use
def ask(model: nn.Module, inputs: Tensor, stages: Sequence[int], precision: str = "float32") -> Answers:
    """Return what a model in evaluation mode answers for a batch; its other activations are free on return.

    Args:
        model: on the device of the inputs.
        inputs: a batch.
        stages: whose latents are kept.
        precision: of the forward pass, see :func:`client.training.autocast`.
    """
    model.eval()
    with autocast(precision, inputs.device):
        trace = trace_of(model, inputs)
    latents = {stage: trace.latents[stage].float() for stage in stages}
    return Answers(latents, trace.queries.float().mean(dim=1), trace.logits.float(), trace.grids)


def ask_all(
    model: nn.Module, inputs: Tensor, stages: Sequence[int], device: torch.device, precision: str = "float32"
) -> Answers:
    """Return the answers for any number of inputs, on the host.

    Raises:
        FloatingPointError: a logit is not finite.
    """
    parts = []
    for some in torch.split(inputs, BATCH):
        found = ask(model, some.to(device), stages, precision)
        parts.append(found.rows(torch.arange(len(some), device=device), torch.device("cpu")))
        del found
    latents = {stage: torch.cat([part.latents[stage] for part in parts]) for stage in stages}
    logits = torch.cat([part.logits for part in parts])
    if bad := int((~torch.isfinite(logits)).sum()):
        raise FloatingPointError(f"{bad} of {logits.numel()} logits of a teacher are NaN or infinite")
    return Answers(latents, torch.cat([part.features for part in parts]), logits, parts[0].grids)


def prototypes_of(model: nn.Module, inputs: Tensor, labels: Tensor, num_classes: int, device: torch.device) -> Tensor:
    """Return the mean feature of each class, (C,D), on the host.

    Args:
        model: the teacher, on ``device``.
        inputs: labelled examples.
        labels: (n,), in [0, num_classes).
        num_classes: C.
        device: where to compute.

    Raises:
        ValueError: a class has no example.
    """
    return class_prototypes(ask_all(model, inputs, (), device).features, labels, num_classes)


def train_teacher(
    model: nn.Module,
    data: TaskData,
    budget: Budget,
    groups: Sequence[Group] = (Group.ADAPTER, Group.HEAD),
    checkpoint: Literal["best-validation", "last"] = "last",
) -> nn.Module:
    """Return a trained copy of a donor's model.

    ``best-validation`` is the epoch with the best balanced accuracy on the validation examples, the first of equal ones: what
    the papers on wearables call ESKD. Batches, augmentation and dropout are the same as for ``last``, so that the two differ
    in the epoch alone.

    Args:
        model: with a head for the classes of the data.
        data: what it is trained on; the validation examples must not be those that results are reported on.
        budget: epochs, optimisation and seed.
        groups: that are trained; by default the backbone stays as it came (calibration), in evaluation mode.
        checkpoint: which epoch is returned.

    Raises:
        FloatingPointError: the loss is not finite.

    Source: Cho & Hariharan, "On the Efficacy of Knowledge Distillation", ICCV 2019, of teachers that stop early.
    """
    model = copy_model(model)
    parameters = parameters_of(model, *groups)
    frozen = [p for p in model.parameters() if p.requires_grad and not any(p is own for own in parameters)]
    per_epoch = steps_per_epoch(data.train, budget.how.batch_size)
    kept: tuple[float, dict[str, Tensor]] | None = None

    def compute(inputs: Tensor) -> Tensor:
        if Group.BACKBONE not in groups:
            model.get_submodule("backbone").eval()
        return model(inputs)  # type: ignore[no-any-return]

    def after(step: int, _: torch.optim.Optimizer) -> None:
        nonlocal kept
        if checkpoint == "last" or step % per_epoch:
            return
        found = validate(model, model, data)
        model.train()
        if kept is None or found > kept[0]:
            kept = found, {name: value.detach().clone() for name, value in named_tensors(model).items()}

    for parameter in frozen:
        parameter.requires_grad_(False)
    with random_stream(budget.seed, 0, "teacher", 0, next(model.parameters()).device) as generator:
        decayed = with_decay(parameters, budget.how.weight_decay)
        train(model, compute, decayed, data, budget.how, epochs=budget.epochs, generator=generator, after_step=after)
    for parameter in frozen:
        parameter.requires_grad_(True)
    if kept is not None:
        with torch.no_grad():
            for name, value in named_tensors(model).items():
                value.copy_(kept[1][name])
    return model.eval()
