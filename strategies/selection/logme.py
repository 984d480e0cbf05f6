"""LogME: the evidence of a Bayesian linear model of the labels, given the features.

For each class with its 0/1 labels y, weights w ~ N(0, I / alpha) and y ~ N(X w, I / beta):

    score = mean over classes of max over alpha, beta of  log p(y | X, alpha, beta) / n

The maximum is sought by the paper's fixed point, alpha = gamma / |m|^2 and beta = (n - gamma) / |X m - y|^2, in the basis of
the singular vectors of X. Only t = alpha / beta has to be iterated: given t the best beta is n / (|X m - y|^2 + t |m|^2), and
the evidence needs no determinant of a matrix that is singular where n < F.

Rotating or scaling the features leaves the score as it is. Like the paper we do not centre them.

Where we differ: classes without a probe are left out, since the evidence of a constant 0 has no bound; and neither has that of
labels that the features give exactly, so the mean square error is taken as at least FLOOR. With one class there is nothing to
tell apart, and the score is 0. Features that are all zero score by the frequencies of the classes alone.

Source: You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", ICML 2021, section 4.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from strategies.selection.features import ROUNDING, exact, relabelled
from strategies.selection.scorer import Candidate, Target

FLOOR = 1e-6
ITERATIONS = 50
BOUNDS = (1e-8, 1e8)
"""Of t, in units of the largest squared singular value: features taken at their word, and not at all."""


def score(target: Target, candidate: Candidate) -> float:
    """Mean log evidence of the classes, for each probe."""
    targets = F.one_hot(relabelled(target.labels)).double()
    if targets.shape[1] < 2:
        return 0.0
    return float(log_evidence(exact(candidate.outputs.features), targets).mean())


def log_evidence(features: Tensor, targets: Tensor) -> Tensor:
    """Largest log evidence of each column of targets, divided by n.

    Args:
        features: float64 (n, F).
        targets: float64 (n, C), no column all zero.

    Returns:
        Float64 (C,).
    """
    n = len(features)
    left, singular, _ = torch.linalg.svd(features, full_matrices=False)
    kept = singular > ROUNDING * singular.max()
    squares = (singular[kept] / singular.max()).square()[:, None]
    along = (left[:, kept].T @ targets).square()  # squared length of y along each singular vector, (r, C)
    outside = (targets.square().sum(0) - along.sum(0)).clamp(min=0)
    best = torch.full_like(outside, -math.inf)
    t = torch.ones_like(outside)
    for _ in range(ITERATIONS):
        used = squares / (squares + t)
        gamma = used.sum(0)
        error = ((1 - used).square() * along).sum(0) + outside
        weights = (used.square() * along / squares).sum(0)
        variance = ((error + t * weights) / n).clamp(min=FLOOR)
        best = torch.maximum(best, -0.5 * ((2 * math.pi * variance).log() + 1 - (1 - used).log().sum(0) / n))
        before, t = t, (gamma * error / (weights * (n - gamma)).clamp(min=1e-300)).clamp(*BOUNDS)
        if torch.allclose(t, before, rtol=1e-3, atol=0):
            break
    return best
