"""Paired tests, the correction of several p values, and the interval of a share."""

from __future__ import annotations

import math
from collections.abc import Sequence


def wilcoxon_p(differences: Sequence[float]) -> float | None:
    """Return the two-sided p of Wilcoxon's signed-rank test, zeros dropped."""
    from scipy.stats import wilcoxon

    changed = [value for value in differences if value != 0.0]
    return float(wilcoxon(changed).pvalue) if len(changed) > 1 else None


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Return p values corrected for asking m questions: the smallest times m, the next times m − 1, …, never falling.

    >>> holm([0.25, 0.125, None])
    [0.5, 0.375, None]

    Args:
        values: p values, m of them. None is a question whose test could not be had: it counts, and stays None.

    Source: Holm, Scandinavian Journal of Statistics, 1979.
    """
    known = sorted((value, place) for place, value in enumerate(values) if value is not None)
    found: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (value, place) in enumerate(known):
        highest = max(highest, min(1.0, (len(values) - rank) * value))
        found[place] = highest
    return found


def t_test_p(differences: Sequence[float]) -> float | None:
    """Return the two-sided p of Student's t test of paired differences; None: fewer than two, or all equal."""
    from scipy.stats import ttest_1samp

    if len(set(differences)) < 2:
        return None
    value = float(ttest_1samp(list(differences), 0.0).pvalue)
    return value if math.isfinite(value) else None


def interval(hits: int, number: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a share, that of Clopper and Pearson (Biometrika, 1934).

    >>> [round(end, 3) for end in interval(0, 10)]
    [0.0, 0.308]
    """
    from scipy.stats import binomtest

    found = binomtest(hits, number).proportion_ci(0.95, "exact")
    return float(found.low), float(found.high)
