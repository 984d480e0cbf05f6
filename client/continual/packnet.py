"""PackNet: train on free weights beside all older ones, prune once by magnitude, retrain what is left.

    claim free weights -> train -> free round(ratio x own) of each layer, smallest first -> retrain -> finish

Source: Mallya & Lazebnik, CVPR 2018, §3. No picks: a task computes with every weight of earlier tasks. There, biases and norms
are those of the first task; here each task has its own, as all private tensors, and so has every other method.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from client.continual.memory import Memory, TaskRecord
from client.continual.ownership import attach_owners, claim_free, count_owned
from client.continual.prune import prune_once
from client.continual.session import begin, finish
from client.continual.train import Optimisation, Record, TaskData, counts, ignore, random_stream, train, validate


@dataclass(frozen=True)
class PackNetSettings:
    """Settings of PackNet.

    Attributes:
        train_epochs: before pruning.
        retrain_epochs: after it (paper: half as many, at a tenth of the rate).
        retrain_learning_rate: see there.
        ratio: share of a task's own weights of each layer to free (paper: 0.5 to 0.75), in [0, 1].
        optimisation: batches and optimizer.
        seed: of everything random.
    """

    train_epochs: int = 10
    retrain_epochs: int = 5
    retrain_learning_rate: float = 2e-4
    ratio: float = 0.6
    optimisation: Optimisation = field(default_factory=Optimisation)
    seed: int = 0


def learn(
    model: nn.Module,
    memory: Memory,
    task: int,
    data: TaskData,
    settings: PackNetSettings,
    record: Record = ignore,
) -> TaskRecord:
    """Learn one task; the model and the memory hold it afterwards.

    Without a free weight the task learns its private tensors alone, and ``no-free-weights`` is recorded.

    Args:
        model: with the head of the task and, as a start, other private tensors in it; gets owners if it has none.
        memory: the finished tasks.
        task: id, after those of the finished ones.
        data: of the task.
        settings: see there.
        record: takes ``train``, ``prune`` and ``retrain`` with validation and counts.
    """
    attach_owners(model)
    claim_free(model, task)
    if task not in count_owned(model):
        record("no-free-weights", task=task)
    session = begin(model, memory, task, picking=False, empty=True)
    device = session.values.device
    stages = (
        ("train", settings.train_epochs, settings.optimisation.learning_rate),
        ("retrain", settings.retrain_epochs, settings.retrain_learning_rate),
    )
    for name, epochs, rate in stages:
        if name == "retrain":
            released = prune_once(session, settings.ratio)
            record("prune", task=task, ratio=settings.ratio, released=released, **counts(model, task))
        groups = session.parameter_groups(settings.optimisation.weight_decay)
        with random_stream(settings.seed, task, name, 0, device) as generator:
            loss = train(
                model, session, groups, data, settings.optimisation, epochs=epochs, generator=generator, learning_rate=rate
            )
        found = validate(model, session, data)
        record(name, task=task, loss=loss, epochs=epochs, validation=found, **counts(model, task))
    return finish(session)
