"""What a Back-Pack run says of its choices: who took whom, how good the choice was, and what every donor gave to every target.

Made from the run's events. What was chosen and gained is known of every run; how good a choice was, if all pairs were measured
(server/transfer_facts.py). Gains and regrets are in points.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from server import transfer_scorers
from server.transfer_facts import NO_DONOR, PAIR, RELATIONS, Event, Facts, finite, gains, judge, mean, named, read, repeats

TARGET, CONTROL, OWN = "backpack", "control", "own"


@dataclass(frozen=True)
class Route:
    """One choice of one target. None: not measured, or not told.

    Attributes:
        client: partition id of the target.
        round: of routing, from 1.
        scorer: what the donors were ranked by.
        chosen: donors that it learned on top of, the best first: those it chose, or in the last round the next best where one
            failed; empty: none, because the target abstained or no donor was left.
        score: of the first of them.
        tie: the scorer could not tell the first from the second.
        shortlist: donors that were scored, by their sketches; None: all.
        sibling: the first is a sibling; None: the target has none.
        tried_donor: validation of the short training with the first donor.
        tried_none: the same without a donor.
        rank: of the first, or of none, among the measured: 1 and the number of those that are better.
        candidates: number of the measured, none among them.
        regret: points that the best of them is better.
        kendall: tau-b of the ranking and the measured accuracies.
        gain: points that the target gained over its control, with all it has chosen; of its last round only.
        gain_own: points that it gained over its own model after more epochs.
    """

    client: int
    round: int
    scorer: str
    chosen: list[int]
    score: float | None
    tie: bool | None
    shortlist: list[int] | None
    sibling: bool | None
    tried_donor: float | None
    tried_none: float | None
    rank: int | None
    candidates: int | None
    regret: float | None
    kendall: float | None
    gain: float | None
    gain_own: float | None


def results(events: Iterable[Event], scorer: str = "") -> dict[str, Any] | None:
    """Return the entry ``transfer`` of ``results.json``; None: the run routed nothing and measured no pair.

    Args:
        events: all events of a run.
        scorer: what donors are ranked by where an event does not say it.
    """
    events = list(events)
    if not any(event["event"] == "routing" or PAIR.fullmatch(str(event.get("arm"))) for event in events):
        return None
    facts = read(events)
    table = routes(facts, scorer)
    last = latest(table)
    return {
        "scorer": last[0].scorer if last else scorer,
        "routing": [asdict(one) for one in table],
        "means": means(last),
        "scorers": transfer_scorers.lines(facts, last[0].scorer if last else scorer),
        "matrix": matrix(facts),
        "relations": grouped(facts, "relation"),
        "directions": grouped(facts, "direction"),
        "refused": [{"donor": donor, "target": target, "reason": reason} for donor, target, reason in facts.refused],
        "clusters": [{k: v for k, v in one.items() if k not in ("event", "time")} for one in named(events, "cluster")],
    }


def routes(facts: Facts, scorer: str = "") -> list[Route]:
    """Return every choice, by round and target."""
    last = {event["client"]: event.get("round", 1) for event in facts.routing}
    return [_route(facts, event, scorer, last[event["client"]] == event.get("round", 1)) for event in facts.routing]


def latest(table: Iterable[Route]) -> list[Route]:
    """Return the last choice of each target."""
    return [one for _, one in sorted({one.client: one for one in table}.items())]


def _route(facts: Facts, event: Event, scorer: str, is_last: bool) -> Route:
    target = event["client"]
    chosen = facts.routed.get(target, list(event["chosen"])) if is_last else list(event["chosen"])
    first, siblings = (chosen[0] if chosen else None), facts.siblings(target)
    measured = facts.truth.get(target, {})
    found = judge([donor for donor, _ in event["ranking"]], first, measured)
    told = {donor: finite(score) for donor, score in event["ranking"]}

    def gain(over: str) -> float | None:
        own, other = (facts.tested.get(arm, {}).get(target) for arm in (TARGET, over))
        return 100 * (own - other) if is_last and own is not None and other is not None else None

    return Route(
        client=target,
        round=event.get("round", 1),
        scorer=event.get("scorer") or scorer,
        chosen=chosen,
        score=None if first is None else told.get(first),
        tie=event.get("tie"),
        shortlist=event.get("shortlist") or facts.shortlisted.get(target),
        sibling=first in siblings if siblings else None,
        tried_donor=finite(event.get("tried_donor")),
        tried_none=finite(event.get("tried_none")),
        rank=found.rank if found else None,
        candidates=len(measured) or None,
        regret=found.regret if found else None,
        kendall=found.kendall if found else None,
        gain=gain(CONTROL),
        gain_own=gain(OWN),
    )


def means(table: Sequence[Route]) -> dict[str, Any]:
    """Return means over targets, each over those that have the value, and how many chose a sibling, none, or tied."""
    numbers = ("gain", "gain_own", "rank", "candidates", "regret", "kendall")
    return {
        "targets": len(table),
        **{name: mean(getattr(one, name) for one in table) for name in numbers},
        "siblings": sum(one.sibling is True for one in table),
        "with_sibling": sum(one.sibling is not None for one in table),
        "abstained": sum(not one.chosen for one in table),
        "ties": sum(one.tie is True for one in table),
    }


def matrix(facts: Facts) -> dict[str, Any] | None:
    """Return the transfer matrix; None: no pair was measured.

    Its ``gains`` have a row for each target and a column for each donor. ``noise``: standard deviation between repeats of one
    pair, in points, over all pairs with several; ``repeats``: the fewest of a pair or of no donor.
    """
    if not facts.truth:
        return None
    known, found = gains(facts), repeats(facts.tested)
    donors = sorted({donor for measured in facts.truth.values() for donor in measured if donor is not None})
    every = [values for target in facts.truth for values in found[target].values()]
    variances = [statistics.variance(values) for values in every if len(values) > 1]
    return {
        "targets": list(facts.truth),
        "donors": donors,
        "target_modality": [facts.modality[target] for target in facts.truth],
        "donor_modality": [facts.modality[donor] for donor in donors],
        "none": [measured.get(None) for measured in facts.truth.values()],
        "gains": [[known.get((donor, target)) for donor in donors] for target in facts.truth],
        "repeats": min(map(len, every)),
        "noise": 100 * math.sqrt(statistics.fmean(variances)) if variances else None,
    }


def grouped(facts: Facts, by: str) -> list[dict[str, Any]]:
    """Return the mean gain of the pairs by relation, or by direction (modality of donor → of target).

    Each with the number of pairs, the share of them above 0, and the mean of each target.
    """
    names = list(RELATIONS)
    if by == "direction":
        modalities = sorted(set(facts.modality.values()))
        names = [f"{donor}→{target}" for donor in modalities for target in modalities]
    found: dict[str, dict[int, list[float]]] = {name: {} for name in names}
    for (donor, target), gain in gains(facts).items():
        direction = f"{facts.modality[donor]}→{facts.modality[target]}"
        name = facts.relation(target, donor) if by == "relation" else direction
        found[name].setdefault(target, []).append(gain)
    return [
        {
            by: name,
            "pairs": sum(map(len, targets.values())),
            "gain": mean(gain for values in targets.values() for gain in values),
            "positive": mean(gain > 0 for values in targets.values() for gain in values),
            "targets": [[target, statistics.fmean(values)] for target, values in sorted(targets.items())],
        }
        for name, targets in found.items()
        if targets
    ]


def is_repeat(arm: object) -> bool:
    """Say whether an arm only measures: a pair, or its target without a donor once more."""
    return PAIR.fullmatch(str(arm)) is not None or (arm != CONTROL and NO_DONOR.fullmatch(str(arm)) is not None)


def chosen(summary: Mapping[str, Any]) -> dict[int, str]:
    """Return the last chosen donors of each target in words, out of the entry ``transfer``."""
    return {row["client"]: donors(row["chosen"]) for row in summary["routing"]}


def donors(ids: Iterable[int]) -> str:
    """Write donors, the best first; ``none`` if there is none."""
    return ", ".join(map(str, ids)) or "none"


def remark(summary: Mapping[str, Any]) -> str:
    """Say in one line what the choices of a run gained, and how good they were, out of the entry ``transfer``."""
    told, number = summary["means"], summary["means"]["targets"]
    parts = [f"donors by {summary['scorer']}" if summary["scorer"] else "donors"]
    if told["gain"] is not None:
        parts.append(f"mean gain {told['gain']:+.1f} points over the control")
    if told["gain_own"] is not None:
        parts.append(f"{told['gain_own']:+.1f} over more epochs of the own model")
    if told["with_sibling"]:
        parts.append(f"{told['siblings']} of {told['with_sibling']} chose a sibling")
    parts.append(f"{told['abstained']} of {number} abstained")
    if told["rank"] is not None:
        parts.append(f"rank {told['rank']:.1f} of {told['candidates']:.1f}, regret {told['regret']:.1f} points")
    if told["kendall"] is not None:
        parts.append(f"tau {told['kendall']:.2f}")
    return "; ".join(parts)
