"""FedWeIT: clients walk streams of tasks, average a base, and hand one another what is special to their tasks.

    weights of task t of client c    B_c * m_c^(t) + A_c^(t) + sum over tasks j of others  alpha_cj^(t) A_j
    after each round                 c sends B_c * m_c^(t); the server returns the mean as the new B to all
    after the last round of a task   c sends A_c^(t), sparse; at the next task the server sends each client those of all others

``run.rounds`` rounds a task; m, alpha, all private tensors and the data stay on the client. The server holds the A of one task
of each client until the next task begins, so unlike Back-Pack's broker it is a store of parameters. What a client learns, and
where we differ from the paper, is in client/continual/weit.py.

The arm ``scratch`` learns each task by itself with a fresh model, with as many epochs, and is the control.

Source: Yoon et al., "Federated Continual Learning with Weighted Inter-client Transfer", ICML 2021, Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from flwr.app import ArrayRecord, Message

from models.sparse import dense_all
from strategies.averaging import weighted_mean
from strategies.continual import from_scratch
from strategies.job import Arrays, Job
from strategies.mailbox import Reply
from strategies.protocol import ADAPTIVE, FEDWEIT, TRAIN_ROUND, ClientInfo, from_arrays, to_arrays
from strategies.shared_fedavg import clusters, of_cluster
from strategies.stream_fedavg import Tell, record_round, weight

SHARE = "weights"


def run(job: Job) -> None:
    """Learn every task by itself where a control is wanted, then the streams."""
    if job.config.strategy.control:
        from_scratch(job, job.config.run.rounds * job.config.train.epochs)
    arm = "federated"
    begun = job.progress.begin(arm)
    rounds = job.config.run.rounds
    arrays: Arrays = begun.arrays
    for number in range(begun.rounds_done + 1, job.config.data.tasks_per_client * rounds + 1):
        task, done = divmod(number - 1, rounds)
        told = partial(job.instruction, arm=arm, round=number, task=task, server_round=done + 1, method=FEDWEIT, share=SHARE)
        arrays = train_round(job, told, task, done + 1, arrays)
        if done + 1 == rounds:
            for split in ("val", "test") if job.config.run.evaluate_every else ("test",):
                everyone = job.mailbox.clients.values()
                job.evaluate_tasks([told(client, split=split) for client in everyone], after=task + 1)
        job.progress.save(arm, number, arrays)
    if not begun.finished:
        job.progress.finish(arm)


def train_round(job: Job, told: Tell, task: int, server_round: int, arrays: Arrays) -> Arrays:
    """Train one round of a task.

    Args:
        job: the run.
        told: makes instructions.
        task: index.
        server_round: of the task, from 1.
        arrays: the bases of all clusters, as ``cluster/tensor``, and the adaptive parameters of the last task of each client,
            as ``adaptive-CLIENT/tensor.part``.

    Returns:
        The same after the round.
    """
    everyone = list(job.mailbox.clients.values())
    members = clusters(everyone, job.config.strategy.scope)
    base = {name: job.wire(own) if (own := of_cluster(arrays, name)) else None for name in members}
    cluster_of = {client.partition_id: name for name, group in members.items() for client in group}
    messages = []
    for client in everyone:
        message = job.message(TRAIN_ROUND, told(client), base[cluster_of[client.partition_id]])
        if server_round == 1:
            add_foreign(message, client, members[cluster_of[client.partition_id]], arrays)
        messages.append(message)
    replies = job.mailbox.ask(messages, lambda client: expected(job, client))
    arm = told(everyone[0]).arm
    record_round(job, replies, arm, task, server_round)
    means = {name: value for name, value in arrays.items() if not name.startswith(ADAPTIVE)}
    for name, group in members.items():
        bases = [(reply.arrays, weight(job, reply)) for reply in replies if reply.client in group]
        means |= {f"{name}/{tensor}": value for tensor, value in weighted_mean(bases).items()} if bases else {}
    if server_round == job.config.run.rounds:
        job.record_learned(replies, arm, told(everyone[0]).round)
        for reply in replies:
            adaptive = checked_adaptive(job, reply, arm)
            means |= {f"{ADAPTIVE}-{reply.client.partition_id:05d}/{name}": value for name, value in adaptive.items()}
    return means


def add_foreign(message: Message, client: ClientInfo, members: list[ClientInfo], arrays: Arrays) -> None:
    """Put the adaptive parameters of the other clients of a cluster into a message, a record for each."""
    for other in members:
        own = of_cluster(arrays, f"{ADAPTIVE}-{other.partition_id:05d}")
        if own and other.partition_id != client.partition_id:
            message.content[f"{ADAPTIVE}-{other.partition_id:05d}"] = to_arrays(own)


def expected(job: Job, client: ClientInfo) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the base."""
    return {name: value.shape for name, value in job.initial(client, SHARE).items()}


def checked_adaptive(job: Job, reply: Reply, arm: str) -> Mapping[str, np.ndarray]:
    """Return a client's sparse adaptive parameters; empty, and an event, if they are broken: others then do without them."""
    came = from_arrays(reply.message.content.array_records.get(ADAPTIVE, ArrayRecord()))
    try:
        whole = dense_all(came, expected(job, reply.client))
        if all(np.isfinite(value).all() for value in whole.values()):
            return came
        reason = "adaptive parameters have values that are not finite"
    except ValueError as error:
        reason = f"adaptive parameters: {error}"
    job.mailbox.record("refused", type=TRAIN_ROUND, arm=arm, round=0, client=reply.client.partition_id, reason=reason)
    return {}
