"""Losses that compare which samples of a batch are alike: SP and CKA. They take any number of rows and channels.

Both see a stage as one vector for each sample, F (B, N D), through its products F F^T (B, B) alone: permuted latents and
rotated channels leave them as they are. They are losses of a batch, and a batch of one sample has nothing to compare.

Sources: Tung & Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019; linear CKA, Kornblith et al., ICML
2019, section 3.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def gram(latents_BND: Tensor) -> Tensor:
    """Return the products of all pairs of samples, (B, B)."""
    flat = latents_BND.flatten(1)
    return flat @ flat.T


def sp(student_BND: Tensor, teacher_BME: Tensor) -> Tensor:
    """1/B^2 |S - T|_F^2, where the rows of the products S and T have L2 norm 1; a scalar, >= 0."""
    own, other = F.normalize(gram(student_BND), dim=1), F.normalize(gram(teacher_BME), dim=1)
    return (own - other).square().mean()


def cka(student_BND: Tensor, teacher_BME: Tensor) -> Tensor:
    """1 - CKA with a linear kernel, a scalar in [0, 1]; 0 for one sample.

    CKA = <S, T> / (|S| |T|) of the centred products, in float32 at least.
    """
    if len(student_BND) < 2:
        return student_BND.sum() * 0.0
    own, other = (gram(x - x.mean(dim=0)) for x in (student_BND, teacher_BME))
    return 1 - F.cosine_similarity(own.flatten(), other.flatten(), dim=0)
