"""What all methods of one task share: its data, the optimiser's settings, the loop over epochs, and validation.

Nothing here knows who owns what: a method hands over parameter groups and a function from inputs to logits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from client.continual.grow import widths
from client.continual.ownership import count_owned
from client.schedule import one_cycle, passed
from client.seeding import seed_for
from client.training import autocast, batches, descend, finite, new_optimizer, predict, steps_per_epoch
from config import Train, ascending_shares
from data_partition.client_data import Split
from data_partition.metrics import balanced_accuracy
from models.gates import gates

Compute = Callable[[Tensor], Tensor]
Groups = list[dict[str, Any]]


@dataclass(frozen=True)
class TaskData:
    """The examples of one task.

    Attributes:
        train: what it learns from.
        val: what decides on growth, ratios and retraining; never the test examples.
        augment: returns a randomly changed copy of a batch of inputs; None: no augmentation.
        class_weights: of the loss, shape (classes,); None: equal.
        precision: of the forward passes, see :func:`client.training.autocast`.
    """

    train: Split
    val: Split
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None
    class_weights: Tensor | None = None
    precision: str = "float32"


@dataclass(frozen=True)
class Optimisation:
    """How a task is optimised: AdamW or SGD, see :func:`client.training.new_optimizer`, with gradient clipping.

    Scores of picks are trained by Adam, whatever trains the weights, as in CPG: under AdamW in a group of their own without
    weight decay, which is the same.

    Attributes:
        batch_size: examples of a step; the last of an epoch may be short.
        learning_rate: peak rate of weights and private parameters.
        score_learning_rate: peak rate of the scores of picks (CPG: 5e-4, with Adam).
        weight_decay: of weights and private matrices.
        clip_norm: largest gradient norm, over scores too; 0: no clipping.
        optimizer: of weights and private parameters.
        momentum: of SGD.
        schedule: ``cosine``, half of one from the peak rates to 0; ``one-cycle``, see :func:`client.schedule.one_cycle`;
            ``constant``; or ``steps``.
        milestones: of ``steps``: shares of the steps at which the rate of weights falls (CPG: 0.5 and 0.8).
        milestone_factor: what it is multiplied by each time (CPG: 0.1).
        score_milestones: of ``steps``: shares, and the rate of scores from there on, in units of its peak (CPG: a fifth, then
            0). A rate of 0 is left out where a task owns no weight.
    """

    batch_size: int = 32
    learning_rate: float = 2e-3
    score_learning_rate: float = 5e-4
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = 0.9
    schedule: Literal["cosine", "one-cycle", "constant", "steps"] = "cosine"
    milestones: tuple[float, ...] = (0.5, 0.8)
    milestone_factor: float = 0.1
    score_milestones: tuple[tuple[float, float], ...] = ((0.5, 0.2), (0.7, 0.0))

    def rate(self, step: int, total_steps: int, group: Mapping[str, Any]) -> float:
        """Return the learning rate of a group in a step, from 0, in units of its peak."""
        if self.schedule == "constant":
            return 1.0
        if self.schedule == "cosine":
            return (1 + math.cos(math.pi * step / total_steps)) / 2
        if self.schedule == "one-cycle":
            return one_cycle((step + 1) / total_steps)
        alone = group.get("scores_alone")
        if alone is None:
            return self.milestone_factor ** passed(self.milestones, step, total_steps)
        reached = [rate for share, rate in self.score_milestones if passed([share], step, total_steps)]
        return ([1.0] + [rate for rate in reached if rate > 0 or not alone])[-1]

    def optimizers(self, groups: Groups, learning_rate: float) -> list[torch.optim.Optimizer]:
        """Return the optimizer of weights and private parameters, and, if it cannot be the same, that of scores behind it."""
        own = [group for group in groups if self.optimizer == "adamw" or "scores_alone" not in group]
        scores = [group for group in groups if not any(group is other for other in own)]
        found = [new_optimizer(self.optimizer, own, learning_rate, self.momentum)] if own else []
        return [*found, torch.optim.Adam(scores, lr=learning_rate, fused=True)] if scores else found


def optimisation_of(settings: Train, score_learning_rate: float) -> Optimisation:
    """Return how tasks are optimised under ``[train]``, of which epochs and warm-up are left out."""
    assert settings.schedule != "one-cycle"  # refused by the run config
    return Optimisation(
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        score_learning_rate=score_learning_rate,
        weight_decay=settings.weight_decay,
        clip_norm=settings.clip_norm,
        optimizer=settings.optimizer,
        momentum=settings.momentum,
        schedule=settings.schedule,
        milestones=ascending_shares(settings.milestones),
        milestone_factor=settings.milestone_factor,
    )


class Record(Protocol):
    """Takes one fact; every field is JSON."""

    def __call__(self, event: str, /, **fields: Any) -> None: ...


def ignore(event: str, /, **fields: Any) -> None:
    """Record nothing."""


def counts(model: nn.Module, task: int) -> dict[str, Any]:
    """Return the fields of a fact that tell of a model: owned weights, free weights and width."""
    owned = count_owned(model)
    return {"owned": owned.get(task, 0), "free": owned.get(0, 0), "width": widths(model)}


@contextmanager
def random_stream(seed: int, task: int, state: str, stage: int, device: torch.device) -> Iterator[torch.Generator]:
    """Seed PyTorch (dropout) and yield a generator (batches, augmentation), both from (seed, task, state, stage) alone.

    So all methods train a task, before they prune anything, in the same order of batches.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        own = seed_for(seed, task, stage, state)
        torch.manual_seed(own)
        yield torch.Generator().manual_seed(own)


def train(
    model: nn.Module,
    compute: Compute,
    groups: Groups,
    data: TaskData,
    how: Optimisation,
    *,
    epochs: int,
    generator: torch.Generator,
    learning_rate: float | None = None,
    decay: bool = True,
    span: tuple[int, int] | None = None,
    penalty: Callable[[], Tensor] | None = None,
    after_step: Callable[[int, torch.optim.Optimizer], object] | None = None,
) -> float:
    """Train for some epochs with new optimizers and return the mean loss of the last one; 0.0 without an epoch.

    Args:
        model: put in training mode; its gates are clamped after each step.
        compute: inputs (B, ...) to logits (B, classes).
        groups: of parameters, as those of a session; one without a rate gets ``learning_rate``, and one without a parameter
            is left out.
        data: its training examples are used.
        how: batches and optimizer.
        epochs: >= 0.
        generator: of shuffling and augmentation.
        learning_rate: in place of that of ``how``.
        decay: by the schedule of ``how``; else the rates are constant.
        span: where these epochs are in a longer schedule: epochs before them, and of all of it; None: they are all of it.
        penalty: a scalar added to the loss of each step, not to the loss returned.
        after_step: called with the number of steps done, from 1, and the optimizer of the weights.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    groups = [dict(group) for group in groups if group["params"]]
    optimizers = how.optimizers(groups, how.learning_rate if learning_rate is None else learning_rate)
    peaks = [(group, group["lr"]) for optimizer in optimizers for group in optimizer.param_groups]
    device = groups[0]["params"][0].device
    weight = None if data.class_weights is None else data.class_weights.to(device)
    per_epoch, (done, all_epochs) = steps_per_epoch(data.train, how.batch_size), span or (0, epochs)
    before, total, step, mean = done * per_epoch, all_epochs * per_epoch, 0, 0.0
    model.train()
    for _ in range(epochs):
        losses = []
        for inputs, labels in batches(data.train, how.batch_size, generator):
            for group, peak in peaks:
                group["lr"] = peak * how.rate(before + step, total, group) if decay else peak
            if data.augment is not None:
                inputs = data.augment(inputs, generator)
            loss = step_once(
                in_precision(compute, data.precision),
                optimizers,
                inputs.to(device),
                labels.to(device),
                weight,
                how.clip_norm,
                penalty,
            )
            losses.append(loss * len(labels))
            for gate in gates(model):
                gate.clamp_()
            step += 1
            if after_step is not None:
                after_step(step, optimizers[0])
        mean = sum(losses) / len(data.train)
    return mean


def step_once(
    compute: Compute,
    optimizers: Sequence[torch.optim.Optimizer],
    inputs: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    clip_norm: float,
    penalty: Callable[[], Tensor] | None,
) -> float:
    """Do one step and return its loss without the penalty. No graph outlives it, so that pruning may follow.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    loss = F.cross_entropy(compute(inputs).float(), labels, weight=weight)
    value = finite(loss)
    parameters = (p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"])
    descend(loss if penalty is None else loss + penalty(), optimizers, parameters, clip_norm)
    return value


@torch.inference_mode()
def validate(model: nn.Module, compute: Compute, data: TaskData) -> float:
    """Return the balanced accuracy of the validation examples; ``model`` is put in evaluation mode."""
    model.eval()
    device = next(model.parameters()).device
    logits = predict(in_precision(compute, data.precision), data.val, device)
    return balanced_accuracy(logits.argmax(dim=1), data.val.labels, logits.shape[1])


def in_precision(compute: Compute, precision: str) -> Compute:
    """Return a function that computes under autocast."""

    def cast(inputs: Tensor) -> Tensor:
        with autocast(precision, inputs.device):
            return compute(inputs)

    return cast
