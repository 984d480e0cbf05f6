"""Every client learns its stream of tasks alone, one after the other, by ``continual.method``. Nothing but scores travels.

    arm scratch      each task by itself, with a fresh model: its validation is the goal of cpg, its test accuracy the control
    arm continual    task after task; after each, all tasks met so far are evaluated

Under cpg, packnet and piggyback the accuracy on a task never changes once it is learned.
"""

from __future__ import annotations

import math

import numpy as np

from strategies.job import Arrays, Job
from strategies.protocol import SCRATCH, TRAIN_TASK, ClientInfo, Instruction

GOALS = "goals"


def run(job: Job) -> None:
    """Learn all tasks from scratch where that is wanted, then one after the other."""
    settings = job.config
    wanted = settings.continual.method == "cpg" and settings.continual.goal == "scratch"
    goals = from_scratch(job, settings.continual.epochs) if settings.strategy.control or wanted else {}
    walk(job, "continual", goals if wanted else {})


def from_scratch(job: Job, epochs: int) -> dict[int, list[float]]:
    """Let every client learn each of its tasks with a fresh model; otherwise as :func:`walk`."""
    return walk(job, SCRATCH, {}, method=SCRATCH, epochs=epochs)


def walk(
    job: Job, arm: str, goals: dict[int, list[float]], *, method: str = "", epochs: int | None = None
) -> dict[int, list[float]]:
    """Let every client learn its tasks, and evaluate after each.

    Args:
        job: the run.
        arm: name of this part of the run.
        goals: validation to reach, by partition id and task; empty: none.
        method: empty for ``continual.method``.
        epochs: of a task; None: ``continual.epochs``.

    Returns:
        Validation of each task by partition id; NaN where a client gave no valid answer.
    """
    begun = job.progress.begin(arm)
    clients = list(job.mailbox.clients.values())
    tasks = job.config.data.tasks_per_client
    found = {client.partition_id: [math.nan] * tasks for client in clients} | _read(begun.arrays)
    epochs = epochs or job.config.continual.epochs
    for task in range(begun.rounds_done, tasks):

        def told(client: ClientInfo, task: int = task, **fields: object) -> Instruction:
            return job.instruction(client, arm, round=task + 1, task=task, method=method, **fields)

        asked = [told(client, epochs=epochs, goal=_goal(job, goals.get(client.partition_id), task)) for client in clients]
        replies = job.mailbox.ask([job.message(TRAIN_TASK, one, None) for one in asked], lambda client: {})
        job.record_training(replies, arm, task + 1, tasks)
        job.record_learned(replies, arm, task + 1)
        for reply in replies:
            found[reply.client.partition_id][task] = reply.metrics["validation"]
        for split in ("val", "test") if job.config.run.evaluate_every else ("test",):
            job.evaluate_tasks([told(client, split=split) for client in clients], after=task + 1)
        job.progress.save(arm, task + 1, _write(found))
    if not begun.finished:
        job.progress.finish(arm)
    return found


def _goal(job: Job, scratch: list[float] | None, task: int) -> float:
    """Return the goal of a task; 0, which is none, without a validation to go by."""
    if scratch is None or math.isnan(scratch[task]):
        return 0.0
    return min(1.0, max(0.0, scratch[task] + job.config.continual.goal_margin))


def _write(found: dict[int, list[float]]) -> Arrays:
    return {f"{GOALS}/{client}": np.array(values) for client, values in found.items()}


def _read(arrays: Arrays) -> dict[int, list[float]]:
    return {int(name.partition("/")[2]): values.tolist() for name, values in arrays.items()}
