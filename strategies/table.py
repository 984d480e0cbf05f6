"""The strategies by name: a new one is a new file and one line here."""

from __future__ import annotations

from collections.abc import Callable

from config import RunConfig
from strategies import full_fedavg, joint, late_joiner, local, shared_fedavg
from strategies.job import Job
from strategies.protocol import RunError

STRATEGIES: dict[str, Callable[[Job], None]] = {
    "shared-fedavg": shared_fedavg.run,
    "full-fedavg": full_fedavg.run,
    "local": local.run,
    "joint": joint.run,
    "late-joiner": late_joiner.run,
}

# Strategies that are a control themselves, or carry their own.
WITHOUT_CONTROL = ("local", "late-joiner")

STREAMS: frozenset[str] = frozenset()
"""Strategies that lead clients through a stream of tasks; the others would train the first task and leave the rest out."""


def check_tasks(config: RunConfig) -> None:
    """Refuse a stream of tasks under a strategy that does not walk it.

    Raises:
        RunError: names both settings.
    """
    name, number = config.strategy.name, config.data.tasks_per_client
    if number > 1 and name not in STREAMS:
        raise RunError(
            f"strategy.name = '{name}' trains one task a client, found data.tasks-per-client = {number}: "
            f"use 1, or a strategy for streams of tasks ({', '.join(sorted(STREAMS)) or 'there is none yet'})"
        )


def run(job: Job) -> None:
    """Run the matched control where there is one, then the strategy.

    Raises:
        RunError: the strategy cannot train the tasks of the config, see :func:`check_tasks`.
    """
    check_tasks(job.config)
    name = job.config.strategy.name
    if job.config.strategy.control and name not in WITHOUT_CONTROL:
        local.run(job, arm="control")
    STRATEGIES[name](job)
