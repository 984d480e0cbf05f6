"""No exchange: every client trains alone, with the rounds, schedule and optimizer restarts of the federated run.

This is the matched control of every other strategy. Restarting AdamW each round is by itself worth a point or two, so a local
run without the restarts would flatter averaging.
"""

from __future__ import annotations

from strategies.job import Job
from strategies.protocol import TRAIN


def run(job: Job, arm: str = "local") -> None:
    """Train every client alone and evaluate it on the test split.

    One message covers all rounds up to the next look at the validation split, as nothing is exchanged in between.
    """
    begun = job.progress.begin(arm)
    if begun.finished:
        return
    clients = list(job.mailbox.clients.values())
    done, rounds = begun.rounds_done, job.config.run.rounds
    while done < rounds:
        step = min(job.config.run.evaluate_every or rounds, rounds - done)
        instructions = [job.instruction(client, arm, round=done + 1, rounds=step) for client in clients]
        replies = job.mailbox.ask([job.message(TRAIN, told, None) for told in instructions], lambda client: {})
        done += step
        job.record_training(replies, arm, done)
        if job.evaluation_due(done):
            job.evaluate_local(clients, arm, done, "val")
        job.progress.save(arm, done, {})
    job.evaluate_local(clients, arm, rounds, "test")
    job.progress.finish(arm)
