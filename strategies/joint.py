"""The reference without data boundaries: what ``strategy.share`` names is trained on the data of all clients of a cluster.

By default one trunk on the data of all, with their own adapters and heads. With ``strategy.share`` = backbone+adapter+head and
``strategy.scope`` = classes it is centralised training: one model on the pooled data of clients that agree on classes. Call it
a reference, not an upper bound: with scarce data federated averaging can come out above it. It moves no data over the wire,
but needs one node that holds the data of every client, so it is for simulations.
"""

from __future__ import annotations

from flwr.app import Message

from strategies.job import Job
from strategies.local import train_without_exchange
from strategies.protocol import TRAIN_JOINT


def run(job: Job) -> None:
    """Train on one node and evaluate every client with it on the test split."""
    clients = list(job.mailbox.clients.values())
    ids = ",".join(str(client.partition_id) for client in clients)

    def ask(first_round: int, rounds: int) -> list[Message]:
        told = job.instruction(clients[0], "joint", round=first_round, rounds=rounds, partition_ids=ids)
        return [job.message(TRAIN_JOINT, told, None)]

    train_without_exchange(job, "joint", ask)
