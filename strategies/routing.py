"""Who learns on top of whom: the order of a target's donors, and whether it takes any."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from config import LOCAL_SCORERS
from strategies.broker import Ledger, provide, refused_by, score_message, with_donors
from strategies.clustering import linked
from strategies.job import Job
from strategies.protocol import NONE, TARGET, ClientInfo
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
        truth: test accuracy by (donor, target), for the rules that go by it; of a target by itself: without a donor.
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
    ``finalists`` take a short training, and none competes with them; for one that fails the next best takes it.

    Args:
        job: the run.
        target: who chooses.
        order: its candidates, the best first.
        ledger: has the scores.
    """
    settings, own = job.config.selection, target.partition_id
    best, none = list(order), math.nan
    tried: dict[int, float] = {}
    if settings.abstain:
        tried, failed, none = try_out(job, target, order, ledger)
        passed = abstain(order, tried, none, settings.margin) if tried else []
        passed.sort(key=lambda donor: -tried[donor])
        # Who did not take the test follows those who passed it; where nobody passed, nobody is taken.
        best = [*passed, *(donor for donor in order if donor not in tried and donor not in failed)] if passed else []
    best = with_twins(job, target, best)
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


def with_twins(job: Job, target: ClientInfo, order: Sequence[int]) -> list[int]:
    """Put the best ``packing.twins`` donors of the other modality among the first ``selection.top``, behind its own."""
    settings, twins = job.config.selection, job.config.packing.twins
    inside = [one for one in order if job.mailbox.clients[one].modality == target.modality]
    first = inside[: settings.top - twins] + [one for one in order if one not in inside][:twins] if twins else []
    return [*first, *(one for one in order if one not in first)]


def _tie(ledger: Ledger, target: int, order: Sequence[int], scorer: str) -> dict[str, bool]:
    resampled = ledger.resampled.get(target, {})
    if scorer != "modeldiff" or len(order) < 2 or not {order[0], order[1]} <= resampled.keys():
        return {}
    scores = ledger.scored(target, scorer)
    return {"tie": is_tie(scores[order[0]] - scores[order[1]], resampled[order[0]], resampled[order[1]])}


def try_out(job: Job, target: ClientInfo, order: Sequence[int], ledger: Ledger) -> tuple[dict[int, float], list[int], float]:
    """Let the best ``selection.finalists`` donors that can be had take a short training, and none with the same steps.

    What the target has told of a donor before is not asked for again.

    Returns:
        Validation by donor, the donors that failed, and validation without a donor; NaN if no donor was tested.
    """
    infos, own = job.mailbox.clients, target.partition_id
    tried: dict[int, float] = {}
    failed, none = [], math.nan
    for donor in order:
        if len(tried) == job.config.selection.finalists:
            break
        known = ledger.scores.setdefault(own, {}).setdefault(donor, {})
        wanted = [*(() if TUNE in known else (TUNE,)), *(() if math.isfinite(none) else (NONE,))]
        found = {TUNE: known[TUNE]} if TUNE in known else {}
        if wanted:
            found |= ask_target(job, target, infos[donor], wanted, ledger)
        known.update({name: found[name] for name in wanted if name == TUNE and name in found})
        none = found.get(NONE, none)
        if math.isfinite(none) and math.isfinite(found.get(TUNE, math.nan)):
            tried[donor] = found[TUNE]
        else:
            failed.append(donor)
    return tried, failed, none


def ask_target(job: Job, target: ClientInfo, donor: ClientInfo, names: Sequence[str], ledger: Ledger) -> dict[str, float]:
    """Return what a target scores a donor by some scorers; empty, with an event: one of the two fails."""
    manifests, arrays = provide(job, target, [donor], ledger, 1, {})
    if not manifests:
        return {}
    message = with_donors(score_message(job, target, names), manifests, arrays)
    for reply in job.mailbox.ask([message], lambda client: {}, may_fail=True):
        if refused_by(job, ledger, reply, manifests) is None:
            return {name: value for name, value in reply.metrics.items() if name in names}
    return {}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
