"""EWC: finetuning with a price on weights that earlier tasks need.

    loss = cross-entropy + sum over earlier tasks t of strength / 2 * sum_i F_ti (w_i - w*_ti)^2

Source: Kirkpatrick et al., PNAS 2017, Eq. 3; F and w* in client/continual/penalty.py. Stored for each task: two numbers for
each parameter outside its head. AdamW divides a gradient by its size, so what ``strength`` does differs from plain descent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from client.continual import finetune
from client.continual.memory import Memory, TaskRecord
from client.continual.penalty import fisher_diagonal, quadratic_penalty
from client.continual.train import Record, TaskData, ignore, random_stream
from models.groups import group_of


@dataclass(frozen=True)
class EWCSettings(finetune.FinetuneSettings):
    """Settings of EWC.

    Attributes:
        strength: λ; 0 is finetuning.
        fisher_samples: training examples that F is estimated from, at most.
    """

    strength: float = 1000.0
    fisher_samples: int = 200


@dataclass(frozen=True)
class Anchor:
    """What one finished task wants to keep: the diagonal of its Fisher information, and the parameters at its end."""

    fisher: dict[str, Tensor]
    parameters: dict[str, Tensor]


def learn(
    model: nn.Module,
    memory: Memory,
    task: int,
    data: TaskData,
    settings: EWCSettings,
    record: Record = ignore,
    *,
    anchors: dict[int, Anchor],
) -> TaskRecord:
    """Learn one task; otherwise as :func:`client.continual.finetune.learn`.

    Args:
        model: see there.
        memory: see there.
        task: see there.
        data: see there.
        settings: see there.
        record: see there.
        anchors: of every earlier task; gets this one's.

    Raises:
        ValueError: an earlier task has no anchor.
    """
    missing = sorted(set(memory.records) - set(anchors) - {task})
    if missing:
        raise ValueError(f"tasks {missing} have no anchor: pass the dictionary that they were learned with")
    penalty = penalty_of(model, anchors, task, settings.strength)
    written = finetune.learn(model, memory, task, data, settings, record, penalty=penalty)
    known = dict(model.named_parameters())
    names = [name for name, p in known.items() if p.requires_grad and group_of(name) in finetune.SHARED]
    device = known[names[0]].device
    with random_stream(settings.seed, task, "ewc/fisher", 0, device) as generator:
        rows = torch.randperm(len(data.train), generator=generator)[: settings.fisher_samples]
        inputs, labels = data.train.inputs[rows].to(device), data.train.labels[rows].to(device)
        fisher = fisher_diagonal(model, inputs, labels, names, generator=generator)
    anchors[task] = Anchor(fisher, {name: known[name].detach().clone() for name in names})
    return written


def penalty_of(model: nn.Module, anchors: Mapping[int, Anchor], task: int, strength: float) -> Callable[[], Tensor] | None:
    """Return what to add to the loss of a task, as a function; None: there is no earlier task."""
    earlier = [anchor for done, anchor in anchors.items() if done != task]
    known = dict(model.named_parameters())

    def penalty() -> Tensor:
        return torch.stack([quadratic_penalty(known, a.fisher, a.parameters, strength) for a in earlier]).sum()

    return penalty if earlier else None
