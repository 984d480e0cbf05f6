"""Attention and feed-forward blocks that the models are made of.

Shapes: B batch, H heads, N queries, K keys, D channels, I inner width (heads x channels of a head), d channels of a head.
All attention goes through ``scaled_dot_product_attention``, which picks the fastest kernel of the device.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from models.low_rank import Projection

FeedForwardKind = Literal["gelu", "geglu"]


def split_heads(x_BNI: Tensor, heads: int) -> Tensor:
    """(B,N,I) -> (B,H,N,d); head h owns channels h*d … (h+1)*d-1."""
    B, N, I = x_BNI.shape  # noqa: E741
    return x_BNI.view(B, N, heads, I // heads).transpose(1, 2)


def merge_heads(x_BHNd: Tensor) -> Tensor:
    """(B,H,N,d) -> (B,N,I); the inverse of :func:`split_heads`."""
    return x_BHNd.transpose(1, 2).flatten(2)


def split_keys_values(kv_BK2I: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """(B,K,2I), keys first, -> keys and values, both (B,H,K,d)."""
    B, K, width = kv_BK2I.shape
    k_BHKd, v_BHKd = kv_BK2I.view(B, K, 2, heads, width // (2 * heads)).permute(2, 0, 3, 1, 4).unbind(0)
    return k_BHKd, v_BHKd


def key_mask(mask_BK: Tensor | None) -> Tensor | None:
    """(B,K), True where a key is real, to (B,1,1,K) for SDPA. A sample with no real key attends to all: it stays finite."""
    if mask_BK is None:
        return None
    return (mask_BK | ~mask_BK.any(dim=1, keepdim=True))[:, None, None, :]


def cross_attend(
    q_NI: Tensor, kv_BK2I: Tensor, heads: int, mask_BK: Tensor | None = None, bias_BK: Tensor | None = None
) -> Tensor:
    """Attention of queries that are the same for every sample.

    Args:
        q_NI: projected queries (N, I).
        kv_BK2I: projected keys and values (B, K, 2I), keys first.
        heads: heads H; divides I.
        mask_BK: True where a key is real. A sample with no real key attends to all of them, so that it stays finite.
        bias_BK: added to the logits of a key for all heads and queries, (B, K) or (K,), instead of a mask; -inf closes it.

    Returns:
        Attended values (B, N, I).
    """
    B, K, _ = kv_BK2I.shape
    k_BHKd, v_BHKd = split_keys_values(kv_BK2I, heads)
    q_BHNd = split_heads(q_NI.unsqueeze(0), heads).expand(B, -1, -1, -1)
    mask = key_mask(mask_BK) if bias_BK is None else bias_BK.to(q_BHNd.dtype).expand(B, K)[:, None, None, :]
    return merge_heads(F.scaled_dot_product_attention(q_BHNd, k_BHKd, v_BHKd, attn_mask=mask))


def self_attend(qkv_BN3I: Tensor, heads: int, mask_BN: Tensor | None = None) -> Tensor:
    """Attention of tokens to each other.

    Args:
        qkv_BN3I: projected queries, keys and values (B, N, 3I), in this order.
        heads: heads H; divides I.
        mask_BN: True where a token is real, as in :func:`cross_attend`; padding asks but is not read.

    Returns:
        Attended values (B, N, I).
    """
    B, N, width = qkv_BN3I.shape
    q_BHNd, k_BHNd, v_BHNd = qkv_BN3I.view(B, N, 3, heads, width // (3 * heads)).permute(2, 0, 3, 1, 4).unbind(0)
    return merge_heads(F.scaled_dot_product_attention(q_BHNd, k_BHNd, v_BHNd, attn_mask=key_mask(mask_BN)))


class FeedForward(nn.Module):
    """Pre-norm feed-forward block with residual: x + W2 act(W1 LN(x)).

    ``gelu``: W1 is D -> mult*D. ``geglu``: W1 is D -> 2*mult*D, and act(a, g) = a * gelu(g) (Shazeer 2020, arXiv 2002.05202).
    """

    def __init__(self, dim: int, mult: int, kind: FeedForwardKind = "gelu", dropout: float = 0.0) -> None:
        super().__init__()
        self.gated = kind == "geglu"
        self.norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, dim * mult * (2 if self.gated else 1))
        self.down = nn.Linear(dim * mult, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BND: Tensor) -> Tensor:
        """(B,N,D) -> (B,N,D)."""
        hidden = self.up(self.norm(x_BND))
        if self.gated:
            value, gate = hidden.chunk(2, dim=-1)
            hidden = value * F.gelu(gate)
        else:
            hidden = F.gelu(hidden)
        change_BND: Tensor = self.dropout(self.down(hidden))
        return x_BND + change_BND


class SelfAttention(nn.Module):
    """Pre-norm multi-head self-attention with residual; q, k and v are one matrix, so that they are one product.

    Args:
        projection: low-rank projection of the rows that keys and values are made of; None: of all rows.
    """

    def __init__(
        self, dim: int, heads: int, dim_head: int, dropout: float = 0.0, projection: Projection | None = None
    ) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * heads * dim_head, bias=False)
        self.projection = projection
        self.out = nn.Linear(heads * dim_head, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BND: Tensor) -> Tensor:
        """(B,N,D) -> (B,N,D)."""
        normed_BND = self.norm(x_BND)
        if self.projection is None:
            attended_BNI = self_attend(self.qkv(normed_BND), self.heads)
        else:
            inner = len(self.qkv.weight) // 3
            q_BHNd = split_heads(F.linear(normed_BND, self.qkv.weight[:inner]), self.heads)
            to_kv = partial(F.linear, weight=self.qkv.weight[inner:])
            kv_BK2I = self.projection(normed_BND, to_kv, None, x_BND.shape[1:2])
            attended_BNI = merge_heads(F.scaled_dot_product_attention(q_BHNd, *split_keys_values(kv_BK2I, self.heads)))
        change_BND: Tensor = self.dropout(self.out(attended_BNI))
        return x_BND + change_BND


class LatentBlock(nn.Module):
    """One block of the latent stack: self-attention, then feed-forward."""

    def __init__(
        self,
        dim: int,
        heads: int,
        dim_head: int,
        mult: int,
        kind: FeedForwardKind = "gelu",
        dropout: float = 0.0,
        projection: Projection | None = None,
    ) -> None:
        super().__init__()
        self.attn = SelfAttention(dim, heads, dim_head, dropout, projection)
        self.ff = FeedForward(dim, mult, kind, dropout)

    def forward(self, x_BMD: Tensor) -> Tensor:
        """(B,M,D) -> (B,M,D)."""
        x_BMD = self.attn(x_BMD)
        return self.ff(x_BMD)  # type: ignore[no-any-return]
