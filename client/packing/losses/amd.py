"""AMD: angular margin distillation of where activity is.

For latents Z (N positions, D channels) of one sample

    a_n = sum_d z_nd^2,   Q_p = a / |a|_2 (a point of the sphere: each entry is a cosine),   Q_n = 1 - Q_p
    G = log( e^(s cos(m acos Q_p)) / (e^(s cos(m acos Q_p)) + e^(s Q_n)) )
    L = 1/3 ( |Ĝ_T - Ĝ_S|^2 + |Q̂p_T - Q̂p_S|^2 + |Q̂n_T - Q̂n_S|^2 )

with s = 64, m = 1.35, Q̂p of s cos(m acos Q_p), and hats for division by the norm over positions. G is computed as
-softplus(s Q_n - s cos(m acos Q_p)), the same number without an exponential that overflows.

Norms are sums over positions, as in the paper. Its released code takes the mean, so that its weight of 5000 is 5000 / N here:
5 to 80 on the maps it was tuned for. Rotated channels leave the loss as it is, permuted positions do not.

Source: Jeon, Choi, Shukla & Turaga, "Leveraging Angular Distributions for Improved Knowledge Distillation", Neurocomputing 518
(2023), Eq. 7 (global) and Eq. 9 (local).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SCALE, MARGIN = 64.0, 1.35
PARTS = 4


def amd(student_BND: Tensor, teacher_BNE: Tensor, scale: float = SCALE, margin: float = MARGIN) -> Tensor:
    """Return the global loss of each sample, (B,), in [0, 4].

    Args:
        student_BND: latents of a stage, or a map's places as rows.
        teacher_BNE: as many rows, of any width.
        scale: s of the paper.
        margin: m of the paper, >= 1.
    """
    pairs = zip(_angles(student_BND, scale, margin), _angles(teacher_BNE, scale, margin), strict=True)
    return torch.stack([(own - other).square().sum(dim=-1) for own, other in pairs]).mean(dim=0)


def amd_local(student_BND: Tensor, teacher_BNE: Tensor, grid: tuple[int, ...] = ()) -> Tensor:
    """Return the mean loss of the four parts of a map, (B,): its quadrants, or quarters of the rows where it is no map.

    Args:
        student_BND: see :func:`amd`.
        teacher_BNE: see there.
        grid: height and width of the map whose places are the rows, in row order; empty: it is none.
    """
    parts = quarters(student_BND.shape[1], grid)
    return torch.stack([amd(student_BND[:, rows], teacher_BNE[:, rows]) for rows in parts]).mean(dim=0)


def quarters(rows: int, grid: tuple[int, ...] = ()) -> list[Tensor]:
    """Return the row numbers of each of four parts; of a map of 2 x 2 places or more its quadrants.

    >>> [part.tolist() for part in quarters(8)], [part.tolist() for part in quarters(8, (2, 4))]
    ([[0, 1], [2, 3], [4, 5], [6, 7]], [[0, 1], [2, 3], [4, 5], [6, 7]])
    >>> [part.tolist() for part in quarters(8, (4, 2))]
    [[0, 2], [1, 3], [4, 6], [5, 7]]
    """
    index = torch.arange(rows)
    if len(grid) != 2 or min(grid) < 2:
        return list(torch.tensor_split(index, PARTS))
    halves = torch.tensor_split(index.view(grid), 2, dim=0)
    return [part.flatten() for half in halves for part in torch.tensor_split(half, 2, dim=1)]


def _angles(latents_BND: Tensor, scale: float, margin: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return Ĝ, Q̂p and Q̂n, each (B,N); in float32 at least, as 1 - 1e-7 is 1 in bfloat16."""
    x_BND = latents_BND.to(torch.promote_types(latents_BND.dtype, torch.float32))
    q_BN = F.normalize(x_BND.square().sum(dim=-1), dim=-1)
    positive = scale * torch.cos(margin * torch.acos(q_BN.clamp(-1 + 1e-7, 1 - 1e-7)))
    negative = scale * (1 - q_BN)
    margins = F.logsigmoid(positive - negative)  # -softplus(negative - positive), without the threshold of F.softplus
    return F.normalize(margins, dim=-1), F.normalize(positive, dim=-1), F.normalize(negative, dim=-1)
