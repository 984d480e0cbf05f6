"""No exchange: every client trains alone, with the rounds, schedule and optimizer restarts of the federated run.

This is the matched control of every other strategy. Restarting AdamW each round is by itself worth a point or two, so a local
run without the restarts would flatter averaging.
"""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import Message

from strategies.job import Job
from strategies.protocol import TRAIN


def run(job: Job, arm: str = "local") -> None:
    """Train every client alone and evaluate it on the test split."""

    def ask(first_round: int, rounds: int) -> list[Message]:
        clients = job.mailbox.clients.values()
        told = [job.instruction(client, arm, round=first_round, rounds=rounds) for client in clients]
        return [job.message(TRAIN, one, None) for one in told]

    train_without_exchange(job, arm, ask)


def train_without_exchange(job: Job, arm: str, ask: Callable[[int, int], list[Message]]) -> None:
    """Train all rounds of an arm whose models stay on the clients, and evaluate every client on the test split.

    Args:
        job: the run.
        arm: name of this part of the run.
        ask: gives the messages for (first round, number of rounds); one message covers all rounds up to the next look at the
            validation split, as nothing is exchanged in between.
    """
    begun = job.progress.begin(arm)
    if begun.finished:
        return
    clients = list(job.mailbox.clients.values())
    done, rounds = begun.rounds_done, job.config.run.rounds
    while done < rounds:
        step = min(job.config.run.evaluate_every or rounds, rounds - done)
        replies = job.mailbox.ask(ask(done + 1, step), lambda client: {})
        done += step
        job.record_training(replies, arm, done)
        if job.evaluation_due(done):
            job.evaluate_local(clients, arm, done, "val")
        job.progress.save(arm, done, {})
    job.evaluate_local(clients, arm, rounds, "test")
    job.progress.finish(arm)
