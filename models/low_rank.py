"""Low-rank projections: attention reads k rows instead of the N tokens (or M latents) it was given.

==============  ====================================================================  ==================  ==========
form            keys and values                                                       weights             lengths
==============  ====================================================================  ==================  ==========
``basis``       to_kv(E^T X), E = Phi C: fixed cosines Phi (N x R), learned C (R x k)  R k                 any
``dense``       E^T (X W_k), F^T (X W_v), as in Linformer                              2 N k, see below    up to N
``dense-before``  to_kv(E^T X), one E for keys, values and heads                       N k                 up to N
``pool``        to_kv of the means of k equal parts                                    0                   any
==============  ====================================================================  ==================  ==========

Shapes: B batch, N tokens, D channels, R basis functions, K rows of the projection, H heads, I inner width (heads x channels).

Sources: ``dense`` is Linformer (Wang et al. 2020, arXiv 2006.04768), Eq. 7, with the sharing of its section 4: none (E and F
for each head), headwise (one E, one F), key-value (E = F), layerwise (E = F, one for all blocks of the latent stack; encoder
and decoder have their own, as their inputs have other lengths and owners). ``dense-before`` uses E^T (X W) = (E^T X) W, which
needs no to_kv of the tokens. ``pool`` is one of its "general projections". The learned part of ``basis`` has one shape
for every length and modality, so that image and text clients can average it.

Every form takes padded batches: a sample gives the same rows with and without padding. Rows keep the variance of the tokens:
columns of Phi have norm 1, and a dense E cut to n < N tokens is scaled by sqrt(N / n).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.cosine import Grid, axis, cosine_basis, masked_basis

Form = Literal["none", "basis", "dense", "dense-before", "pool"]
Sharing = Literal["none", "headwise", "key-value", "layerwise"]
ToKeysValues = Callable[[Tensor], Tensor]


def mixing_matrix(rank: int) -> Tensor:
    """Initial C (R x K): the inverse cosine transform, which makes the K rows of E^T X local in a sequence.

    Row k then is the sequence resampled at (k + 1/2) / K of its length, and the sequence itself if N = K. With the identity
    each row would be one frequency over all tokens, from which attention, being a positive mixture, cannot pick a word.
    """
    return axis(rank, torch.arange(rank)).T.float().contiguous()


def pyramid(rank: int, top: int = 1) -> Tensor:
    """Initial C (R x K) for a gate that closes the last columns: any first k of them see the whole sequence, only coarser.

    Levels of ``top``, 2 top, 4 top, … columns follow one another until there are K. A level of n columns is
    :func:`mixing_matrix` of the n lowest frequencies: the sequence resampled at n places. The columns of a level lie in the
    order of :func:`spread_order`. A prefix of the columns of one fine level would see every word narrowly or not at all.

    Args:
        rank: R = K.
        top: columns of the coarsest level.
    """
    columns: list[Tensor] = []
    while len(columns) < rank:
        level = min(top, rank)
        places = F.pad(mixing_matrix(level), (0, 0, 0, rank - level)).unbind(dim=1)
        columns += [places[place] for place in spread_order(level)]
        top *= 2
    return torch.stack(columns[:rank], dim=1)


def spread_order(count: int) -> list[int]:
    """Order the places 0 … count-1 so that every beginning of the list is spread evenly: the van der Corput sequence.

    >>> spread_order(8)
    [0, 4, 2, 6, 1, 5, 3, 7]
    """
    bits = max(count - 1, 1).bit_length()
    halving = (int(f"{i:0{bits}b}"[::-1], 2) for i in range(2**bits))
    return list(dict.fromkeys(half * count // 2**bits for half in halving))


def project(x_BND: Tensor, mix_RK: Tensor, mask_BN: Tensor | None, grid: Grid) -> Tensor:
    """E^T X of the form ``basis``.

    Args:
        x_BND: normalised tokens.
        mix_RK: the learned mixing matrix C.
        mask_BN: True where a token is real, or None if all are; a masked input is a sequence.
        grid: layout of the N tokens.

    Returns:
        Shape (B, K, D).
    """
    B, R, K, D = len(x_BND), *mix_RK.shape, x_BND.shape[2]
    if mask_BN is None:
        basis_BRN = cosine_basis(grid, R, x_BND.dtype, x_BND.device).expand(B, -1, -1)
    else:
        basis_BRN = masked_basis(mask_BN, R, x_BND.dtype).transpose(1, 2)
    # bmm on expanded views: matmul of a matrix with a batch would return transposed memory, slow in all that follows.
    if columns_first(K, R, D, training=torch.is_grad_enabled() and mix_RK.requires_grad):
        if mask_BN is None:  # one E for all samples
            return torch.bmm((mix_RK.T @ basis_BRN[0]).expand(B, -1, -1), x_BND)
        return torch.bmm(torch.bmm(mix_RK.T.expand(B, -1, -1), basis_BRN), x_BND)
    return torch.bmm(mix_RK.T.expand(B, -1, -1), torch.bmm(basis_BRN, x_BND))


def columns_first(columns: int, rank: int, dim: int, training: bool) -> bool:
    """Return whether (C^T Phi^T) X costs less than C^T (Phi^T X), so that the work on the tokens shrinks with k.

    Multiply-accumulates for each token: k R + k D against R D. Backward costs the second order R D more, and the first k D
    for X, k D for E^T and k R for C; it also has to keep X. With k = R, no column removed, it is always the second.

    >>> [k for k in (16, 31, 32, 42, 43, 64) if columns_first(k, 64, 128, training=True)]
    [16, 31]
    >>> [k for k in (16, 31, 32, 42, 43, 64) if columns_first(k, 64, 128, training=False)]
    [16, 31, 32, 42]
    """
    if training:
        return columns * (2 * rank + 3 * dim) < 2 * rank * dim
    return columns * (rank + dim) < rank * dim


def dense_rows(x_BND: Tensor, weight_NK: Tensor, mask_BN: Tensor | None) -> Tensor:
    """E^T X with a dense E for at most N tokens, shape (B, K, D).

    Raises:
        ValueError: there are more tokens than rows of E.
    """
    length = x_BND.shape[1]
    weight_NK = cut(weight_NK, length)
    if mask_BN is not None:
        x_BND = x_BND * (mask_BN[..., None] * length_scale(mask_BN, length)).to(x_BND.dtype)
    return torch.bmm(weight_NK.T.expand(len(x_BND), -1, -1), x_BND)


def dense_keys_values(kv_BN2I: Tensor, weight_SHNK: Tensor, mask_BN: Tensor | None, heads: int) -> Tensor:
    """Linformer's projection of ready keys and values, shape (B, K, 2I).

    Args:
        kv_BN2I: keys, then values.
        weight_SHNK: S = 2 (E and F) or 1 (E = F); H = heads or 1.
        mask_BN: True where a token is real, or None.
        heads: heads of the attention.

    Raises:
        ValueError: there are more tokens than rows of E.
    """
    B, N, width = kv_BN2I.shape
    S, H, _, K = weight_SHNK.shape
    weight_SHNK = cut(weight_SHNK, N)
    if mask_BN is not None:
        kv_BN2I = kv_BN2I * (mask_BN[..., None] * length_scale(mask_BN, N)).to(kv_BN2I.dtype)
    if S == H == 1:
        return torch.bmm(weight_SHNK[0, 0].T.expand(B, -1, -1), kv_BN2I)
    kv_SHNBd = kv_BN2I.view(B, N, 2, heads, width // (2 * heads)).permute(2, 3, 1, 0, 4)
    rows_SHKBd = torch.einsum("shnk,shnbd->shkbd", weight_SHNK.expand(2, heads, -1, -1), kv_SHNBd)
    return rows_SHKBd.permute(3, 2, 0, 1, 4).reshape(B, K, width)


def cut(weight: Tensor, length: int) -> Tensor:
    """Return the first rows of a dense E (…, N, K) for a shorter input, scaled so that sums keep their variance."""
    rows = weight.shape[-2]
    if length > rows:
        raise ValueError(
            f"input of {length} tokens, but the dense projection has {rows} rows: cut it, raise model.dense-length, or use "
            "model.low-rank = 'basis' or 'pool', which take any length"
        )
    return weight if length == rows else weight[..., :length, :] * (rows / length) ** 0.5


def length_scale(mask_BN: Tensor, length: int) -> Tensor:
    """Return sqrt(N / n) of n real tokens in N places, shape (B, 1, 1): what :func:`cut` does, for each sample."""
    return (length / mask_BN.sum(dim=1).clamp(min=1)).sqrt()[:, None, None]


def pool_rows(x_BND: Tensor, rank: int, mask_BN: Tensor | None, grid: Grid) -> Tensor:
    """Means of ``rank`` equal parts of a sequence, or of ``rank`` rectangles of an image; shape (B, rank, D).

    Part j of n tokens covers the tokens floor(j n / k) … ceil((j + 1) n / k) - 1, as in PyTorch's adaptive average pooling.
    """
    if mask_BN is not None:
        return torch.bmm(pooling_matrix(mask_BN, rank).to(x_BND.dtype), x_BND)
    B, _, D = x_BND.shape
    x_BDN = x_BND.transpose(1, 2)
    if len(grid) == 1:
        return F.adaptive_avg_pool1d(x_BDN, rank).transpose(1, 2)
    return F.adaptive_avg_pool2d(x_BDN.reshape(B, D, *grid), pool_shape(rank, grid)).flatten(2).transpose(1, 2)


def pooling_matrix(mask_BN: Tensor, rank: int) -> Tensor:
    """Return the weights of :func:`pool_rows` for padded sequences, shape (B, rank, N); real tokens may be anywhere."""
    lengths_B11 = mask_BN.sum(dim=1).clamp(min=1)[:, None, None]
    place_B1N = (mask_BN.cumsum(dim=1) - 1)[:, None, :]
    part_1K1 = torch.arange(rank, device=mask_BN.device)[None, :, None]
    start, end = part_1K1 * lengths_B11 // rank, ((part_1K1 + 1) * lengths_B11 + rank - 1) // rank
    inside = (place_B1N >= start) & (place_B1N < end) & mask_BN[:, None, :]
    return inside / (end - start)


@lru_cache(maxsize=64)
def pool_shape(rank: int, grid: Grid) -> tuple[int, int]:
    """Return (rows, columns) with rows x columns = rank whose proportion is nearest to the image's.

    >>> pool_shape(32, (8, 8)), pool_shape(8, (4, 16))
    ((4, 8), (1, 8))
    """
    height, width = grid
    shapes = [(rows, rank // rows) for rows in range(1, rank + 1) if rank % rows == 0]
    return min(shapes, key=lambda shape: abs(torch.tensor(shape[0] * width / (shape[1] * height)).log().item()))


class Basis(nn.Module):
    """The form ``basis``: ``mix`` is C (R x K), at first :func:`mixing_matrix`, or :func:`pyramid` if ``nested``."""

    def __init__(self, rank: int, nested: bool = False) -> None:
        super().__init__()
        self.mix = nn.Parameter(pyramid(rank) if nested else mixing_matrix(rank))

    def forward(self, x_BND: Tensor, to_kv: ToKeysValues, mask_BN: Tensor | None, grid: Grid) -> Tensor:
        """Tokens to keys and values (B, K, 2I)."""
        return to_kv(project(x_BND, self.mix, mask_BN, grid))


class DenseBefore(nn.Module):
    """The form ``dense-before``: ``weight`` is E (N x K)."""

    def __init__(self, length: int, rank: int) -> None:
        super().__init__()
        self.weight = dense_weight(length, rank)

    def forward(self, x_BND: Tensor, to_kv: ToKeysValues, mask_BN: Tensor | None, grid: Grid) -> Tensor:
        """Tokens to keys and values (B, K, 2I)."""
        return to_kv(dense_rows(x_BND, self.weight, mask_BN))


class Dense(nn.Module):
    """The form ``dense``: ``weight`` is E, or E and F, of one or all heads (S, H, N, K)."""

    def __init__(self, length: int, rank: int, heads: int, sharing: Sharing) -> None:
        super().__init__()
        self.heads = heads
        self.weight = dense_weight(
            2 if sharing in ("none", "headwise") else 1, heads if sharing == "none" else 1, length, rank
        )

    def forward(self, x_BND: Tensor, to_kv: ToKeysValues, mask_BN: Tensor | None, grid: Grid) -> Tensor:
        """Tokens to keys and values (B, K, 2I)."""
        return dense_keys_values(to_kv(x_BND), self.weight, mask_BN, self.heads)


class Pool(nn.Module):
    """The form ``pool``; it has no weights."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank

    def forward(self, x_BND: Tensor, to_kv: ToKeysValues, mask_BN: Tensor | None, grid: Grid) -> Tensor:
        """Tokens to keys and values (B, K, 2I)."""
        return to_kv(pool_rows(x_BND, self.rank, mask_BN, grid))


Projection = Basis | DenseBefore | Dense | Pool


def make_projection(
    form: Form, rank: int, *, length: int, heads: int, sharing: Sharing = "headwise", nested: bool = False
) -> Projection | None:
    """Build a projection; None for the form ``none``.

    Args:
        form: which one.
        rank: rows K that attention reads.
        length: longest input N; for the dense forms.
        heads: heads of the attention.
        sharing: of ``dense``.
        nested: start ``basis`` from :func:`pyramid`.

    Raises:
        ValueError: a dense form with more rows than tokens.
    """
    if form in ("dense", "dense-before") and rank > length:
        raise ValueError(f"model.rank = {rank} is above N = {length}: with model.low-rank = '{form}' k is at most N")
    match form:
        case "none":
            return None
        case "basis":
            return Basis(rank, nested)
        case "dense":
            return Dense(length, rank, heads, sharing)
        case "dense-before":
            return DenseBefore(length, rank)
        case "pool":
            return Pool(rank)


def dense_weight(*shape: int) -> nn.Parameter:
    """Return a random E (…, N, K) whose columns have norm 1 in expectation."""
    return nn.Parameter(torch.randn(shape) / shape[-2] ** 0.5)


@torch.no_grad()
def keep_columns(projection: Projection, columns: Sequence[int]) -> None:
    """Remove all other columns of a projection, in place.

    Raises:
        ValueError: the projection has no columns to remove.
    """
    if isinstance(projection, Pool):
        raise ValueError("model.low-rank = 'pool' has no columns that could be removed: use basis, dense or dense-before")
    name = "mix" if isinstance(projection, Basis) else "weight"
    setattr(projection, name, nn.Parameter(projection.get_parameter(name)[..., list(columns)].contiguous()))
