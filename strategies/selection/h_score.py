"""H-score with a shrunk covariance: how much of the spread of the features lies between classes.

    score = (1 - a) tr(S_a^-1 B),   S_a = (1 - a) S + a (tr S / F) I

S is the covariance of the features, B that of the class means (each probe stands for its class), and a the shrinkage of Ledoit
and Wolf, which keeps S_a invertible where n < F. In [0, C - 1]; rotating, scaling or moving the features leaves it as it is.
Features that are constant, and probes of one class, score 0.

Source: Bao et al., "An Information-Theoretic Approach to Transferability in Task Transfer Learning", ICIP 2019.
Shrinkage: Ibrahim et al., "Newer is not always better: Rethinking transferability metrics, their
peculiarities, stability and performance", 2021.
The weight a: Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from strategies.selection.features import ROUNDING, centred, relabelled
from strategies.selection.scorer import Candidate, Target


def score(target: Target, candidate: Candidate) -> float:
    """Shrinkage H-score of the features."""
    features = centred(candidate.outputs.features)
    n, width = features.shape
    covariance = features.T @ features / n
    amount = shrinkage(features, covariance)
    shrunk = (1 - amount) * covariance + amount * covariance.trace() / width * torch.eye(width, dtype=features.dtype)
    members = F.one_hot(relabelled(target.labels)).double()
    sums = members.T @ features
    between = sums.T @ (sums / members.sum(0)[:, None]) / n
    inverse = torch.linalg.pinv(shrunk, rtol=ROUNDING**2, hermitian=True)
    return float((1 - amount) * (inverse * between).sum())


def shrinkage(features: Tensor, covariance: Tensor) -> float:
    """Ledoit and Wolf's weight of the multiple of the identity, in [0, 1]; 0 where the covariance is one already.

    Args:
        features: centred, float64 (n, F).
        covariance: features' features / n.
    """
    n, width = features.shape
    mean = covariance.trace() / width
    distance = float(covariance.square().sum() - width * mean**2)
    spread = float(features.square().sum(1).square().mean() - covariance.square().sum()) / n
    if distance <= ROUNDING**2 * float(covariance.square().sum()):
        return 0.0
    return min(1.0, max(0.0, spread) / distance)
