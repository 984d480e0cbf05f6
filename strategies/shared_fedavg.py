"""FedAvg of the shared part of a model: only the parameter groups in ``strategy.share`` travel and are averaged.

FedAvg (McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017) over the
backbone of Linceiver IO; everything else stays on the client, as in FedPer (Arivazhagan et al., 2019) and FedRep (Collins et
al., ICML 2021). With ``strategy.proximal-mu`` > 0 the local loss gets the term of FedProx (Li et al., MLSys 2020, Eq. 2).

We differ from Flower's FedAvg in four points: clients are sampled by partition id from the run's own seed, sums run in a
fixed order, several clusters (``strategy.scope``) are averaged apart, and a round can be resumed.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from functools import partial

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from strategies.averaging import column_mean, weighted_mean
from strategies.job import Job
from strategies.mailbox import Reply
from strategies.protocol import (
    ARRAYS,
    COLUMNS,
    EVALUATE,
    METRICS,
    MIXING_MATRIX,
    TRAIN,
    ClientInfo,
    from_arrays,
    to_arrays,
)


def run(job: Job) -> None:
    """Federate all clients and evaluate the result on the test split."""
    SharedFedAvg(job, "federated", list(job.mailbox.clients.values())).run()


def cluster_key(modality: str, classes: tuple[str, ...], scope: str) -> tuple[str, ...]:
    """Return what the clients of one cluster have in common; see :func:`clusters`."""
    return {"all": (), "modality": (modality,), "classes": (modality, *classes)}[scope]


def clusters(clients: list[ClientInfo], scope: str) -> dict[str, list[ClientInfo]]:
    """Say who is averaged with whom.

    Args:
        clients: by ascending partition id.
        scope: ``all`` with all; ``modality``: each modality apart; ``classes``: clients of one modality that agree on the
            names and order of their classes.

    Returns:
        Clients by the name of their cluster: ``all``, the modality, or the modality and the first client's id.
    """
    found: dict[tuple[str, ...], list[ClientInfo]] = {}
    for client in clients:
        found.setdefault(cluster_key(client.modality, client.classes, scope), []).append(client)
    names = {"all": "all", "modality": "{0.modality}", "classes": "{0.modality}-{0.partition_id}"}
    return {names[scope].format(members[0]): members for members in found.values()}


def common_share(clients: list[ClientInfo], share: str) -> str:
    """Return the parameter groups that clients can average: without the head if they differ in names or order of classes."""
    return share if len({client.classes for client in clients}) == 1 else share.removesuffix("+head")


def sample(clients: list[ClientInfo], fraction: float, seed: int, server_round: int) -> list[ClientInfo]:
    """Draw the clients of a round, at least one, by ascending partition id; depends on nothing but the arguments."""
    count = max(1, round(fraction * len(clients)))
    chosen = random.Random(f"{seed}/sample/{server_round}").sample(clients, count)  # noqa: S311
    return sorted(chosen, key=lambda client: client.partition_id)


class SharedFedAvg(FedAvg):
    """FedAvg over the shared tensors of each cluster.

    The arrays of all clusters travel through Flower's hooks as one record with keys ``cluster/tensor``; a message carries the
    tensors of its client's cluster alone, without the prefix.

    Args:
        job: the run.
        arm: name of this part of the run.
        clients: who takes part.
        share: parameter groups that travel; None: ``strategy.share``.
        scope: who is averaged with whom; None: ``strategy.scope``.
        groups: the clusters themselves, by name, in place of a scope. One whose clients differ in their classes shares all but
            the head.
    """

    def __init__(
        self,
        job: Job,
        arm: str,
        clients: list[ClientInfo],
        share: str | None = None,
        scope: str | None = None,
        groups: Mapping[str, list[ClientInfo]] | None = None,
    ) -> None:
        settings = job.config.strategy
        super().__init__(
            fraction_train=settings.fraction_train, min_available_nodes=1, min_train_nodes=1, min_evaluate_nodes=1
        )
        self.job = job
        self.arm = arm
        self.clients = clients
        self.clusters = clusters(clients, scope or settings.scope) if groups is None else dict(groups)
        self.share_of = {name: common_share(members, share or settings.share) for name, members in self.clusters.items()}
        self.sent: dict[str, np.ndarray] = {}
        self.cluster_of = {c.partition_id: name for name, members in self.clusters.items() for c in members}

    def initial_arrays(self) -> dict[str, np.ndarray]:
        """Return every cluster's tensors before round 1, from the run's seed."""
        arrays: dict[str, np.ndarray] = {}
        for name, members in self.clusters.items():
            arrays |= {
                f"{name}/{tensor}": value for tensor, value in self.job.initial(members[0], self.share_of[name]).items()
            }
        return arrays

    def configure_train(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Iterable[Message]:
        """Address the sampled clients of a round."""
        run = self.job.config.run
        self.sent = from_arrays(arrays)
        wired = self._wire(arrays)
        for client in sample(self.clients, self.fraction_train, run.seed, server_round):
            cluster = self.cluster_of[client.partition_id]
            instruction = self.job.instruction(client, self.arm, round=server_round, share=self.share_of[cluster])
            yield self.job.message(TRAIN, instruction, wired[cluster])

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the replies of each cluster; a cluster without a reply is left out of the result.

        Tensors that the cluster does not share are left out too, as a client may have sent them before it had a cluster.
        The mixing matrix of clients with adaptive k is averaged column by column over the clients that kept the column.
        """
        replies = list(replies)
        means: dict[str, np.ndarray] = {}
        for name in self.clusters:
            members = [m for m in replies if self.cluster_of[int(_metrics(m)["partition-id"])] == name]  # type: ignore[arg-type]
            if members:
                shared = of_cluster(self.sent, name)
                weighted = ((_only(m.content.array_records[ARRAYS], shared), self._weight(m)) for m in members)
                means |= {f"{name}/{tensor}": value for tensor, value in weighted_mean(weighted).items()}
                means |= self._column_means(name, members)
        losses = [float(_metrics(m)["loss"]) for m in replies]  # type: ignore[arg-type]
        return to_arrays(means), MetricRecord({"loss": sum(losses) / len(losses)})

    def first_means(self, server_round: int, replies: list[Reply]) -> dict[str, np.ndarray]:
        """Average what clients sent that had trained apart from the initial tensors on; return every cluster's tensors."""
        self.sent = self.initial_arrays()
        averaged, _ = self.aggregate_train(server_round, [reply.message for reply in replies])
        return self.sent | from_arrays(averaged or ArrayRecord())

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Address every client: the averaged tensors are evaluated together with each client's own."""
        wired = self._wire(arrays)
        for client in self.clients:
            instruction = self.job.instruction(client, self.arm, round=server_round, split=str(config["split"]))
            yield self.job.message(EVALUATE, instruction, wired[self.cluster_of[client.partition_id]])

    def evaluation(self, server_round: int, arrays: dict[str, np.ndarray], split: str) -> Iterable[Message]:
        """Address every client, to evaluate one split."""
        return self.configure_evaluate(server_round, to_arrays(arrays), ConfigRecord({"split": split}), self.job.mailbox.grid)

    def run(self) -> dict[str, np.ndarray]:
        """Train all rounds and evaluate on the test split; return the final arrays, keyed ``cluster/tensor``.

        Flower's own ``start`` would do the same without the ledger, the checks of replies and resuming.
        """
        job, grid = self.job, self.job.mailbox.grid
        begun = job.progress.begin(self.arm)
        if begun.finished:
            return begun.arrays
        arrays = begun.arrays or self.initial_arrays()
        for server_round in range(begun.rounds_done + 1, job.config.run.rounds + 1):
            asked = self.configure_train(server_round, to_arrays(arrays), ConfigRecord(), grid)
            replies = job.mailbox.ask(asked, partial(self._shapes, arrays))
            job.record_training(replies, self.arm, server_round)
            averaged, _ = self.aggregate_train(server_round, [reply.message for reply in replies])
            arrays = arrays | from_arrays(averaged or ArrayRecord())
            if job.evaluation_due(server_round):
                job.evaluate(self.evaluation(server_round, arrays, "val"))
            job.progress.save(self.arm, server_round, arrays)
        job.evaluate(self.evaluation(job.config.run.rounds, arrays, "test"))
        job.progress.finish(self.arm)
        return arrays

    def _column_means(self, cluster: str, members: list[Message]) -> dict[str, np.ndarray]:
        name = f"{cluster}/{MIXING_MATRIX}"
        if name not in self.sent or not any(COLUMNS in _metrics(member) for member in members):
            return {}
        every = list(range(self.sent[name].shape[-1]))
        matrices = [member.content.array_records[ARRAYS][MIXING_MATRIX].numpy() for member in members]
        kept = [_metrics(member).get(COLUMNS, every) for member in members]
        weighted = zip(matrices, map(self._weight, members), kept, strict=True)
        return {name: column_mean(self.sent[name], weighted)}  # type: ignore[arg-type]

    def _wire(self, arrays: ArrayRecord) -> dict[str, ArrayRecord]:
        tensors = from_arrays(arrays)
        return {name: self.job.wire(of_cluster(tensors, name)) for name in self.clusters}

    def _shapes(self, arrays: dict[str, np.ndarray], client: ClientInfo) -> dict[str, tuple[int, ...]]:
        own = of_cluster(arrays, self.cluster_of[client.partition_id])
        return {name: value.shape for name, value in own.items()}

    def _weight(self, reply: Message) -> float:
        return float(_metrics(reply)["num-examples"]) if self.job.config.strategy.weighting == "examples" else 1.0  # type: ignore[arg-type]


def of_cluster(tensors: Mapping[str, np.ndarray], cluster: str) -> dict[str, np.ndarray]:
    """Return the tensors of one cluster out of those of all, ``cluster/tensor``, without its name."""
    prefix = f"{cluster}/"
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _only(record: ArrayRecord, names: Iterable[str]) -> dict[str, np.ndarray]:
    return {name: record[name].numpy() for name in names}


def _metrics(message: Message) -> MetricRecord:
    return message.content.metric_records[METRICS]
