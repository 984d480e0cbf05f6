"""What the events of a Back-Pack run tell of donors and targets, and how a choice compares with what was measured.

With ``selection.routing = "all-pairs"`` each target learns on top of each donor: the *truth* of a pair is its mean test
balanced accuracy over the arms ``pair-003``, ``pair-003-1``, …, that of no donor the mean over ``control``, ``control-1``, ….
No donor is a candidate like the others. Gains and regrets are in points: 100 times balanced accuracy.

The best of several noisy measurements is partly lucky: rank and regret are those against the best *measured*, so the regret is
too large rather than too small, the more so with fewer repeats.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from strategies.protocol import BACKBONE
from strategies.selection.ranking import Quality, quality

PAIR, NO_DONOR = re.compile(r"pair-(\d+)(-\d+)?"), re.compile(r"control(-\d+)?")
RELATIONS = ("sibling", "stranger", "twin", "other")
"""Of a donor to a target: same modality and classes; same modality; same classes; neither."""

Event = Mapping[str, Any]
Truth = dict[int | None, float]
"""Measured accuracy by donor; None: without a donor."""


@dataclass(frozen=True)
class Facts:
    """What the events of a run tell.

    Attributes:
        modality: by client.
        classes: by client, in the order of its labels.
        scores: finite scores by target, donor and scorer; later events add to earlier ones, or replace them.
        routing: the ``routing`` events, by round and target.
        routed: the donors that each target learned on top of in the end, where an event says so.
        shortlisted: the donors that each target scored, where they were fewer than all.
        refused: donors that were left out by any target, None: by the server.
        tested: test balanced accuracy by arm and client.
        truth: by target; empty where no pair was measured.
    """

    modality: dict[int, str]
    classes: dict[int, tuple[str, ...]]
    scores: dict[int, dict[int, dict[str, float]]]
    routing: list[Event]
    routed: dict[int, list[int]]
    shortlisted: dict[int, list[int]]
    refused: list[tuple[int, int | None, str]]
    tested: dict[str, dict[int, float]]
    truth: dict[int, Truth]

    def relation(self, target: int, donor: int) -> str:
        """Return which of :data:`RELATIONS` a donor is."""
        same_modality = self.modality[target] == self.modality[donor]
        if self.classes[target] == self.classes[donor]:
            return "sibling" if same_modality else "twin"
        return "stranger" if same_modality else "other"

    def siblings(self, target: int) -> set[int]:
        """Return the other clients with the target's modality and classes."""
        return {one for one in self.modality if one != target and self.relation(target, one) == "sibling"}

    def candidates(self, target: int) -> set[int]:
        """Return the donors that were ranked, scored or measured for a target."""
        ranked = {donor for event in self.routing if event["client"] == target for donor, _ in event["ranking"]}
        measured = {donor for donor in self.truth.get(target, {}) if donor is not None}
        return ranked | measured | set(self.scores.get(target, {}))


def read(events: Iterable[Event]) -> Facts:
    """Gather the facts; of several events about the same, as a resumed run may write, the last counts."""
    events = list(events)
    scores: dict[int, dict[int, dict[str, object]]] = {}
    for event in named(events, "score"):
        scores.setdefault(event["client"], {}).setdefault(event["donor"], {}).update(event["scores"])
    refused = [
        (event["client"], event.get("target"), str(event["reason"]))
        for event in named(events, "refused")
        if event.get("type", BACKBONE) == BACKBONE
    ]
    tested = measured(events)
    clients = {event["client"]: event for event in named(events, "client")}
    return Facts(
        modality={client: event["modality"] for client, event in sorted(clients.items())},
        classes={client: tuple(event["classes"]) for client, event in clients.items()},
        scores={target: {donor: _known(told) for donor, told in donors.items()} for target, donors in scores.items()},
        routing=[one for _, one in sorted({(e.get("round", 1), e["client"]): e for e in named(events, "routing")}.items())],
        routed={event["client"]: list(event["donors"]) for event in named(events, "routed")},
        shortlisted={event["client"]: [donor for donor, _ in event["donors"]] for event in named(events, "shortlist")},
        refused=list(dict.fromkeys(refused)),
        tested=tested,
        truth=truth(tested),
    )


def measured(events: Iterable[Event]) -> dict[str, dict[int, float]]:
    """Return the finite test balanced accuracies by arm and client."""
    found: dict[str, dict[int, float]] = {}
    for event in named(events, "evaluate"):
        value = finite(event.get("balanced_accuracy"))
        if event["split"] == "test" and value is not None:
            found.setdefault(event["arm"], {})[event["client"]] = value
    return found


def truth(tested: Mapping[str, Mapping[int, float]]) -> dict[int, Truth]:
    """Return the mean accuracy of each pair over its repeats, by target and donor; empty if there is no pair."""
    found = repeats(tested)
    pairs = {target for target, donors in found.items() if set(donors) - {None}}
    return {
        target: {donor: statistics.fmean(values) for donor, values in found[target].items()}
        for target in sorted(found)
        if target in pairs
    }


def repeats(tested: Mapping[str, Mapping[int, float]]) -> dict[int, dict[int | None, list[float]]]:
    """Return what was measured of each pair, and under None without a donor, by target."""
    found: dict[int, dict[int | None, list[float]]] = {}
    for arm, values in tested.items():
        pair = PAIR.fullmatch(arm)
        if pair is None and not NO_DONOR.fullmatch(arm):
            continue
        for target, value in values.items():
            found.setdefault(target, {}).setdefault(int(pair[1]) if pair else None, []).append(value)
    return found


def gains(facts: Facts) -> dict[tuple[int, int], float]:
    """Return the points that each measured donor gave to each target, by (donor, target)."""
    return {
        (donor, target): 100 * (value - measured[None])
        for target, measured in facts.truth.items()
        for donor, value in measured.items()
        if donor is not None and None in measured
    }


def judge(ranked: Sequence[int], chosen: int | None, truth: Mapping[int | None, float]) -> Quality | None:
    """Compare a ranking and a choice with the truth; None: the choice was not measured.

    Rank and regret are among all that was measured, ranked or not; the correlations are over what is both. Regret and gain are
    in points.
    """
    if chosen not in truth:
        return None
    measured = [donor for donor in ranked if donor in truth]
    others = [donor for donor in truth if donor is not None and donor not in measured]
    found = quality(measured, chosen, truth)
    whole = quality([*measured, *others], chosen, truth) if others else found
    gain = None if whole.gain is None else 100 * whole.gain
    return replace(whole, regret=100 * whole.regret, gain=gain, kendall=found.kendall, spearman=found.spearman)


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of what is known; None of nothing."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def finite(value: object) -> float | None:
    """Return a finite number; None of anything else."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else None  # type: ignore[arg-type]


def named(events: Iterable[Event], name: str) -> Iterable[Event]:
    """Return the events of one name."""
    return (event for event in events if event["event"] == name)


def _known(scores: Mapping[str, object]) -> dict[str, float]:
    return {name: value for name, one in scores.items() if (value := finite(one)) is not None}
