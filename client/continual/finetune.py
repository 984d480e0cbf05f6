"""Finetuning: every task trains all weights, and nothing is protected. The reference for how much is forgotten.

All tensors but the heads are those of the last task, whichever task is evaluated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from client.continual.memory import Memory, TaskRecord, count_pickable, remember
from client.continual.ownership import attach_owners, claim_free
from client.continual.train import Groups, Optimisation, Record, TaskData, counts, ignore, random_stream, train, validate
from models.groups import Group

SHARED = frozenset({Group.BACKBONE, Group.ADAPTER})


@dataclass(frozen=True)
class FinetuneSettings:
    """Settings of finetuning.

    Attributes:
        train_epochs: of each task.
        optimisation: batches and optimizer.
        seed: of everything random.
    """

    train_epochs: int = 10
    optimisation: Optimisation = field(default_factory=Optimisation)
    seed: int = 0


def learn(
    model: nn.Module,
    memory: Memory,
    task: int,
    data: TaskData,
    settings: FinetuneSettings,
    record: Record = ignore,
    *,
    penalty: Callable[[], Tensor] | None = None,
) -> TaskRecord:
    """Learn one task; the model holds it afterwards, and the memory its head.

    ``task_model(..., verify=False)`` returns the model of an earlier task as it is now, with the head of that time; with
    ``verify`` it raises ForgottenError. Not to be mixed with other methods on one model.

    Args:
        model: with the head of the task in it; gets owners if it has none. All weights become the first task's.
        memory: the finished tasks.
        task: id, after those of the finished ones.
        data: of the task.
        settings: see there.
        record: takes ``train`` with validation and counts.
        penalty: a scalar added to the loss (EWC).
    """
    attach_owners(model)
    claim_free(model, task)
    how = settings.optimisation
    device = next(model.parameters()).device
    with random_stream(settings.seed, task, "train", 0, device) as generator:
        loss = train(
            model,
            model,
            parameter_groups(model, how.weight_decay),
            data,
            how,
            epochs=settings.train_epochs,
            generator=generator,
            penalty=penalty,
        )
    found = validate(model, model, data)
    record("train", task=task, loss=loss, epochs=settings.train_epochs, validation=found, **counts(model, task))
    return remember(model, memory, task, torch.ones(count_pickable(model, task), dtype=torch.bool), SHARED)


def parameter_groups(model: nn.Module, weight_decay: float) -> Groups:
    """Return all trainable parameters, with weight decay on matrices only."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
