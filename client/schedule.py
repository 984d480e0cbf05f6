"""Schedules over the whole run, so that a round continues where the last one ended."""

from __future__ import annotations

import math
from collections.abc import Iterable

from config import Model, Train, ascending_shares


def learning_rate(train: Train, step: int, total_steps: int) -> float:
    """Return the learning rate of a step.

    ``cosine``: linear warm-up over ``warmup`` of the steps, then half a cosine to 0 (Loshchilov & Hutter, ICLR 2017, without
    restarts). ``one-cycle``: see :func:`one_cycle`. ``constant``: warm-up, then the peak. ``steps``: the same, times
    ``milestone_factor`` at each of the milestones.

    Args:
        train: peak rate, schedule and warm-up.
        step: steps done before this one, from 0.
        total_steps: steps of the whole run, >= 1.
    """
    progress = min(1.0, (step + 1) / total_steps)
    if train.schedule == "one-cycle":
        return train.learning_rate * one_cycle(progress)
    if progress < train.warmup:
        return train.learning_rate * progress / train.warmup
    if train.schedule == "constant":
        return train.learning_rate
    if train.schedule == "steps":
        return train.learning_rate * train.milestone_factor ** passed(ascending_shares(train.milestones), step, total_steps)
    return train.learning_rate * _cosine(1.0, 0.0, (step / total_steps - train.warmup) / (1 - train.warmup))


def one_cycle(progress: float) -> float:
    """Return the rate of one cycle in units of its peak.

    Half a cosine up over the first 30 %, from 1/25 of the peak, and half a cosine down to 1/10⁴ of the start.

    Args:
        progress: share of the steps that are done with the one that is asked for, in (0, 1].

    >>> one_cycle(0.3)
    1.0

    Source: Smith & Topin, "Super-Convergence", 2018.
    """
    start, end = 1 / 25, 1 / 25e4
    return _cosine(start, 1.0, progress / 0.3) if progress <= 0.3 else _cosine(1.0, end, (progress - 0.3) / 0.7)


def passed(milestones: Iterable[float], step: int, total_steps: int) -> int:
    """Return how many milestones a step has reached.

    Args:
        milestones: shares of all steps.
        step: steps done before this one, from 0.
        total_steps: all steps, >= 1.

    >>> [passed((0.5, 0.8), step, 10) for step in (4, 5, 7, 8)]
    [0, 1, 1, 2]
    """
    return sum(step >= share * total_steps - 1e-9 for share in milestones)  # 0.55 * 100 is above 55


def column_price(model: Model, step: int, total_steps: int) -> float:
    """Return λ of a step, what an open column costs: nothing in the first ``k_warmup`` of the steps, then ``k_penalty``."""
    return model.k_penalty if model.adaptive_k != "none" and step >= model.k_warmup * total_steps else 0.0


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, max(0.0, share)))) / 2
