"""The low-rank projection of the tokens: E^T X with E = Phi C, a fixed cosine basis Phi and a learned mixing matrix C.

Shapes: B batch, N tokens, D channels, R basis functions, K rows of the projection.

Linformer (Wang et al. 2020, arXiv 2006.04768) learns a dense E (N x k), whose shape depends on the length of the input. Here
column r of Phi is a cosine on token coordinates (n + 1/2) / N in (0, 1), so that C (R x k) has one shape for every length and
modality, and can be averaged between image and text clients.
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


def project(x_BND: Tensor, mix_RK: Tensor, mask_BN: Tensor | None, grid: Grid) -> Tensor:
    """E^T X as C^T (Phi^T X), which never builds the N x k matrix E.

    Args:
        x_BND: normalised tokens.
        mix_RK: the learned mixing matrix C.
        mask_BN: True where a token is real, or None if all are; a masked input is a sequence.
        grid: layout of the N tokens.

    Returns:
        Shape (B, K, D).
    """
    B, R = len(x_BND), len(mix_RK)
    if mask_BN is None:
        basis_BRN = cosine_basis(grid, R, x_BND.dtype, x_BND.device).expand(B, -1, -1)
    else:
        basis_BRN = masked_basis(mask_BN, R, x_BND.dtype).transpose(1, 2)
    # bmm on expanded views: matmul of a matrix with a batch would return transposed memory, slow in all that follows.
    return torch.bmm(mix_RK.T.expand(B, -1, -1), torch.bmm(basis_BRN, x_BND))
