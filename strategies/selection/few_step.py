"""Few steps of fine-tuning: the validation accuracy that a short training on the target's data reaches.

The dearest scorer, and the only one whose scores can be compared with those of the same training without a donor.
"""

from __future__ import annotations

from strategies.selection.scorer import Candidate, Target


def score(target: Target, candidate: Candidate) -> float:
    """Validation accuracy after the candidate's short training."""
    return float(candidate.tune())
