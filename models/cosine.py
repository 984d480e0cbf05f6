"""The fixed cosine basis Phi of the low-rank projection: any length, any grid, any padding.

Shapes: B batch, N tokens, R basis functions. Column r of Phi is a cosine on token coordinates (n + 1/2) / N in (0, 1).
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

Grid = tuple[int, ...]


def cosine(coordinates: Tensor, lengths: Tensor, frequencies: Tensor) -> Tensor:
    """DCT-II basis functions s_f cos(pi f x), s_f = sqrt((2 - [f = 0]) / length), so that columns are orthonormal.

    A frequency of ``length`` or more cannot be told from a lower one on so few tokens: its column is zero.

    Args:
        coordinates: (n + 1/2) / length of each token, shape (…, N).
        lengths: tokens of the sequence, shape (…, 1).
        frequencies: half periods over the sequence, integers, shape (R,).

    Returns:
        Shape (…, N, R).
    """
    energy = (1 + (frequencies > 0)) * (frequencies < lengths[..., None])
    scale = (energy / lengths[..., None].to(coordinates.dtype)).sqrt()
    return scale * torch.cos(math.pi * coordinates[..., None] * frequencies)


def axis(length: int, frequencies: Tensor) -> Tensor:
    """One axis of the basis, float64, shape (length, R)."""
    coordinates = (torch.arange(length, dtype=torch.float64) + 0.5) / length
    return cosine(coordinates, torch.tensor([length]), frequencies)


def frequency_order(rank: int) -> list[tuple[int, int]]:
    """The first ``rank`` frequency pairs (u, v) by u^2 + v^2, then by u; the same for every grid.

    >>> frequency_order(4)
    [(0, 0), (0, 1), (1, 0), (1, 1)]
    """
    side = range(2 * math.isqrt(rank) + 2)
    return sorted(((u, v) for u in side for v in side), key=lambda pair: (pair[0] ** 2 + pair[1] ** 2, pair))[:rank]


@lru_cache(maxsize=64)
def cosine_basis(grid: Grid, rank: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Phi^T of one grid, cached: do not write to it.

    Args:
        grid: (N,) for a sequence, (height, width) for an image whose tokens are in row order.
        rank: rows R, from the lowest frequency upwards.

    Returns:
        Shape (R, N); rows are orthonormal, or zero where the grid has too few tokens for the frequency.
    """
    # A tensor made in inference mode could not take part in a later training step.
    with torch.inference_mode(False):
        if len(grid) == 1:
            basis = axis(grid[0], torch.arange(rank))
        else:
            rows, columns = torch.tensor(frequency_order(rank)).T
            basis = (axis(grid[0], rows)[:, None] * axis(grid[1], columns)[None]).flatten(0, 1)
        return basis.T.contiguous().to(device=device, dtype=dtype)


def masked_basis(mask_BN: Tensor, rank: int, dtype: torch.dtype) -> Tensor:
    """Phi of sequences of different lengths in one padded batch: row n of a sample is what it is without the padding.

    Args:
        mask_BN: True where a token is real; real tokens need not be at the front.
        rank: columns R.

    Returns:
        Shape (B, N, R), zero at padding.
    """
    lengths_B1 = mask_BN.sum(dim=1, keepdim=True).clamp(min=1)
    # Not in bfloat16: its 8 bits do not hold the phase of a cosine of many periods.
    coordinates_BN = (mask_BN.cumsum(dim=1) - 0.5).to(torch.promote_types(dtype, torch.float32)) / lengths_B1
    return (cosine(coordinates_BN, lengths_B1, torch.arange(rank, device=mask_BN.device)) * mask_BN[..., None]).to(dtype)
