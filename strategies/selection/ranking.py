"""From scores to a choice, and how good the choice was."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau, spearmanr

TIE = 2.0
"""Bootstrap standard deviations that the best candidate must lead by. 2 rather than 1.64 (5 % on one side), because the two
are picked for their scores, and pairs that share a probe are not independent: both make the bootstrap too sure. A tie costs
only a closer look at both."""


def order(scores: Mapping[int, float], target: int) -> list[int]:
    """Donors, best first, without the target itself.

    Equal scores are ordered by partition id; scores that are not finite come last.

    >>> order({3: 0.5, 1: 0.5, 2: 0.9, 4: math.nan, 0: 1.0}, target=0)
    [2, 1, 3, 4]

    Args:
        scores: by partition id, larger is better; comparable with one another, see `inside_first`.
        target: partition id.
    """
    return inside_first(scores, target, scores)


def inside_first(scores: Mapping[int, float], target: int, inside: Collection[int], calibrated: bool = False) -> list[int]:
    """Donors of the target's modality, best first, then those of others, best first.

    A candidate of another modality works with the target's own adapter and so looks alike to the target whatever its backbone
    is: scores compare inside a modality only, until adapters were calibrated on the target's data. Scores that are not finite
    come last of all.

    Args:
        scores: by partition id, larger is better.
        target: partition id.
        inside: partition ids of the target's modality.
        calibrated: all candidates were calibrated, and are ordered by score alone.
    """

    def place(donor: int) -> tuple[bool, bool, float, int]:
        known = math.isfinite(scores[donor])
        return not known, not calibrated and donor not in inside, -scores[donor] if known else 0.0, donor

    return sorted((donor for donor in scores if donor != target), key=place)


def abstain(ranked: Sequence[int], accuracies: Mapping[int, float], none: float, margin: float = 0.0) -> list[int]:
    """Drop the donors that do no better than no donor in the same short test; an empty list means: take none.

    The candidate `none` is the target's training from scratch, with as many steps and on the same validation split as each
    donor's. It wins a draw, since it costs no traffic.

    Args:
        ranked: donors, best first.
        accuracies: validation accuracy after the short training, by donor. Donors that were not tested are dropped.
        none: validation accuracy after the short training without a donor.
        margin: by how much a donor must be better, in accuracy. The best of many tested donors is partly lucky: more than 0
            guards against it.

    Returns:
        The donors that remain, in the order given.

    Raises:
        ValueError: `none` is not finite: there is nothing to compare with.
    """
    if not math.isfinite(none):
        raise ValueError(f"validation accuracy without a donor: found {none}, expected a finite number")
    return [donor for donor in ranked if accuracies.get(donor, math.nan) > none + margin]


def is_tie(gap: float, first: Sequence[float], second: Sequence[float]) -> bool:
    """Say whether two scores are too close to tell which is larger: gap <= TIE standard deviations of the gap.

    >>> is_tie(0.1, [0.5, 0.6, 0.7], [0.4, 0.5, 0.6]), is_tie(0.1, [0.5, 0.6, 0.7], [0.7, 0.6, 0.5])
    (False, True)

    Args:
        gap: between the two scores on all pairs, >= 0.
        first: the larger one on resampled pairs.
        second: the smaller one on the same resamples.
    """
    return gap <= TIE * float(np.std(np.subtract(first, second), ddof=1))


@dataclass(frozen=True)
class Quality:
    """How good a ranking and the choice made from it were.

    Attributes:
        rank: of the choice: 1 and the number of candidates measured better.
        regret: accuracy of the best candidate less that of the choice, >= 0.
        gain: accuracy of the choice less that without a donor; None if the latter was not measured.
        kendall: tau-b between the ranking and the measured accuracies, in [-1, 1]; None if undefined, with fewer than two
            donors or all of them equal.
        spearman: rank correlation of the same, None likewise.
    """

    rank: int
    regret: float
    gain: float | None
    kendall: float | None
    spearman: float | None


def quality(ranked: Sequence[int], chosen: int | None, truth: Mapping[int | None, float]) -> Quality:
    """Compare a ranking and a choice with what was measured.

    Args:
        ranked: all donors, best first, the target not among them.
        chosen: partition id; None for no donor.
        truth: measured accuracy by donor, and under None without a donor, where that was measured; it then is a candidate
            like the others for rank and regret, not for the correlations.

    Raises:
        ValueError: the choice or a ranked donor was not measured, or a measurement is not finite.
    """
    lacking = [donor for donor in (chosen, *ranked) if not math.isfinite(truth.get(donor, math.nan))]
    if lacking:
        raise ValueError(f"measured accuracy of {lacking}: found none, or one that is not finite")
    candidates = [truth[donor] for donor in {*ranked, chosen, *((None,) if None in truth else ())}]
    measured = [truth[donor] for donor in ranked]
    kendall = spearman = None
    if len(set(measured)) > 1:
        preferred = range(len(ranked), 0, -1)
        kendall = float(kendalltau(preferred, measured).statistic)
        spearman = float(spearmanr(preferred, measured).statistic)
    return Quality(
        rank=1 + sum(accuracy > truth[chosen] for accuracy in candidates),
        regret=max(candidates) - truth[chosen],
        gain=truth[chosen] - truth[None] if None in truth else None,
        kendall=kendall,
        spearman=spearman,
    )
