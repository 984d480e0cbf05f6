"""The reference without data boundaries: one trunk trained on the data of all clients, with their own adapters and heads.

Call it a joint reference, not an upper bound: with scarce data federated averaging can come out above it. It moves no data
over the wire, but needs one node that holds the data of every client, so it is for simulations.
"""

from __future__ import annotations

from strategies.job import Job
from strategies.protocol import TRAIN_JOINT


def run(job: Job) -> None:
    """Train one trunk on one node and evaluate every client with it on the test split."""
    arm = "joint"
    begun = job.progress.begin(arm)
    if begun.finished:
        return
    clients = list(job.mailbox.clients.values())
    ids = ",".join(str(client.partition_id) for client in clients)
    done, rounds = begun.rounds_done, job.config.run.rounds
    while done < rounds:
        step = min(job.config.run.evaluate_every or rounds, rounds - done)
        instruction = job.instruction(clients[0], arm, round=done + 1, rounds=step, partition_ids=ids)
        replies = job.mailbox.ask([job.message(TRAIN_JOINT, instruction, None)], lambda client: {})
        done += step
        job.record_training(replies, arm, done)
        if job.evaluation_due(done):
            job.evaluate_local(clients, arm, done, "val")
        job.progress.save(arm, done, {})
    job.evaluate_local(clients, arm, rounds, "test")
    job.progress.finish(arm)
