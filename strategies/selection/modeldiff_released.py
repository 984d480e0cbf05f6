"""The donor that the released code of Pick-a-back takes: the one whose DDV is FARTHEST from the target's.

    DDV_f[i] = |f(x_i) - f(x'_i)|               Euclidean, on the logits; a second reading takes cosine distances
    score    = 1 - cos(DDV_target, DDV_candidate)

Kept to reproduce the released behaviour, as a control for `modeldiff`; it says nothing about what the paper means. In the
released code the probes are test images of both tasks, perturbed anew for each pair of models; here they are the target's own,
the same for all candidates.

A model that answers all probes alike has a DDV of zeros, is at distance 1, the largest there is, and so is preferred.

Source: the published code of Pick-a-back (ECCV 2024), as read.
"""

from __future__ import annotations

from torch import Tensor

from strategies.selection.features import exact
from strategies.selection.modeldiff import ddv_logits, similarity
from strategies.selection.scorer import Candidate, Target


def score(target: Target, candidate: Candidate) -> float:
    """Distance of the DDVs made of Euclidean distances, the reading that the released code selects by; in [0, 1]."""
    own, other = (euclidean_ddv(outputs.logits, target.pairs) for outputs in (target.own, candidate.outputs))
    return 1 - similarity(own, other)


def score_cosine(target: Target, candidate: Candidate) -> float:
    """Distance of the DDVs made of cosine distances, the reading that the released code prints; in [0, 1]."""
    return 1 - similarity(ddv_logits(target.own, target.pairs), ddv_logits(candidate.outputs, target.pairs))


def euclidean_ddv(outputs: Tensor, pairs: Tensor) -> Tensor:
    """Euclidean distance between the outputs on the two probes of each pair, float64 (p,)."""
    first, second = exact(outputs)[pairs.cpu()].unbind(1)
    return (first - second).square().sum(1).sqrt()
