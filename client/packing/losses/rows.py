"""Losses that compare latents row by row: cosine and mean squared error of normalised rows.

Both need the rows to mean the same in student and teacher, and channels of one width, which a learned linear map makes
(client/packing/projectors.py). Neither is invariant: permuted rows or rotated channels count as different.

Shapes: B batch, N latents, D channels.

Sources: cosine per stage, Back-Pack's proposal; normalised features behind one linear projector, Miles & Mikolajczyk,
"Understanding the Role of the Projector in Knowledge Distillation", AAAI 2024, with a mean of squares for its log-sum.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def cosine(student_BND: Tensor, teacher_BND: Tensor) -> Tensor:
    """Mean over rows of 1 - cos, (B,), in [0, 2]."""
    return (1 - F.cosine_similarity(student_BND, teacher_BND, dim=-1)).mean(dim=-1)


def mse(student_BND: Tensor, teacher_BND: Tensor) -> Tensor:
    """Mean square of the difference of rows with mean 0 and variance 1 over their channels (LayerNorm), (B,), >= 0."""
    D = student_BND.shape[-1:]
    return (F.layer_norm(student_BND, D) - F.layer_norm(teacher_BND, D)).square().mean(dim=(1, 2))


def mse_batch(student_BND: Tensor, teacher_BND: Tensor) -> Tensor:
    """Mean square of the difference of channels with mean 0 and variance 1 over the batch and its rows (BatchNorm), (B,)."""
    return (_batch_norm(student_BND) - _batch_norm(teacher_BND)).square().mean(dim=(1, 2))


def _batch_norm(x_BND: Tensor) -> Tensor:
    variance, mean = x_BND.var(dim=(0, 1), correction=0), x_BND.mean(dim=(0, 1))
    return (x_BND - mean) * (variance + 1e-5).rsqrt()
