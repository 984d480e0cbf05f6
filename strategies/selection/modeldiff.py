"""ModelDiff: two models are alike where they find the same pairs of probes far apart.

    DDV_f[i]  = 1 - cos(f(x_i), f(x'_i))        decision distance vector over the p pairs
    score     = cos(DDV_target, DDV_candidate)  in [0, 1], 1 for the target itself

A DDV has one entry for each pair whatever the width of the output, so that models with different heads can be compared. No
labels are used.

Where we differ: by default f is the mean latent, centred over the probes, so that the head plays no part (`score`); the paper
takes the logits as they are (`score_logits`). Which probes are paired is the caller's: the paper pairs a probe with an
adversarial one, we have drawn pairs at random.

A model that answers all probes alike has a DDV of zeros and scores 0, below every other.

Source: Li et al., "ModelDiff: Testing-Based DNN Similarity Comparison for Model Reuse Detection", ISSTA 2021, section 3.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from strategies.selection.features import centred, exact
from strategies.selection.scorer import Candidate, Outputs, Target

RESAMPLES = 200


def score(target: Target, candidate: Candidate) -> float:
    """Similarity of the DDVs on the features."""
    return similarity(ddv_features(target.own, target.pairs), ddv_features(candidate.outputs, target.pairs))


def score_logits(target: Target, candidate: Candidate) -> float:
    """Similarity of the DDVs on the logits of each model's own head."""
    return similarity(ddv_logits(target.own, target.pairs), ddv_logits(candidate.outputs, target.pairs))


def ddv_features(outputs: Outputs, pairs: Tensor) -> Tensor:
    """DDV of centred features, which moving, scaling and rotating them leaves as it is; float64 (p,)."""
    return ddv(centred(outputs.features), pairs)


def ddv_logits(outputs: Outputs, pairs: Tensor) -> Tensor:
    """DDV of logits, which scaling and rotating them leaves as it is; float64 (p,)."""
    return ddv(outputs.logits, pairs)


def ddv(outputs: Tensor, pairs: Tensor) -> Tensor:
    """Cosine distance between the outputs on the two probes of each pair.

    Two rows of zeros are alike, at distance 0; a row of zeros is at distance 1 from any other.

    >>> ddv(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), torch.tensor([[0, 1], [0, 2]])).tolist()
    [1.0, 2.0]

    Args:
        outputs: of a model on the probes, (n, any).
        pairs: places of the two probes of each pair, int64 (p, 2).

    Returns:
        In [0, 2], float64 (p,).
    """
    unit = F.normalize(exact(outputs), dim=1, eps=1e-300)
    first, second = unit[pairs.cpu()].unbind(1)
    alike = (first == second).all(1)
    return torch.where(alike, 0.0, (1 - (first * second).sum(1)).clamp(0, 2))


def similarity(a: Tensor, b: Tensor) -> float:
    """Cosine of two DDVs, in [0, 1]; 0 if one is all zeros.

    >>> round(similarity(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0])), 6)
    0.8
    """
    a, b = exact(a), exact(b)
    length = float(a.norm() * b.norm())
    return min(1.0, float(a @ b) / length) if length > 0 else 0.0


def resampled(target: Target, candidate: Candidate) -> list[float]:
    """Score a candidate on RESAMPLES resamples of the pairs, the same ones for all candidates of a target.

    Raises:
        ValueError: there is no pair.
    """
    p = len(target.pairs)
    if not p:
        raise ValueError("found no pairs of probes, expected at least one")
    rng = np.random.default_rng(target.seed)
    times_RP = torch.from_numpy(rng.multinomial(p, np.full(p, 1 / p), size=RESAMPLES)).double()
    own_P, other_P = (ddv_features(outputs, target.pairs) for outputs in (target.own, candidate.outputs))
    length_R = ((times_RP @ own_P**2) * (times_RP @ other_P**2)).sqrt()
    dot_R = times_RP @ (own_P * other_P)
    found: list[float] = torch.where(length_R > 0, dot_R / length_R.where(length_R > 0, 1.0), 0.0).clamp(max=1.0).tolist()
    return found
