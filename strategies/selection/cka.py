"""Linear CKA: how far the features of two models arrange the probes alike.

    score = |Y'X|^2 / (|X'X| |Y'Y|)     Frobenius norms; X, Y features of target and candidate, centred over the probes

In [0, 1]: 1 for features equal up to rotation, scale and shift. With fewer probes than features it is biased upwards, alike
for candidates of one width. No labels are used. A model that answers all probes alike scores 0.

Source: Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019, section 3 (linear kernel).
"""

from __future__ import annotations

from strategies.selection.features import centred
from strategies.selection.scorer import Candidate, Target


def score(target: Target, candidate: Candidate) -> float:
    """Linear CKA of the features."""
    own, other = centred(target.own.features), centred(candidate.outputs.features)
    length = float((own.T @ own).norm() * (other.T @ other).norm())
    return min(1.0, float((other.T @ own).square().sum()) / length) if length > 0 else 0.0
