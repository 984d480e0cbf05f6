"""How good each scorer would have been in a Back-Pack run, and the rules that need no scorer, on the same donors.

A scorer's choice is its first donor; whether the run took that one, another or none plays no part. Each is judged among donors
of the target's own modality (``own``) and, where donors of the other were candidates too, among all: those of the own
modality first, as the broker ranks them (``own-first``), and by score alone (``all``), which shows whether scores of different
modalities compare.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from server.transfer_facts import Facts, Truth, gains, judge, mean
from strategies.selection.ranking import inside_first
from strategies.selection.rules import best_on_average_rank, oracle_rank

AVERAGE, SAME, RANDOM, NEVER, ORACLE = "best-on-average", "same-modality-random", "random", "none", "oracle"
RULES = (AVERAGE, SAME, RANDOM, NEVER, ORACLE)
"""In the order of the table. ``none`` never takes a donor."""


@dataclass(frozen=True)
class Choice:
    """What a scorer or rule would have chosen for one target. None: not measured, or not defined.

    Attributes:
        client: partition id of the target.
        donor: the choice; None: no donor, or a mean over random ones.
        rank: among the measured, none among them; of random rules the mean over all choices.
        regret: points that the best of them is better, likewise.
        gain: points over no donor, likewise.
        kendall: tau-b of the ranking and the measured accuracies; of random rules the mean over all orders.
        sibling: 1 if the choice is a sibling, else 0; of random rules their share; None: the target has none.
    """

    client: int
    donor: int | None
    rank: float | None
    regret: float | None
    gain: float | None
    kendall: float | None
    sibling: float | None


def lines(facts: Facts, first: str = "") -> list[dict[str, Any]]:
    """Return a line for each scorer and rule that chose for some target: means over targets, and the choices.

    Args:
        facts: of the run.
        first: the scorer to begin with.
    """
    names = {name for donors in facts.scores.values() for scores in donors.values() for name in scores} - set(RULES)
    ordered = sorted(names, key=lambda name: (name != first, name))
    targets = sorted({*facts.scores, *facts.truth, *(event["client"] for event in facts.routing)})
    own, everyone = ({target: scope(facts, target, where) for target in targets} for where in ("own", "all"))
    table = [_line(name, "own", by_score(facts, name, own)) for name in ordered]
    table += [_line(name, "own", by_rule(facts, name, own)) for name in RULES if name != RANDOM]
    if own != everyone:
        across = [name for name in ordered if _is_across(facts, name)]
        table += [_line(name, "own-first", by_score(facts, name, everyone)) for name in across]
        table += [_line(name, "all", by_score(facts, name, everyone, by_score_alone=True)) for name in across]
        table += [_line(name, "all", by_rule(facts, name, everyone)) for name in RULES]
    return [line for line in table if line["targets"]]


def scope(facts: Facts, target: int, among: str) -> set[int]:
    """Return the candidates of a target in its ``own`` modality, or ``all``."""
    everyone = facts.candidates(target)
    return {donor for donor in everyone if among == "all" or facts.modality[donor] == facts.modality[target]}


def by_score(facts: Facts, name: str, inside: Mapping[int, Collection[int]], by_score_alone: bool = False) -> list[Choice]:
    """Return a scorer's choices for the targets where it scored a donor: the own modality first, or by score alone."""
    found = []
    for target, donors in inside.items():
        scored = facts.scores.get(target, {})
        scores = {donor: scored[donor][name] for donor in donors if name in scored.get(donor, {})}
        if scores:
            ranked = inside_first(scores, target, scope(facts, target, "own"), calibrated=by_score_alone)
            found.append(_choice(facts, target, ranked, donors))
    return found


def by_rule(facts: Facts, name: str, inside: Mapping[int, Collection[int]]) -> list[Choice]:
    """Return a rule's choices; those that look at measured accuracies choose only where there are some."""
    known = {pair: gain for pair, gain in gains(facts).items() if pair[0] in inside.get(pair[1], ())}
    found = []
    for target, donors in inside.items():
        measured = _within(facts, target, donors)
        if name in (SAME, RANDOM):
            if donors:
                found.append(_at_random(facts, target, donors, measured, same=name == SAME))
        elif name == NEVER and None in measured:
            found.append(_choice(facts, target, [], donors))
        elif name == ORACLE and set(measured) - {None}:
            accuracies = {donor: value for donor, value in measured.items() if donor is not None}
            found.append(_choice(facts, target, oracle_rank(target, accuracies), donors))
        elif name == AVERAGE:
            elsewhere = {donor for donor, other in known if other != target}
            ranked = [donor for donor in best_on_average_rank(target, known) if donor in elsewhere and donor in donors]
            if ranked:
                found.append(_choice(facts, target, ranked, donors))
    return found


def _choice(facts: Facts, target: int, ranked: Sequence[int], donors: Collection[int]) -> Choice:
    """Judge the first of a ranking; an empty one takes no donor."""
    first, siblings = (ranked[0] if ranked else None), facts.siblings(target)
    found = judge(ranked, first, _within(facts, target, donors))
    return Choice(
        client=target,
        donor=first,
        rank=found.rank if found else None,
        regret=found.regret if found else None,
        gain=found.gain if found else None,
        kendall=found.kendall if found else None,
        sibling=float(first in siblings) if siblings else None,
    )


def _at_random(facts: Facts, target: int, donors: Collection[int], measured: Truth, same: bool) -> Choice:
    """Return the mean over all orders that the rule may draw: exactly what its draws would come to, without their noise."""
    own = {donor for donor in donors if facts.modality[donor] == facts.modality[target]}
    drawn = own if same and own else set(donors)
    each = [found for donor in sorted(drawn) if (found := judge([], donor, measured)) is not None]
    siblings = facts.siblings(target)
    blocks = [drawn, set(donors) - drawn]
    return Choice(
        client=target,
        donor=None,
        rank=mean(one.rank for one in each),
        regret=mean(one.regret for one in each),
        gain=mean(one.gain for one in each),
        kendall=expected_tau(blocks, measured),
        sibling=len(siblings & drawn) / len(drawn) if siblings else None,
    )


def expected_tau(blocks: Sequence[Collection[int]], truth: Mapping[int | None, float]) -> float | None:
    """Return the mean tau-b of all rankings that keep the order of the blocks; None if all accuracies are equal.

    Pairs inside a block are as often right as wrong, so only pairs across blocks count.

    Args:
        blocks: donors that are equal to a rule, the preferred block first.
        truth: measured accuracy by donor; donors without are passed over.
    """
    known = [[truth[donor] for donor in block if donor in truth] for block in blocks]
    values = [value for block in known for value in block]
    number = math.comb(len(values), 2)
    ties = sum(math.comb(values.count(value), 2) for value in set(values))
    if number == ties:
        return None
    right = sum(
        (value > other) - (value < other)
        for place, block in enumerate(known)
        for later in known[place + 1 :]
        for value in block
        for other in later
    )
    return right / math.sqrt(number * (number - ties))


def _within(facts: Facts, target: int, donors: Collection[int]) -> Truth:
    return {donor: value for donor, value in facts.truth.get(target, {}).items() if donor is None or donor in donors}


def _is_across(facts: Facts, name: str) -> bool:
    """Say whether a scorer has scored donors of the other modality."""
    return any(
        name in scores and facts.modality[donor] != facts.modality[target]
        for target, donors in facts.scores.items()
        for donor, scores in donors.items()
    )


def _line(name: str, among: str, choices: Sequence[Choice]) -> dict[str, Any]:
    siblings = [one.sibling for one in choices if one.sibling is not None]
    return {
        "scorer": name,
        "among": among,
        "targets": len(choices),
        **{what: mean(getattr(one, what) for one in choices) for what in ("rank", "regret", "gain", "kendall")},
        "siblings": statistics.fmean(siblings) if siblings else None,
        "choices": [asdict(one) for one in choices],
    }
