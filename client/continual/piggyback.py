"""Piggyback: the first task learns the backbone, and each later one a binary mask over it.

    task 1     claim and train all weights
    task c     train scores of picks, pick = score > threshold, private tensors and head; no weight moves

Source: Mallya et al., ECCV 2018, §3.2 (real-valued masks from 1e-2, threshold 5e-3, straight-through gradients, Adam). There,
the backbone comes from ImageNet, and its norms are fixed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from client.continual.memory import Memory, TaskRecord
from client.continual.ownership import attach_owners, claim_free
from client.continual.session import begin, finish
from client.continual.train import Optimisation, Record, TaskData, counts, ignore, random_stream, train, validate


@dataclass(frozen=True)
class PiggybackSettings:
    """Settings of Piggyback.

    Attributes:
        train_epochs: of the first task and of each mask (paper: 30).
        optimisation: batches and optimizer; ``score_learning_rate`` is that of masks (paper: 1e-4).
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
    settings: PiggybackSettings,
    record: Record = ignore,
    *,
    scores: Tensor | None = None,
) -> TaskRecord:
    """Learn one task; the model and the memory hold it afterwards.

    Args:
        model: with the head of the task and, as a start, other private tensors in it; gets owners if it has none.
        memory: the finished tasks; without any, this task learns the backbone.
        task: id, after those of the finished ones.
        data: of the task.
        settings: see there.
        record: takes ``train`` with validation, counts and the share of picks.
        scores: of picks, of a task that was trained elsewhere and goes on here.
    """
    attach_owners(model)
    if not memory.records:
        claim_free(model, task)
    session = begin(model, memory, task, scores, empty=True)
    how = settings.optimisation
    groups = session.parameter_groups(how.weight_decay, scores={"lr": how.score_learning_rate})
    with random_stream(settings.seed, task, "train", 0, session.values.device) as generator:
        loss = train(model, session, groups, data, how, epochs=settings.train_epochs, generator=generator)
    picks = session.picks()
    share = picks.float().mean().item() if len(picks) else None
    found = validate(model, session, data)
    told = {"loss": loss, "epochs": settings.train_epochs, "validation": found, "picked": share}
    record("train", task=task, **told, **counts(model, task))
    return finish(session)
