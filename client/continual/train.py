"""What all methods of one task share: its data, the optimiser's settings, the loop over epochs, and validation.

Nothing here knows who owns what: a method hands over parameter groups and a function from inputs to logits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from client.continual.grow import widths
from client.continual.ownership import count_owned
from client.seeding import seed_for
from client.training import batches, descend, finite, predict, steps_per_epoch
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
    """

    train: Split
    val: Split
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None
    class_weights: Tensor | None = None


@dataclass(frozen=True)
class Optimisation:
    """How a task is optimised: AdamW (Loshchilov & Hutter, ICLR 2019) with gradient clipping.

    Attributes:
        batch_size: examples of a step; the last of an epoch may be short.
        learning_rate: peak rate of weights and private parameters.
        score_learning_rate: peak rate of the scores of picks (CPG: 5e-4, with Adam).
        weight_decay: of weights and private matrices.
        clip_norm: largest gradient norm; 0: no clipping.
    """

    batch_size: int = 32
    learning_rate: float = 2e-3
    score_learning_rate: float = 5e-4
    weight_decay: float = 0.05
    clip_norm: float = 1.0


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
    """Train for some epochs with a new optimizer and return the mean loss of the last one; 0.0 without an epoch.

    Args:
        model: put in training mode; its gates are clamped after each step.
        compute: inputs (B, ...) to logits (B, classes).
        groups: of the optimizer; one without a rate gets ``learning_rate``. Those without a parameter are left out.
        data: its training examples are used.
        how: batches and optimizer.
        epochs: >= 0.
        generator: of shuffling and augmentation.
        learning_rate: in place of that of ``how``.
        decay: half a cosine from the rates to 0; else they are constant.
        span: where these epochs are in a longer schedule: epochs before them, and of all of it; None: they are all of it.
        penalty: a scalar added to the loss of each step, not to the loss returned.
        after_step: called with the number of steps done, from 1, and the optimizer.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    groups = [dict(group) for group in groups if group["params"]]
    optimizer = torch.optim.AdamW(groups, lr=how.learning_rate if learning_rate is None else learning_rate, fused=True)
    peaks = [group["lr"] for group in optimizer.param_groups]
    device = groups[0]["params"][0].device
    weight = None if data.class_weights is None else data.class_weights.to(device)
    per_epoch, (done, all_epochs) = steps_per_epoch(data.train, how.batch_size), span or (0, epochs)
    before, total, step, mean = done * per_epoch, all_epochs * per_epoch, 0, 0.0
    model.train()
    for _ in range(epochs):
        losses = []
        for inputs, labels in batches(data.train, how.batch_size, generator):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * (1 + math.cos(math.pi * (before + step) / total)) / 2 if decay else peak
            if data.augment is not None:
                inputs = data.augment(inputs, generator)
            loss = step_once(compute, optimizer, inputs.to(device), labels.to(device), weight, how.clip_norm, penalty)
            losses.append(loss * len(labels))
            for gate in gates(model):
                gate.clamp_()
            step += 1
            if after_step is not None:
                after_step(step, optimizer)
        mean = sum(losses) / len(data.train)
    return mean


def step_once(
    compute: Compute,
    optimizer: torch.optim.Optimizer,
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
    parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
    descend(loss if penalty is None else loss + penalty(), optimizer, parameters, clip_norm)
    return value


@torch.inference_mode()
def validate(model: nn.Module, compute: Compute, split: Split) -> float:
    """Return the balanced accuracy of a split; ``model`` is put in evaluation mode."""
    model.eval()
    device = next(model.parameters()).device
    logits = predict(compute, split, device)
    return balanced_accuracy(logits.argmax(dim=1), split.labels, logits.shape[1])
