"""What the broker of Back-Pack sends and checks: a donor's backbone crosses the server in one exchange and is forgotten.

A target keeps what it was sent, by its hash, so that nothing is sent twice. A donor that fails, or sends what does not fit its
manifest or the target's model, is left out, with an event.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message

from strategies.job import Job
from strategies.mailbox import Reply
from strategies.protocol import (
    BACKBONE,
    DONORS,
    FACTS,
    MANIFEST,
    MASK,
    METRICS,
    SCORE,
    SCORERS,
    TARGET,
    ClientInfo,
    Manifest,
    RunError,
    digest,
    to_arrays,
)

DONOR, CONTROL, OWN = "donor", "control", "own"
RESAMPLED = "resampled"
Pulled = dict[int, tuple[Manifest, ArrayRecord] | None]
"""What donors gave when they were asked, by donor; None: it failed."""


@dataclass
class Ledger:
    """What the broker remembers of one run of selection: manifests, scores and who holds what. No weights.

    Attributes:
        manifests: by donor.
        scores: by target, donor and scorer; not finite: the candidate computes what is not.
        resampled: by target and donor: the score of modeldiff on resampled pairs.
        held: hashes of the backbones that each target keeps.
    """

    manifests: dict[int, Manifest] = field(default_factory=dict)
    scores: dict[int, dict[int, dict[str, float]]] = field(default_factory=dict)
    resampled: dict[int, dict[int, list[float]]] = field(default_factory=dict)
    held: dict[int, set[str]] = field(default_factory=dict)

    def scored(self, target: int, scorer: str) -> dict[int, float]:
        """Return a target's scores by donor."""
        return {donor: found[scorer] for donor, found in self.scores.get(target, {}).items() if scorer in found}


def pull(job: Job, donor: ClientInfo) -> tuple[Manifest, ArrayRecord] | None:
    """Ask a donor for its backbone, and check it; None, with an event: it failed, or what came is not what it says."""
    settings = job.config.selection
    asked = job.instruction(donor, DONOR, round=1, share=job.config.strategy.share, train_fraction=settings.donor_fraction)
    replies = job.mailbox.ask([job.message(BACKBONE, asked, None)], lambda client: shapes(job, client), may_fail=True)
    if not replies:
        return None
    try:
        manifest = manifest_of(replies[0])
        if math.isnan(manifest.validation):
            raise ValueError("the manifest does not say how the task validates, expected a number from 0 to 1")
    except ValueError as error:
        refuse(job, donor, str(error))
        return None
    told = {"sha256": manifest.sha256, "validation": manifest.validation, "consent": manifest.consent}
    job.mailbox.record("backbone", arm=DONOR, client=donor.partition_id, **told)
    return manifest, to_arrays(replies[0].arrays)


def manifest_of(reply: Reply, *, alone: bool = False) -> Manifest:
    """Return a donor's manifest out of its reply, checked against who answers and what came with it.

    Args:
        reply: with the manifest and, unless it came alone, the arrays that it is of.
        alone: nothing else was asked for.

    Raises:
        ValueError: there is none, or it is of another client or other arrays.
    """
    donor, record = reply.client, reply.message.content.config_records.get(MANIFEST, ConfigRecord())
    manifest = Manifest.from_json(str(record.get("json", "")))
    found = manifest.sha256 if alone else digest(reply.arrays)
    if (manifest.sha256, manifest.partition_id, manifest.modality) != (found, donor.partition_id, donor.modality):
        raise ValueError(
            f"the manifest says client {manifest.partition_id}, {manifest.modality}, hash {manifest.sha256[:16]}; found "
            f"client {donor.partition_id}, {donor.modality}, hash {found[:16]}"
        )
    return manifest


def shapes(job: Job, client: ClientInfo) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the arrays and masks that a donor must answer with."""
    arrays = job.initial(client, job.config.strategy.share)
    owned: Mapping[str, np.ndarray] = job.initial(client, "weights")
    return {name: value.shape for name, value in arrays.items()} | {
        MASK + name: (math.ceil(value.size / 8),) for name, value in owned.items()
    }


def refuse(
    job: Job, donor: ClientInfo, reason: str, target: int | None = None, kind: str = BACKBONE, arm: str = DONOR
) -> None:
    """Record that a donor is left out, by a target or, None, by the server."""
    by = {} if target is None else {"target": target}
    job.mailbox.record("refused", type=kind, arm=arm, round=1, client=donor.partition_id, reason=reason, **by)


def with_donors(message: Message, manifests: Sequence[Manifest], arrays: Mapping[str, ArrayRecord]) -> Message:
    """Put donors into a message, the best first: their manifests, and the arrays that the target does not have."""
    message.content[DONORS] = ConfigRecord({"manifests": [manifest.to_json() for manifest in manifests]})
    for sha256, record in arrays.items():
        message.content[f"{DONORS}-{sha256}"] = record
    return message


def provide(
    job: Job, target: ClientInfo, donors: Iterable[ClientInfo], ledger: Ledger, top: int, pulled: Pulled
) -> tuple[list[Manifest], dict[str, ArrayRecord]]:
    """Return manifests of the first donors that can be had and, by hash, the arrays of them that the target does not hold.

    Args:
        job: the run.
        target: who gets them.
        donors: the best first.
        ledger: says who holds what.
        top: how many.
        pulled: what has come in this exchange, so that a donor is asked once for all of its targets.
    """
    manifests: list[Manifest] = []
    arrays: dict[str, ArrayRecord] = {}
    for donor in donors:
        if len(manifests) == top:
            break
        manifest = ledger.manifests.get(donor.partition_id)
        if manifest is None or manifest.sha256 not in ledger.held.get(target.partition_id, ()):
            if donor.partition_id not in pulled:
                pulled[donor.partition_id] = pull(job, donor)
            if (came := pulled[donor.partition_id]) is None:
                continue
            manifest = ledger.manifests[donor.partition_id] = came[0]
            if manifest.sha256 not in ledger.held.get(target.partition_id, ()):  # of another donor that is the same
                arrays[manifest.sha256] = came[1]
        manifests.append(manifest)
    return manifests, arrays


def score_message(job: Job, target: ClientInfo, scorers: Sequence[str]) -> Message:
    """Return a request to score donors, by the target's own model."""
    arm = OWN if job.config.selection.own_epochs else CONTROL
    message = job.message(SCORE, job.instruction(target, arm, round=1), None)
    message.content[SCORERS] = ConfigRecord({"names": list(scorers)})
    return message


def score(job: Job, wanted: Mapping[int, Sequence[int]], ledger: Ledger) -> None:
    """Hand each donor's backbone to the targets that want it, one donor after the other, and write down their scores.

    Args:
        job: the run.
        wanted: donors by target.
        ledger: takes manifests, scores, and who holds what.
    """
    for donor in job.mailbox.clients.values():
        if targets := [target for target, donors in wanted.items() if donor.partition_id in donors]:
            score_one(job, donor, targets, ledger)


def score_one(job: Job, donor: ClientInfo, targets: Sequence[int], ledger: Ledger) -> None:
    """Hand one donor's backbone to targets; it is forgotten before the next one is asked."""
    if (came := pull(job, donor)) is None:
        return
    manifest, arrays = came
    ledger.manifests[donor.partition_id] = manifest
    messages = [
        with_donors(
            score_message(job, job.mailbox.clients[target], job.config.selection.scorers),
            [manifest],
            {} if manifest.sha256 in ledger.held.get(target, ()) else {manifest.sha256: arrays},
        )
        for target in targets
    ]
    for reply in job.mailbox.ask(messages, lambda client: {}, may_fail=True):
        if refused_by(job, ledger, reply, [manifest]) is None:
            note(job, ledger, reply, donor)


def refused_by(job: Job, ledger: Ledger, reply: Reply, sent: Sequence[Manifest]) -> int | None:
    """Return the donor that a target says it cannot use, with an event; None: it took all that it was sent.

    A target takes donors in the order in which they came, so that it keeps those before the one that it refuses.

    Raises:
        RunError: it was sent no donor.
    """
    target, told = reply.client.partition_id, reply.message.content.config_records.get(FACTS, ConfigRecord())
    ids, held = [manifest.partition_id for manifest in sent], ledger.held.setdefault(target, set())
    if "reason" not in told:
        held.update(manifest.sha256 for manifest in sent)
        return None
    reason, named = str(told["reason"]), told.get("donor")
    if not sent:
        raise RunError(f"client {target} refuses a donor, and was sent none: {reason}")
    place = ids.index(named) if isinstance(named, int) and named in ids else 0  # whatever it names, one is gone
    refuse(job, job.mailbox.clients[ids[place]], reason, target)
    held.update(manifest.sha256 for manifest in sent[:place])
    held.discard(sent[place].sha256)
    return ids[place]


def note(job: Job, ledger: Ledger, reply: Reply, donor: ClientInfo) -> None:
    """Write down a target's scores of a donor."""
    target = reply.client.partition_id
    found = {name: value for name, value in reply.metrics.items() if name not in ("partition-id", "num-examples")}
    ledger.scores.setdefault(target, {}).setdefault(donor.partition_id, {}).update(found)
    resampled = reply.message.content.metric_records[METRICS].get(RESAMPLED)
    if isinstance(resampled, list):
        ledger.resampled.setdefault(target, {})[donor.partition_id] = [float(value) for value in resampled]
    known = {name: value if math.isfinite(value) else None for name, value in found.items()}
    job.mailbox.record("score", arm=TARGET, client=target, donor=donor.partition_id, scores=known)


def finish(job: Job, arm: str, replies: list[Reply]) -> None:
    """Record that tasks were learned."""
    job.record_training(replies, arm, 1, 1)
    job.record_learned(replies, arm, 1)


def evaluate(job: Job, arm: str, clients: Iterable[ClientInfo]) -> dict[int, float]:
    """Evaluate what clients learned in an arm; return the balanced accuracy of each on its test examples."""
    clients, found = list(clients), {}
    for split in ("val", "test") if job.config.run.evaluate_every else ("test",):
        for reply in job.evaluate_tasks([job.instruction(client, arm, round=1, split=split) for client in clients]):
            (accuracy,) = reply.message.content.metric_records[METRICS]["balanced-accuracy"]  # type: ignore[misc]
            found[reply.client.partition_id] = float(accuracy)
    return found
