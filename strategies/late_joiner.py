"""A client joins late: it starts from the trunk that the others have federated, against from scratch at equal steps.

Clients are left out fold by fold (``strategy.joiner-fold``: all clients of one domain, or one client at a time). The others
federate; then each client left out trains ``strategy.joiner-epochs`` epochs on ``strategy.joiner-fraction`` of the concepts,
once from the federated trunk with a fresh adapter and head, once from scratch. Every client is a joiner exactly once.
"""

from __future__ import annotations

from strategies.job import Arrays, Job
from strategies.protocol import TRAIN, ClientInfo
from strategies.shared_fedavg import SharedFedAvg

SCRATCH, FEDERATED = "scratch", "joined"


def run(job: Job) -> None:
    """Federate without each fold's clients, then let them join, and evaluate them on the test split."""
    clients = list(job.mailbox.clients.values())
    for name, joiners in folds(clients, job.config.strategy.joiner_fold).items():
        members = [client for client in clients if client not in joiners]
        trunk = SharedFedAvg(job, f"without-{name}", members, share="backbone", scope="all").run()
        join(job, f"{SCRATCH}-{name}", joiners, None)
        join(job, f"{FEDERATED}-{name}", joiners, {key.removeprefix("all/"): value for key, value in trunk.items()})


def folds(clients: list[ClientInfo], kind: str) -> dict[str, list[ClientInfo]]:
    """Name the clients left out in each fold; together they are all clients, each once."""
    if kind == "client":
        return {f"client-{client.partition_id:02d}": [client] for client in clients}
    return {f"domain-{d}": [c for c in clients if c.domain == d] for d in sorted({c.domain for c in clients})}


def join(job: Job, arm: str, joiners: list[ClientInfo], trunk: Arrays | None) -> None:
    """Train the joiners for one round of ``strategy.joiner-epochs`` and evaluate them; None: from scratch."""
    if job.progress.begin(arm).finished:
        return
    settings = job.config.strategy
    instructions = [
        job.instruction(client, arm, total_rounds=1, epochs=settings.joiner_epochs, train_fraction=settings.joiner_fraction)
        for client in joiners
    ]
    arrays = None if trunk is None else job.wire(trunk)
    replies = job.mailbox.ask([job.message(TRAIN, told, arrays) for told in instructions], lambda client: {})
    job.record_training(replies, arm, 1)
    job.evaluate_local(joiners, arm, 1, "test")
    job.progress.finish(arm)
