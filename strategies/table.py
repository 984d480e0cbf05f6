"""The strategies by name: a new one is a new file and one line here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from config import RunConfig
from strategies import (
    backpack,
    clustered_fedavg,
    comkd,
    continual,
    distil,
    fedweit,
    full_fedavg,
    joint,
    late_joiner,
    local,
    shared_fedavg,
    stream_fedavg,
)
from strategies.job import Job
from strategies.protocol import RunError

STRATEGIES: dict[str, Callable[[Job], None]] = {
    "shared-fedavg": shared_fedavg.run,
    "clustered-fedavg": clustered_fedavg.run,
    "full-fedavg": full_fedavg.run,
    "local": local.run,
    "joint": joint.run,
    "late-joiner": late_joiner.run,
    "backpack": backpack.run,
    "comkd": comkd.run,
    "distil": distil.run,
}
"""Strategies for one task a client."""

STREAMS: dict[str, Callable[[Job], None]] = {
    "continual": continual.run,
    "fedweit": fedweit.run,
    "shared-fedavg": stream_fedavg.run,
    "local": partial(stream_fedavg.run, arm="local", exchange=False),
}
"""Strategies that lead clients through a stream of tasks; the others would train the first task and leave the rest out."""

# Strategies that are a control themselves, or carry their own.
WITHOUT_CONTROL = ("local", "late-joiner", "continual", "fedweit", "backpack", "comkd", "distil")


def check_tasks(config: RunConfig) -> None:
    """Refuse a number of tasks that a strategy is not for.

    Raises:
        RunError: names both settings.
    """
    name, number = config.strategy.name, config.data.tasks_per_client
    if number > 1 and name not in STREAMS:
        raise RunError(
            f"strategy.name = '{name}' trains one task a client, found data.tasks-per-client = {number}: "
            f"use 1, or a strategy for streams of tasks ({', '.join(sorted(STREAMS))})"
        )
    if number == 1 and name not in STRATEGIES:
        raise RunError(f"strategy.name = '{name}' walks a stream, found data.tasks-per-client = 1: use 2 or more")


def run(job: Job) -> None:
    """Run the matched control where there is one, then the strategy.

    Raises:
        RunError: the strategy cannot train the tasks of the config, see :func:`check_tasks`.
    """
    check_tasks(job.config)
    name, streams = job.config.strategy.name, job.config.data.tasks_per_client > 1
    if job.config.strategy.control and name not in WITHOUT_CONTROL:
        control = partial(stream_fedavg.run, exchange=False) if streams else local.run
        control(job, arm="control")
    (STREAMS if streams else STRATEGIES)[name](job)
