"""Who learns on top of whom: the order of a target's donors, and whether it takes any."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from config import LOCAL_SCORERS
from strategies.broker import TARGET, Ledger, provide, refuse, score_message, with_donors
from strategies.clustering import linked
from strategies.job import Job
from strategies.protocol import FACTS, NONE, ClientInfo
from strategies.selection.ranking import abstain, inside_first, is_tie
from strategies.selection.rules import best_on_average_rank, oracle_rank, random_rank, same_modality_random_rank

TUNE = "few-step"
Truth = Mapping[tuple[int, int], float]


def is_candidate(job: Job, target: ClientInfo, donor: ClientInfo) -> bool:
    """Say whether a target may learn on top of a donor."""
    settings = job.config.selection
    if donor.partition_id == target.partition_id:
        return False
    if donor.modality == target.modality:
        return True
    return settings.across and not (settings.exclude_twins and donor.classes == target.classes)


def candidates(job: Job, target: ClientInfo) -> list[ClientInfo]:
    """Return the donors that a target may learn on top of."""
    return [donor for donor in job.mailbox.clients.values() if is_candidate(job, target, donor)]


def rank(job: Job, target: ClientInfo, ledger: Ledger, truth: Truth) -> list[int]:
    """Return the candidates of a target, the best first: by score inside its modality first, or by a rule.

    Args:
        job: the run.
        target: who wants donors.
        ledger: has the scores.
        truth: test accuracy by (donor, target), for the rules that go by it; a donor None is no donor.
    """
    settings, own = job.config.selection, target.partition_id
    donors = candidates(job, target)
    ids = [donor.partition_id for donor in donors]
    if settings.scorer in LOCAL_SCORERS:
        usable = {d: found for d, found in ledger.scored(own, settings.scorer).items() if d in ids and math.isfinite(found)}
        inside = {donor.partition_id for donor in donors if donor.modality == target.modality}
        return inside_first(usable, own, inside, calibrated=settings.candidate == "calibrate")
    if settings.scorer == "none":
        return []
    if settings.scorer == "same-modality-random":
        modalities = {one.partition_id: one.modality for one in (*donors, target)}
        return same_modality_random_rank(own, modalities, job.config.run.seed)
    if settings.scorer == "random":
        return random_rank(own, ids, job.config.run.seed)
    if settings.scorer == "oracle":
        return oracle_rank(own, {donor: truth.get((donor, own), math.nan) for donor in ids})
    gains = {pair: found - truth.get((pair[1], pair[1]), math.nan) for pair, found in truth.items() if pair[0] != pair[1]}
    return [donor for donor in best_on_average_rank(own, gains) if donor in ids]


def clusters(job: Job, ledger: Ledger) -> dict[int, set[int]]:
    """Group the clients of each modality by average linkage on their similarity; return each client's group.

    The similarity of two clients is the mean of what each scores the other; of a pair without scores, the lowest of all.
    """
    settings = job.config.selection
    groups: dict[int, set[int]] = {}
    for modality in sorted({client.modality for client in job.mailbox.clients.values()}):
        ids = [client.partition_id for client in job.mailbox.clients.values() if client.modality == modality]
        both = {(a, b): _mean_score(ledger, settings.scorer, a, b) for a in ids for b in ids if a < b}
        known = [value for value in both.values() if value is not None]
        low, high = (min(known), max(known)) if known else (0.0, 0.0)
        distances = np.zeros((len(ids), len(ids)))
        for (a, b), value in both.items():
            distance = high - (low if value is None else value)
            distances[ids.index(a), ids.index(b)] = distances[ids.index(b), ids.index(a)] = distance
        labels = linked(distances, min(settings.clusters, len(ids)))
        found = [{one for one, label in zip(ids, labels, strict=True) if label == name} for name in sorted(set(labels))]
        groups |= {one: group for group in found for one in group}
    every = sorted({tuple(sorted(group)) for group in groups.values()})
    job.mailbox.record("cluster", arm=TARGET, clusters=[list(group) for group in every], similarity=settings.scorer)
    return groups


def _mean_score(ledger: Ledger, scorer: str, a: int, b: int) -> float | None:
    told = [ledger.scored(one, scorer).get(other, math.nan) for one, other in ((a, b), (b, a))]
    finite = [value for value in told if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else None


def choose(job: Job, target: ClientInfo, order: Sequence[int], ledger: Ledger) -> list[int]:
    """Return the donors of a target, the best first; empty: none, because there is none or none is better without.

    More than ``selection.top`` are returned, for those that fail before they are used. With ``selection.abstain`` the best
    ``finalists`` take a short training, and none competes with them.

    Args:
        job: the run.
        target: who chooses.
        order: its candidates, the best first.
        ledger: has the scores.
    """
    settings, own = job.config.selection, target.partition_id
    best, none = list(order), math.nan
    tried: dict[int, float] = {}
    if order and settings.abstain:
        tried, none = try_out(job, target, order[: settings.finalists], ledger)
        if tried and math.isfinite(none):
            passed = abstain(order, tried, none, settings.margin)
            passed.sort(key=lambda donor: -tried[donor])
            # Who did not take the test follows those who passed it; where nobody passed, nobody is taken.
            best = [*passed, *(donor for donor in order if donor not in tried)] if passed else []
    scores = ledger.scored(own, settings.scorer)
    facts = {"tried_donor": max(tried.values()), "tried_none": none} if tried else {}
    job.mailbox.record(
        "routing",
        arm=TARGET,
        client=own,
        scorer=settings.scorer,
        ranking=[[donor, _finite(scores.get(donor))] for donor in order],
        chosen=best[: settings.top],
        tried=[[donor, value] for donor, value in tried.items()],
        **facts,
        **_tie(ledger, own, order, settings.scorer),
    )
    return best


def _tie(ledger: Ledger, target: int, order: Sequence[int], scorer: str) -> dict[str, bool]:
    resampled = ledger.resampled.get(target, {})
    if scorer != "modeldiff" or len(order) < 2 or not {order[0], order[1]} <= resampled.keys():
        return {}
    scores = ledger.scored(target, scorer)
    return {"tie": is_tie(scores[order[0]] - scores[order[1]], resampled[order[0]], resampled[order[1]])}


def try_out(job: Job, target: ClientInfo, donors: Sequence[int], ledger: Ledger) -> tuple[dict[int, float], float]:
    """Return the validation after a short training on top of each donor, and without any; a donor that fails has none.

    What the target has told of a donor before is not asked for again.
    """
    infos, own = job.mailbox.clients, target.partition_id
    for donor in donors:
        known = ledger.scores.setdefault(own, {}).setdefault(donor, {})
        missing = [name for name in (TUNE, NONE) if name not in known and (name != NONE or donor == donors[0])]
        if not missing:
            continue
        manifests, arrays = provide(job, target, [infos[donor]], ledger, 1)
        if not manifests:
            continue
        message = with_donors(score_message(job, target, missing), manifests, arrays)
        for reply in job.mailbox.ask([message], lambda client: {}, may_fail=True):
            if (told := reply.message.content.config_records.get(FACTS)) is not None:
                refuse(job, infos[donor], str(told["reason"]), own)
                continue
            ledger.held.setdefault(own, set()).add(manifests[0].sha256)
            known.update({name: reply.metrics[name] for name in missing})
    found = {donor: ledger.scores[own][donor].get(TUNE, math.nan) for donor in donors}
    nones = [ledger.scores[own][donor][NONE] for donor in donors if NONE in ledger.scores[own][donor]]
    return {donor: value for donor, value in found.items() if math.isfinite(value)}, nones[0] if nones else math.nan


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
