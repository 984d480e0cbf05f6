"""Clustered FedAvg: clients train apart for a few rounds, are grouped by their updates, and FedAvg runs inside the groups.

Clustered Federated Learning (Sattler, Müller, Samek, IEEE TNNLS 2020): clients whose data agree push the weights the same way,
so the cosine of their updates tells who should be averaged with whom, and the server needs neither data nor class names.

1. All clients train ``strategy.cluster-warmup`` rounds from common initial weights without an exchange, as in the matched
   control, and send what ``strategy.share`` names at the end.
2. Inside each modality, average linkage on the cosine of the updates makes the clusters, see :mod:`strategies.clustering`.
   ``strategy.cluster-on`` says of which tensors: the backbone, or the adapter (docs/results.md tells which found what).
3. What was sent is averaged in each cluster, and :class:`strategies.shared_fedavg.SharedFedAvg` does the remaining rounds.

We differ from the paper: it averages all clients and splits a cluster when that has converged; we cluster once, early, and
never average strangers on purpose. Whoever sent nothing valid in the warm-up has a cluster of its own. A cluster may hold
clients with different classes; it then shares all but the head, and the event ``clusters`` names it under ``without_head``.

``strategy.cluster-by`` has the controls: ``classes``, the true clusters; ``random``, clusters of the same sizes that keep
apart whom ``classes`` puts together; ``modality``, one cluster each.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial

import numpy as np

from strategies import clustering
from strategies.job import Arrays, Job
from strategies.mailbox import Reply
from strategies.protocol import TRAIN, ClientInfo, RunError, from_arrays
from strategies.shared_fedavg import SharedFedAvg, clusters, of_cluster

Groups = dict[str, list[ClientInfo]]
MEMBERS = "members"
"""Partition ids of each cluster lie under ``members/cluster`` among the arrays that an arm saves; a resumed run reads them."""


def run(job: Job) -> None:
    """Federate all clients in clusters and evaluate the result on the test split."""
    federate(job, "federated", list(job.mailbox.clients.values()))


def federate(job: Job, arm: str, clients: list[ClientInfo]) -> Arrays:
    """Cluster and federate some clients.

    Returns:
        The tensors of each cluster, ``cluster/tensor``, and its partition ids, ``members/cluster``.

    Raises:
        RunError: ``strategy.cluster-count`` is above the number of clients of a modality.
    """
    for modality, members in clusters(clients, "modality").items():
        if job.config.strategy.cluster_count > len(members):
            raise RunError(
                f"strategy.cluster-count = {job.config.strategy.cluster_count}, but only {len(members)} clients have "
                f"modality '{modality}': use a smaller one, or 0 to have it chosen"
            )
    begun = job.progress.begin(arm)
    arrays = begun.arrays
    if begun.rounds_done < job.config.strategy.cluster_warmup:
        arrays = warm_up(job, arm, clients, begun.rounds_done)
    return SharedFedAvg(job, arm, clients, groups=saved_groups(arrays, clients)).run()


def saved_groups(arrays: Arrays, clients: list[ClientInfo]) -> Groups:
    """Return the clusters that were saved with the arrays of an arm."""
    by_id = {client.partition_id: client for client in clients}
    return {name: [by_id[int(one)] for one in ids] for name, ids in of_cluster(arrays, MEMBERS).items()}


def warm_up(job: Job, arm: str, clients: list[ClientInfo], done: int) -> dict[str, np.ndarray]:
    """Train without averaging, then cluster; return the first means and the clusters, which are saved.

    One message covers all rounds up to the next look at the validation split, as nothing is exchanged in between.
    """
    settings, arrays = job.config.strategy, dict[str, np.ndarray]()
    while done < settings.cluster_warmup:
        step = min(job.config.run.evaluate_every or settings.cluster_warmup, settings.cluster_warmup - done)
        share = settings.share if done + step == settings.cluster_warmup else ""
        told = [job.instruction(client, arm, round=done + 1, rounds=step, share=share) for client in clients]
        replies = job.mailbox.ask([job.message(TRAIN, one, None) for one in told], partial(_shapes, job, share))
        done += step
        job.record_training(replies, arm, done)
        if share:
            arrays = begin_clusters(job, arm, clients, replies)
        if job.evaluation_due(done) and not share:
            job.evaluate_local(clients, arm, done, "val")
        elif job.evaluation_due(done):
            strategy = SharedFedAvg(job, arm, clients, groups=saved_groups(arrays, clients))
            job.evaluate(strategy.evaluation(done, arrays, "val"))
        job.progress.save(arm, done, arrays)
    return arrays


def begin_clusters(job: Job, arm: str, clients: list[ClientInfo], replies: list[Reply]) -> dict[str, np.ndarray]:
    """Cluster the clients by what they sent, record the clusters, and average inside them."""
    start = time.monotonic()
    updates = {reply.client.partition_id: update(job, reply) for reply in replies}
    groups: Groups = {}
    for members in clusters(clients, "modality").values():
        groups |= group(job, members, updates)
    seconds = time.monotonic() - start
    strategy = SharedFedAvg(job, arm, clients, groups=groups)
    share = job.config.strategy.share
    job.mailbox.record(
        "clusters",
        arm=arm,
        round=job.config.strategy.cluster_warmup,
        by=job.config.strategy.cluster_by,
        on=job.config.strategy.cluster_on,
        members={name: [client.partition_id for client in members] for name, members in groups.items()},
        without_head=[name for name, own in strategy.share_of.items() if own != share],
        without_update=[client.partition_id for client in clients if client.partition_id not in updates],
        modalities=agreement(clients, groups, updates),
        seconds=seconds,
    )
    ids = {f"{MEMBERS}/{name}": np.array([one.partition_id for one in members]) for name, members in groups.items()}
    return strategy.first_means(job.config.strategy.cluster_warmup, replies) | ids


def update(job: Job, reply: Reply) -> np.ndarray:
    """Return what a client changed, see :func:`change`."""
    return change(job, reply.client, reply.arrays)


def change(job: Job, client: ClientInfo, arrays: Arrays) -> np.ndarray:
    """Return what was changed in the tensors of ``strategy.cluster-on`` since the initial weights of a client, all in one row.

    In the dtype of the wire, so that weights that did not move give 0 exactly.
    """
    settings = job.config.strategy
    initial = from_arrays(job.wire(job.initial(client, settings.share)))
    names = [name for name in sorted(initial) if name.startswith(f"{settings.cluster_on}.")]
    rows = [(arrays[name].astype(np.float64) - initial[name]).ravel() for name in names]
    return np.concatenate(rows)


def group(job: Job, clients: list[ClientInfo], updates: Mapping[int, np.ndarray]) -> Groups:
    """Return the clusters of the clients of one modality, by ``strategy.cluster-by``."""
    settings = job.config.strategy
    classes = [client.classes for client in clients]
    labels: list[object] = list(classes)
    if settings.cluster_by == "modality":
        labels = [""] * len(clients)
    elif settings.cluster_by == "random":
        labels = list(clustering.spread(classes, f"{job.config.run.seed}/clusters/{clients[0].modality}"))
    elif settings.cluster_by == "updates":
        known = [client.partition_id for client in clients if client.partition_id in updates]
        count = min(settings.cluster_count, len(known))
        found = dict(zip(known, clustering.linked(_distances(updates, known), count), strict=True))
        labels = [found.get(client.partition_id, ("alone", client.partition_id)) for client in clients]
    members: dict[object, list[ClientInfo]] = {}
    for client, label in zip(clients, labels, strict=True):
        members.setdefault(label, []).append(client)
    return {f"{own[0].modality}-{own[0].partition_id}": own for own in members.values()}


def agreement(clients: list[ClientInfo], groups: Groups, updates: Mapping[int, np.ndarray]) -> list[dict[str, object]]:
    """Say of each modality how far apart its clusters are (silhouette), and how well they agree with the true ones (ARI).

    The silhouette is over the clients that sent an update. True are the clusters of clients with equal class lists.
    """
    cluster_of = {client.partition_id: name for name, members in groups.items() for client in members}
    told: list[dict[str, object]] = []
    for modality, members in clusters(clients, "modality").items():
        found = [cluster_of[client.partition_id] for client in members]
        known = [client.partition_id for client in members if client.partition_id in updates]
        told.append(
            {
                "modality": modality,
                "clusters": len(set(found)),
                "silhouette": clustering.silhouette(_distances(updates, known), [cluster_of[one] for one in known]),
                "adjusted_rand_index": clustering.adjusted_rand_index(found, [client.classes for client in members]),
            }
        )
    return told


def _distances(updates: Mapping[int, np.ndarray], known: list[int]) -> np.ndarray:
    return clustering.cosine_distances(np.array([updates[one] for one in known])) if known else np.empty((0, 0))


def _shapes(job: Job, share: str, client: ClientInfo) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in job.initial(client, share).items()} if share else {}
