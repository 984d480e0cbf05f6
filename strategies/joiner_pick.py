"""A client that joins late picks the model to start from: that of one of the clusters, or of one of the donors.

The joiner trains ``strategy.joiner-pick-epochs`` epochs alone, and is then compared with every model of its modality:

    updates      cosine of what it changed since the initial weights with what the model did, in the tensors of
                 ``strategy.cluster-on``; on the server
    a scorer     as for donors (strategies/selection/): the models go to the joiner, whose data and own model stay with it
    classes      share of a model's clients that have the joiner's class list: what a server knows that is told the classes
    random       a number drawn from the run's seed: the control

Source of the cosine: clustered federated learning (Sattler, Müller, Samek, IEEE TNNLS 2020), where a client that comes late
finds its cluster by it, split by split. We differ: the models are at the end of their training, and the joiner is at its
beginning. Unlike where clusters are found, the mean is not taken off: what the models have in common is larger in them than in
the joiner.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from flwr.app import ConfigRecord, Message

from config import LOCAL_SCORERS
from strategies import clustering
from strategies.clustered_fedavg import change
from strategies.job import Arrays, Job
from strategies.protocol import (
    COMPARE,
    DONORS,
    METRICS,
    SCORERS,
    TRAIN,
    ClientInfo,
    Manifest,
    digest,
    from_arrays,
)
from strategies.shared_fedavg import of_cluster

NOBODY = -1


@dataclass(frozen=True)
class Offer:
    """A model that a joiner may start from.

    Attributes:
        name: of the cluster, or of the donor.
        members: who trained it, at least one; all of one modality.
        arrays: what of ``strategy.share`` they have in common.
    """

    name: str
    members: tuple[ClientInfo, ...]
    arrays: Arrays

    def siblings(self, joiner: ClientInfo) -> float:
        """Return the share of the members that have the joiner's class list."""
        return sum(one.classes == joiner.classes for one in self.members) / len(self.members)

    def start(self, joiner: ClientInfo, *, head: bool) -> Arrays:
        """Return the tensors that a joiner starts from; the head only if it is for the joiner's classes in their order."""
        keep = head and self.siblings(joiner) == 1.0
        return {name: value for name, value in self.arrays.items() if keep or not name.startswith("head.")}


def pick(job: Job, fold: str, kind: str, joiners: Sequence[ClientInfo], offers: Sequence[Offer]) -> dict[int, Offer]:
    """Let joiners pick among the offers of their modality, and record a ``pick`` event for each.

    Returns:
        What each joiner picked, by partition id. One without an offer of its modality, or without an answer, is left out.
    """
    updates = train_alone(job, own_arm := f"own-{kind}-{fold}", joiners)  # before the next arm begins: one at a time resumes
    begun = job.progress.begin(arm := f"pick-{kind}-{fold}")
    if begun.finished:
        return {int(one): offers[int(place)] for one, place in begun.arrays.items() if place != NOBODY}
    picked: dict[int, Offer] = {}
    for joiner in joiners:
        own = [offer for offer in offers if offer.members[0].modality == joiner.modality]
        scores = score(job, arm, own_arm, joiner, own, updates.get(joiner.partition_id)) if own else {}
        chosen = {rule: best(values) for rule, values in scores.items()}
        decided = chosen.get(job.config.strategy.joiner_pick)
        if decided is not None:
            picked[joiner.partition_id] = next(offer for offer in own if offer.name == decided)
        record(job, arm, kind, joiner, own, scores, chosen)
    names = [offer.name for offer in offers]
    places = {one.partition_id: names.index(picked[one.partition_id].name) for one in joiners if one.partition_id in picked}
    job.progress.save(arm, 1, {str(one.partition_id): np.array(places.get(one.partition_id, NOBODY)) for one in joiners})
    job.progress.finish(arm)
    return picked


def train_alone(job: Job, arm: str, joiners: Sequence[ClientInfo]) -> dict[int, np.ndarray]:
    """Train the joiners as they compare themselves with others; return their updates, if they are compared by them.

    Nobody is trained where the ways to pick need no model.
    """
    settings = job.config.strategy
    if not set(settings.picks) - {"classes", "random"}:
        return {}
    begun = job.progress.begin(arm)
    if begun.finished:
        return {int(one): update for one, update in begun.arrays.items()}
    share = settings.share if "updates" in settings.picks else ""
    told = [
        job.instruction(
            joiner,
            arm,
            total_rounds=1,
            epochs=settings.joiner_pick_epochs,
            train_fraction=settings.joiner_fraction,
            share=share,
        )
        for joiner in joiners
    ]
    replies = job.mailbox.ask([job.message(TRAIN, one, None) for one in told], partial(shapes, job, share))
    job.record_training(replies, arm, 1, 1)
    updates = {reply.client.partition_id: change(job, reply.client, reply.arrays) for reply in replies} if share else {}
    job.progress.save(arm, 1, {str(one): update for one, update in updates.items()})
    job.progress.finish(arm)
    return updates


def score(
    job: Job, arm: str, own_arm: str, joiner: ClientInfo, offers: Sequence[Offer], update: np.ndarray | None
) -> dict[str, dict[str, float]]:
    """Score offers in every way that is asked for, larger is better; a way without an answer is left out."""
    picks = job.config.strategy.picks
    scorers = [name for name in picks if name in LOCAL_SCORERS]
    found = ask(job, own_arm, joiner, offers, scorers) if scorers else {}
    if "updates" in picks and update is not None:
        found["updates"] = {offer.name: cosine(update, change(job, offer.members[0], offer.arrays)) for offer in offers}
    if "classes" in picks:
        found["classes"] = {offer.name: offer.siblings(joiner) for offer in offers}
    if "random" in picks:
        drawn = random.Random(f"{job.config.run.seed}/{arm}/{joiner.partition_id}")  # noqa: S311
        found["random"] = {offer.name: drawn.random() for offer in offers}
    return {name: found[name] for name in picks if name in found}


def ask(job: Job, arm: str, joiner: ClientInfo, offers: Sequence[Offer], scorers: list[str]) -> dict[str, dict[str, float]]:
    """Send all offers to a joiner in one message, and return its scores by scorer and offer; empty: it did not answer."""
    told = job.instruction(joiner, arm, train_fraction=job.config.strategy.joiner_fraction)
    message = job.message(COMPARE, told, None)
    message.content[SCORERS] = ConfigRecord({"names": scorers})
    put_offers(job, message, offers)
    replies = job.mailbox.ask([message], lambda client: {}, may_fail=True)
    if not replies:
        return {}
    metrics = replies[0].message.content.metric_records[METRICS]
    rows: dict[str, list[float]] = {name: metrics[name] for name in scorers}  # type: ignore[misc]
    return {name: {offer.name: value for offer, value in zip(offers, row, strict=True)} for name, row in rows.items()}


def put_offers(job: Job, message: Message, offers: Sequence[Offer]) -> None:
    """Put offers into a message as donors are; their validation is not known: NaN."""
    lines = []
    for offer in offers:
        record, first = job.wire(offer.arrays), offer.members[0]
        sha256 = digest(from_arrays(record))
        classes = first.classes if all(one.classes == first.classes for one in offer.members) else ()
        examples = sum(one.num_train for one in offer.members)
        lines.append(Manifest(first.partition_id, first.modality, classes, math.nan, examples, sha256).to_json())
        message.content[f"{DONORS}-{sha256}"] = record
    message.content[DONORS] = ConfigRecord({"manifests": lines})


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Return the cosine of two updates; 0 if one is zeros."""
    return float(clustering.unit(a) @ clustering.unit(b))


def best(scores: Mapping[str, float]) -> str | None:
    """Return the offer with the largest score, the first of equals; None: no score is a number.

    >>> best({"image-0": 0.1, "image-1": 0.3, "image-2": float("nan")})
    'image-1'
    """
    finite = {name: value for name, value in scores.items() if math.isfinite(value)}
    return max(finite, key=finite.__getitem__) if finite else None


def record(
    job: Job,
    arm: str,
    kind: str,
    joiner: ClientInfo,
    offers: Sequence[Offer],
    scores: Mapping[str, Mapping[str, float]],
    chosen: Mapping[str, str | None],
) -> None:
    """Record what a joiner picked, and what each way to pick would have.

    An offer is right if none has a larger share of clients with the joiner's class list, and some have it.
    """
    siblings = {offer.name: offer.siblings(joiner) for offer in offers}
    most = max(siblings.values(), default=0.0)
    right = [name for name, share in siblings.items() if share == most > 0]
    by = job.config.strategy.joiner_pick
    job.mailbox.record(
        "pick",
        arm=arm,
        round=1,
        client=joiner.partition_id,
        kind=kind,
        by=by,
        picked=chosen.get(by),
        members={offer.name: [one.partition_id for one in offer.members] for offer in offers},
        siblings=siblings,
        scores={
            rule: {name: value if math.isfinite(value) else None for name, value in values.items()}
            for rule, values in scores.items()
        },
        right={rule: name in right for rule, name in chosen.items()} if right else {},
        chance=len(right) / len(offers) if right else None,
    )


def offers_of(members: Mapping[str, Sequence[ClientInfo]], tensors: Arrays) -> list[Offer]:
    """Return offers out of tensors ``name/tensor``, in the order of the names, which is that of a resumed run too."""
    return [Offer(name, tuple(members[name]), of_cluster(tensors, name)) for name in sorted(members)]


def shapes(job: Job, share: str, client: ClientInfo) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of what a client must answer with; empty ``share``: nothing."""
    return {name: value.shape for name, value in job.initial(client, share).items()} if share else {}
