"""The strategies by name: a new one is a new file and one line here."""

from __future__ import annotations

from collections.abc import Callable

from strategies import full_fedavg, joint, late_joiner, local, shared_fedavg
from strategies.job import Job

STRATEGIES: dict[str, Callable[[Job], None]] = {
    "shared-fedavg": shared_fedavg.run,
    "full-fedavg": full_fedavg.run,
    "local": local.run,
    "joint": joint.run,
    "late-joiner": late_joiner.run,
}

# Strategies that are a control themselves, or carry their own.
WITHOUT_CONTROL = ("local", "late-joiner")


def run(job: Job) -> None:
    """Run the matched control where there is one, then the strategy."""
    name = job.config.strategy.name
    if job.config.strategy.control and name not in WITHOUT_CONTROL:
        local.run(job, arm="control")
    STRATEGIES[name](job)
