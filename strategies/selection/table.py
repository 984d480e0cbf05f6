"""The scorers by name: a new one is a new file and one line here. The rules that need no outputs are in rules.py."""

from __future__ import annotations

import math

from strategies.selection import cka, few_step, h_score, leep, linear_probe, logme, modeldiff, modeldiff_released
from strategies.selection.scorer import Candidate, Scorer, Target

SCORERS: dict[str, Scorer] = {
    "modeldiff": modeldiff.score,
    "modeldiff-logits": modeldiff.score_logits,
    "modeldiff-released": modeldiff_released.score,
    "modeldiff-released-cosine": modeldiff_released.score_cosine,
    "cka": cka.score,
    "logme": logme.score,
    "h-score": h_score.score,
    "leep": leep.score,
    "linear-probe": linear_probe.score,
    "few-step": few_step.score,
}


def score(name: str, target: Target, candidate: Candidate) -> float:
    """Score a candidate, or give it -inf if it computes NaN or infinity, as a donor does whose training diverged.

    Raises:
        ValueError: no scorer has this name.
    """
    if name not in SCORERS:
        raise ValueError(f"scorer '{name}': expected one of {', '.join(SCORERS)}")
    outputs = candidate.outputs
    if not (outputs.features.isfinite().all() and outputs.logits.isfinite().all()):
        return -math.inf
    return SCORERS[name](target, candidate)
