"""Weights of teachers: how much a student listens to each of K, >= 0 and with the sum 1 for every K >= 1.

Published forms of EBKD and CA-MKD are not so: for K = 1 EBKD's weight is 0 and CA-MKD's is not a number, and the released EBKD
sums to K - 1. Here one teacher has weight 1. The largest weight that these two can give is 1/(K - 1), so they can switch a bad
teacher off, and never single a good one out; a softmax can.

Shapes: n samples, K teachers.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def uniform(teachers: int) -> Tensor:
    """Return 1/K for each, (K,)."""
    return torch.full((teachers,), 1 / teachers)


def by_similarity(similarities_K: Tensor, temperature: float) -> Tensor:
    """softmax(similarity / T), (K,): near T = 0 the most similar teacher alone, at large T uniform.

    With ModelDiff's similarity (ISSTA 2021) and T -> 0 this is the choice of one donor in Pick-a-back (ECCV 2024).
    """
    return (similarities_K / temperature).softmax(dim=-1)


def by_cross_entropy(losses_K: Tensor, temperature: float) -> Tensor:
    """softmax(-loss / T), (K,), of the teachers' mean cross-entropies on labelled examples of the target."""
    return (-losses_K / temperature).softmax(dim=-1)


def ebkd(entropies_nK: Tensor) -> Tensor:
    """Entropy-based weights of each sample, w_k = (1 - H_k / sum_j H_j) / (K - 1), (n,K); uniform where all are certain.

    Args:
        entropies_nK: of the teachers' predictions, >= 0, on one scale: see :func:`entropy`.

    Source: Kwon, Na, Lee & Choi, "Adaptive Knowledge Distillation based on Entropy", ICASSP 2020; divided by K - 1.
    """
    total = entropies_nK.sum(dim=-1, keepdim=True)
    shares = torch.where(total > 0, entropies_nK / total.clamp(min=1e-30), 1 / entropies_nK.shape[-1])
    return _others(shares)


def ca_mkd(losses_nK: Tensor) -> Tensor:
    """Confidence-aware weights of each sample, w_k = (1 - softmax_k(cross-entropy)) / (K - 1), (n,K).

    Args:
        losses_nK: cross-entropy of each teacher on each sample.

    Source: Zhang, Chen & Wang, "Confidence-Aware Multi-Teacher Knowledge Distillation", ICASSP 2022.
    """
    return _others(losses_nK.softmax(dim=-1))


def entropy(logits_nC: Tensor) -> Tensor:
    """Entropy of predictions in units of that of C equal ones, (n,), in [0, 1], so that C may differ between teachers."""
    log_p = F.log_softmax(logits_nC, dim=-1)
    return -(log_p.exp() * log_p).sum(dim=-1) / math.log(max(2, logits_nC.shape[-1]))


def effective(weights: Tensor) -> Tensor:
    """Return the effective number of teachers, 1 / sum_k w_k^2, in [1, K], for each row of (…, K)."""
    return 1 / weights.square().sum(dim=-1)


def _others(shares_nK: Tensor) -> Tensor:
    """What is left of 1 for each, scaled to the sum 1; ones for a single teacher."""
    K = shares_nK.shape[-1]
    return torch.ones_like(shares_nK) if K == 1 else (1 - shares_nK) / (K - 1)
