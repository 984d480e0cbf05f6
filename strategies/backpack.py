"""Back-Pack: the server brokers backbones. It collects scores, routes those of N donors to each target, and keeps none.

    arm donor      every client learns its task with ``selection.donor-fraction`` of its data, and prunes what it can spare
    arm control    every client learns its task from scratch, with ``data.train-fraction``; donors are scored by this model
    publish        one donor after the other sends its backbone; the server hands it to the targets, which score and keep it
    choose         the best N by ``selection.scorer``; none, where a short training without a donor validates better
    arm backpack   every target learns its task on top of the chosen ones, with the settings and epochs of the control

A backbone crosses the server in one exchange and is forgotten; a target keeps what it was sent, by its hash, so that nothing
is sent twice. A donor that fails, or sends what does not fit its manifest or the target's model, is left out, with an event;
the target takes the next best.

Source: Pick-a-back (ECCV 2024) for one donor: selection by decision patterns (ModelDiff, ISSTA 2021), and the target's task on
top by CPG (NeurIPS 2019). The released code takes the largest distance (scorer ``modeldiff-released``), and lets only the side
with a donor grow; here both sides have the same parameters, steps and settings.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message

from config import LOCAL_SCORERS
from strategies.job import Job
from strategies.mailbox import Reply
from strategies.protocol import (
    BACKBONE,
    DONORS,
    FACTS,
    MANIFEST,
    MASK,
    NONE,
    SCORE,
    SCORERS,
    TRAIN_TASK,
    ClientInfo,
    Manifest,
    digest,
    to_arrays,
)
from strategies.selection.ranking import inside_first
from strategies.selection.rules import random_rank, same_modality_random_rank

DONOR, CONTROL, TARGET = "donor", "control", "backpack"
TUNE = "few-step"


@dataclass
class Ledger:
    """What the broker remembers of one run of selection: manifests, scores and who holds what. No weights.

    Attributes:
        manifests: by donor.
        scores: by target, donor and scorer.
        held: hashes of the backbones that each target keeps.
    """

    manifests: dict[int, Manifest] = field(default_factory=dict)
    scores: dict[int, dict[int, dict[str, float]]] = field(default_factory=dict)
    held: dict[int, set[str]] = field(default_factory=dict)


def run(job: Job) -> None:
    """Learn donors and controls, then route, and learn on top."""
    settings = job.config.selection
    clients = list(job.mailbox.clients.values())
    learn(job, DONOR, clients, epochs=settings.donor_epochs, train_fraction=settings.donor_fraction, later=1)
    learn(job, CONTROL, clients, epochs=job.config.continual.epochs)
    if settings.routing == "all-pairs":
        for donor in clients:
            learn_from_one(job, donor, [target for target in clients if is_candidate(job, target, donor)])
    begun = job.progress.begin(TARGET)
    if begun.finished:
        return
    ledger = collect(job, clients)
    chosen = {target.partition_id: choose(job, target, ledger) for target in clients}
    train_on(job, TARGET, chosen, ledger)
    job.progress.finish(TARGET)


def learn(job: Job, arm: str, clients: list[ClientInfo], **fields: object) -> None:
    """Let every client learn its task without a donor; the control is evaluated."""
    if job.progress.begin(arm).finished:
        return
    told = [job.instruction(client, arm, round=1, **fields) for client in clients]
    finish(job, arm, job.mailbox.ask([job.message(TRAIN_TASK, one, None) for one in told], lambda client: {}))
    if arm == CONTROL:
        evaluate(job, arm, clients)
    job.progress.finish(arm)


def finish(job: Job, arm: str, replies: list[Reply]) -> None:
    """Record that tasks were learned."""
    job.record_training(replies, arm, 1, 1)
    job.record_learned(replies, arm, 1)


def evaluate(job: Job, arm: str, clients: Iterable[ClientInfo]) -> None:
    """Evaluate what clients learned in an arm."""
    clients = list(clients)
    for split in ("val", "test") if job.config.run.evaluate_every else ("test",):
        job.evaluate_tasks([job.instruction(client, arm, round=1, split=split) for client in clients])


def is_candidate(job: Job, target: ClientInfo, donor: ClientInfo) -> bool:
    """Say whether a target may learn on top of a donor."""
    settings = job.config.selection
    if donor.partition_id == target.partition_id:
        return False
    if donor.modality == target.modality:
        return True
    return settings.across and not (settings.exclude_twins and donor.classes == target.classes)


def pull(job: Job, donor: ClientInfo) -> tuple[Manifest, dict[str, np.ndarray]] | None:
    """Ask a donor for its backbone, and check it; None, with an event: it failed, or what came is not what it says."""
    settings = job.config.selection
    told = job.instruction(donor, DONOR, round=1, share=job.config.strategy.share, train_fraction=settings.donor_fraction)
    replies = job.mailbox.ask([job.message(BACKBONE, told, None)], lambda client: shapes(job, client), may_fail=True)
    if not replies:
        return None
    try:
        manifest = Manifest.from_json(str(replies[0].message.content.config_records[MANIFEST]["json"]))
        found = digest(replies[0].arrays)
        if (manifest.sha256, manifest.partition_id, manifest.modality) != (found, donor.partition_id, donor.modality):
            raise ValueError(
                f"the manifest says client {manifest.partition_id}, {manifest.modality}, hash {manifest.sha256[:16]}; found "
                f"client {donor.partition_id}, {donor.modality}, hash {found[:16]}"
            )
    except (KeyError, ValueError) as error:
        refuse(job, donor, str(error))
        return None
    job.mailbox.record("backbone", arm=DONOR, client=donor.partition_id, sha256=found, validation=manifest.validation)
    return manifest, replies[0].arrays


def shapes(job: Job, client: ClientInfo) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the arrays and masks that a donor must answer with."""
    arrays = job.initial(client, job.config.strategy.share)
    owned = job.initial(client, "weights")
    return {name: value.shape for name, value in arrays.items()} | {
        MASK + name: (math.ceil(value.size / 8),) for name, value in owned.items()
    }


def refuse(job: Job, donor: ClientInfo, reason: str, target: int | None = None) -> None:
    """Record that a donor is left out, by a target or, None, by the server."""
    by = {} if target is None else {"target": target}
    job.mailbox.record("refused", type=BACKBONE, arm=DONOR, round=1, client=donor.partition_id, reason=reason, **by)


def collect(job: Job, clients: list[ClientInfo]) -> Ledger:
    """Hand every donor's backbone to the targets that may want it, and return their scores."""
    settings, ledger = job.config.selection, Ledger()
    if settings.scorer not in LOCAL_SCORERS:
        return ledger
    scorers = list(dict.fromkeys([settings.scorer, *filter(None, settings.also.split(","))]))
    for donor in clients:
        targets = [target for target in clients if is_candidate(job, target, donor)]
        came = pull(job, donor) if targets else None
        if came is None:
            continue
        manifest, arrays = came
        ledger.manifests[donor.partition_id] = manifest
        sent = to_arrays(arrays)
        messages = [
            with_donors(score_message(job, target, scorers), [manifest], {manifest.sha256: sent}) for target in targets
        ]
        for reply in job.mailbox.ask(messages, lambda client: {}, may_fail=True):
            note(job, ledger, reply, donor)
    return ledger


def score_message(job: Job, target: ClientInfo, scorers: list[str]) -> Message:
    """Return a request to score donors, by the model of the control."""
    message = job.message(SCORE, job.instruction(target, CONTROL, round=1), None)
    message.content[SCORERS] = ConfigRecord({"names": scorers})
    return message


def with_donors(message: Message, manifests: list[Manifest], arrays: Mapping[str, ArrayRecord]) -> Message:
    """Put donors into a message, the best first: their manifests, and the arrays that the target does not have."""
    message.content[DONORS] = ConfigRecord({"manifests": [manifest.to_json() for manifest in manifests]})
    for sha256, record in arrays.items():
        message.content[f"{DONORS}-{sha256}"] = record
    return message


def note(job: Job, ledger: Ledger, reply: Reply, donor: ClientInfo) -> None:
    """Write down what a target says of a donor."""
    target, told = reply.client.partition_id, reply.message.content.config_records.get(FACTS)
    if told is not None:
        refuse(job, donor, str(told["reason"]), target)
        return
    found = {name: value for name, value in reply.metrics.items() if name not in ("partition-id", "num-examples")}
    ledger.scores.setdefault(target, {}).setdefault(donor.partition_id, {}).update(found)
    ledger.held.setdefault(target, set()).add(ledger.manifests[donor.partition_id].sha256)
    known = {name: value if math.isfinite(value) else None for name, value in found.items()}
    job.mailbox.record("score", arm=TARGET, client=target, donor=donor.partition_id, scores=known)


def choose(job: Job, target: ClientInfo, ledger: Ledger) -> list[int]:
    """Return the donors of a target, the best first; empty: none, because there is none or none is better without."""
    settings, infos = job.config.selection, job.mailbox.clients
    order = rank(job, target, ledger)
    best, tried = order[: settings.top], {}
    if best and settings.abstain:
        tried = try_out(job, target, infos[best[0]], ledger)
        if tried and tried["none"] > tried["donor"] + settings.margin:
            best = []
    scores = ledger.scores.get(target.partition_id, {})
    ranking = [[donor, _finite(scores.get(donor, {}).get(settings.scorer))] for donor in order]
    facts = {f"tried_{name}": value for name, value in tried.items()}
    job.mailbox.record("routing", arm=TARGET, client=target.partition_id, ranking=ranking, chosen=best, **facts)
    return best


def rank(job: Job, target: ClientInfo, ledger: Ledger) -> list[int]:
    """Return the candidates of a target in the order of the scorer, inside its modality first."""
    settings = job.config.selection
    donors = [one for one in job.mailbox.clients.values() if is_candidate(job, target, one)]
    if settings.scorer in LOCAL_SCORERS:
        scores = ledger.scores.get(target.partition_id, {})
        known = {one.partition_id: scores[one.partition_id][settings.scorer] for one in donors if one.partition_id in scores}
        inside = {one.partition_id for one in donors if one.modality == target.modality}
        usable = {donor: score for donor, score in known.items() if math.isfinite(score)}
        return inside_first(usable, target.partition_id, inside)
    modalities = {one.partition_id: one.modality for one in (*donors, target)}
    if settings.scorer == "same-modality-random":
        return same_modality_random_rank(target.partition_id, modalities, job.config.run.seed)
    return random_rank(target.partition_id, list(modalities), job.config.run.seed)


def try_out(job: Job, target: ClientInfo, donor: ClientInfo, ledger: Ledger) -> dict[str, float]:
    """Return the validation of a short training on top of a donor, and without one; empty: the target could not tell."""
    manifest, arrays = backbone_for(job, target, donor, ledger)
    if manifest is None:
        return {}
    message = with_donors(score_message(job, target, [TUNE, NONE]), [manifest], arrays)
    replies = job.mailbox.ask([message], lambda client: {}, may_fail=True)
    if not replies or TUNE not in replies[0].metrics:
        return {}
    return {"donor": replies[0].metrics[TUNE], "none": replies[0].metrics[NONE]}


def backbone_for(
    job: Job, target: ClientInfo, donor: ClientInfo, ledger: Ledger
) -> tuple[Manifest | None, dict[str, ArrayRecord]]:
    """Return a donor's manifest and, unless the target holds it, its arrays; None: the donor failed."""
    manifest = ledger.manifests.get(donor.partition_id)
    if manifest is not None and manifest.sha256 in ledger.held.get(target.partition_id, ()):
        return manifest, {}
    came = pull(job, donor)
    if came is None:
        return None, {}
    ledger.manifests[donor.partition_id] = came[0]
    return came[0], {came[0].sha256: to_arrays(came[1])}


def train_on(job: Job, arm: str, chosen: Mapping[int, list[int]], ledger: Ledger) -> None:
    """Let targets learn on top of their donors, each told of all of its in one message, and evaluate them."""
    infos, messages = job.mailbox.clients, []
    for target, donors in chosen.items():
        manifests: list[Manifest] = []
        arrays: dict[str, ArrayRecord] = {}
        for donor in donors:
            manifest, own = backbone_for(job, infos[target], infos[donor], ledger)
            if manifest is not None:
                manifests.append(manifest)
                arrays |= own
        told = job.instruction(infos[target], arm, round=1, epochs=job.config.continual.epochs)
        messages.append(with_donors(job.message(TRAIN_TASK, told, None), manifests, arrays))
    finish(job, arm, job.mailbox.ask(messages, lambda client: {}))
    evaluate(job, arm, [infos[target] for target in chosen])


def learn_from_one(job: Job, donor: ClientInfo, targets: list[ClientInfo]) -> None:
    """Let all targets learn on top of one donor: a column of the transfer matrix."""
    arm = f"pair-{donor.partition_id:03d}"
    if not targets or job.progress.begin(arm).finished:
        return
    came = pull(job, donor)
    if came is not None:
        manifest, sent = came[0], to_arrays(came[1])
        told = [job.instruction(target, arm, round=1, epochs=job.config.continual.epochs) for target in targets]
        messages = [with_donors(job.message(TRAIN_TASK, one, None), [manifest], {manifest.sha256: sent}) for one in told]
        finish(job, arm, job.mailbox.ask(messages, lambda client: {}))
        evaluate(job, arm, targets)
    job.progress.finish(arm)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
