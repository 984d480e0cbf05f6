"""FedAvg while clients walk streams of tasks: ``run.rounds`` rounds a task, then each client finishes the task by itself.

What may be averaged, where clients own different weights (cpg, packnet, piggyback)? A number that an earlier task of a client
owns is what that task computes with: it must stay on that client, bit by bit, and says nothing about the task at hand. So a
client sends with its arrays which numbers are the current task's own: those that were free when it began, and all private
tensors. Each number is averaged over the clients whose own it is, and a client takes the mean for those numbers alone. With
finetune and ewc nothing is protected, every number is everyone's own, and this is plain FedAvg.

Picks never travel: they choose among weights that differ from client to client. After the last round every client installs the
mean, prunes, retrains and writes down the task by itself, so what it owns afterwards may differ from what others own.

A task begins with what each client has; the first mean of a task is that of its first round. With ``strategy.name = "local"``,
and as the matched control, the same rounds are trained without an exchange.

Source: FedAvg (McMahan et al., AISTATS 2017); averaging where it is owned: HeteroFL (Diao et al., ICLR 2021), Eq. 3.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from functools import partial

from flwr.app import Message

from strategies.averaging import masked_mean
from strategies.job import Arrays, Job
from strategies.mailbox import Reply
from strategies.protocol import CONFIG, MASK, TRAIN_ROUND, TRAIN_TASK, ClientInfo, Instruction, from_masks
from strategies.shared_fedavg import clusters, of_cluster, sample

Tell = Callable[..., Instruction]


def run(job: Job, arm: str = "federated", *, exchange: bool = True) -> None:
    """Walk all tasks, and evaluate those met so far after each.

    Args:
        job: the run.
        arm: name of this part of the run.
        exchange: whether anything is averaged; without, nothing is sampled either.
    """
    begun = job.progress.begin(arm)
    rounds = job.config.run.rounds
    arrays: Arrays = begun.arrays
    for number in range(begun.rounds_done + 1, job.config.data.tasks_per_client * (rounds + 1) + 1):
        task, done = divmod(number - 1, rounds + 1)
        arrays = arrays if done else {}
        told = partial(job.instruction, arm=arm, round=number, task=task, server_round=done + 1)
        if done == rounds:
            finish_task(job, told, task, arrays)
        elif exchange:
            arrays = train_round(job, told, task, done + 1, arrays)
        elif done == 0:
            messages = [job.message(TRAIN_ROUND, told(one, rounds=rounds), None) for one in job.mailbox.clients.values()]
            record_round(job, job.mailbox.ask(messages, lambda client: {}), arm, task, rounds)
        job.progress.save(arm, number, arrays)
    if not begun.finished:
        job.progress.finish(arm)


def train_round(job: Job, told: Tell, task: int, server_round: int, arrays: Arrays) -> Arrays:
    """Train one round of a task; return the means as ``cluster/tensor``, those of before for a cluster without a reply."""
    settings = job.config.strategy
    everyone = list(job.mailbox.clients.values())
    chosen = sample(everyone, settings.fraction_train, job.config.run.seed, task * job.config.run.rounds + server_round)
    messages = addressed(job, TRAIN_ROUND, [told(client, share=settings.share) for client in chosen], arrays)
    replies = job.mailbox.ask(messages, partial(shapes, job, task))
    record_round(job, replies, str(messages[0].content[CONFIG]["arm"]), task, server_round)
    means = dict(arrays)
    for name, members in clusters(everyone, settings.scope).items():
        own = masked_mean((*from_masks(reply.arrays), weight(job, reply)) for reply in replies if reply.client in members)
        means |= {f"{name}/{tensor}": value for tensor, value in own.items()}
    return means


def finish_task(job: Job, told: Tell, task: int, arrays: Arrays) -> None:
    """Let every client finish a task with the means of its cluster, and evaluate all tasks met so far."""
    everyone = job.mailbox.clients.values()
    asked = [told(client, epochs=0) for client in everyone]
    replies = job.mailbox.ask(addressed(job, TRAIN_TASK, asked, arrays), lambda client: {})
    job.record_learned(replies, asked[0].arm, asked[0].round)
    for split in ("val", "test") if job.config.run.evaluate_every else ("test",):
        job.evaluate_tasks([told(client, split=split) for client in everyone], after=task + 1)


def addressed(job: Job, message_type: str, asked: Iterable[Instruction], arrays: Arrays) -> list[Message]:
    """Return messages with the arrays of each client's cluster, if there are any."""
    members = clusters(list(job.mailbox.clients.values()), job.config.strategy.scope)
    cluster_of = {client.partition_id: name for name, group in members.items() for client in group}
    sent = {name: job.wire(own) if (own := of_cluster(arrays, name)) else None for name in members}
    return [job.message(message_type, told, sent[cluster_of[told.partition_id]]) for told in asked]


def shapes(job: Job, task: int, client: ClientInfo) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the arrays and masks that a client must answer with."""
    own = dataclasses.replace(client, classes=client.tasks[task])
    arrays = job.initial(own, job.config.strategy.share)
    masks = {MASK + name: (math.ceil(value.size / 8),) for name, value in arrays.items()}
    return {name: value.shape for name, value in arrays.items()} | masks


def record_round(job: Job, replies: list[Reply], arm: str, task: int, server_round: int) -> None:
    """Record the round of a task, counted over all tasks."""
    rounds, tasks = job.config.run.rounds, job.config.data.tasks_per_client
    job.record_training(replies, arm, task * rounds + server_round, tasks * rounds)


def weight(job: Job, reply: Reply) -> float:
    """Return the weight of a client in the mean."""
    return reply.metrics["num-examples"] if job.config.strategy.weighting == "examples" else 1.0
