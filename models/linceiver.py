"""Linceiver IO: a Perceiver IO whose encoder attends to a low-rank projection of its input.

    tokens X --adapter: LN--> E^T X --to_kv--> K, V        E = Phi C (models/low_rank.py), or the identity: Perceiver IO
    latents Z --LN, to_q--> Z + softmax(Q K^T / sqrt(d)) V --feed-forward--> L x (self-attention, feed-forward) --> Z
    queries --cross-attention to LN(Z)--> y (+ mean of LN(Z)) --> logits

Encode, process, decode: the part that federated clients share (``backbone``) stands between their own adapter and head, and
so sees their data. The first name in a parameter's name is its group (models/groups.py).

Shapes: B batch, N tokens, D channels, M latents, R = K rows of the projection, I inner width of cross-attention, Q queries.

Source: Perceiver IO (Jaegle et al., ICLR 2022); Linformer (Wang et al. 2020, arXiv 2006.04768). Unlike Linformer, one
projection for keys and values, before ``to_kv`` and in the encoder only, because there alone the input length is paid for.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from models.adapters import Adapter
from models.attention import FeedForward, FeedForwardKind, LatentBlock, cross_attend
from models.low_rank import Grid, axis, project
from models.trace import Trace

LatentMean = Literal["none", "add", "concat"]
# On short federated runs (40 epochs of 1 to 5 steps) latents of unit size train better than the 0.02 of the paper: validation
# accuracy of the text clients of the default run .594 against .554, of the image clients .286 against .292 (2 seeds).
LATENT_STD = 1.0


def mixing_matrix(rank: int) -> Tensor:
    """Initial C (R x K): the inverse cosine transform, which makes the K rows of E^T X local in a sequence.

    Row k then is the sequence resampled at (k + 1/2) / K of its length, and the sequence itself if N = K. With the identity
    each row would be one frequency over all tokens, from which attention, being a positive mixture, cannot pick a word.
    """
    return axis(rank, torch.arange(rank)).T.float().contiguous()


class Backbone(nn.Module):
    """The shared part: latents, query side of the encoder, latent stack, mixing matrix of the low-rank projection.

    Args:
        rank: rows of the low-rank projection; 0: none.
        cross_dim_head: channels of a head of the encoder; default dim / cross_heads.
        dim_head: channels of a head of the latent stack; default dim / heads.
    """

    def __init__(
        self,
        dim: int,
        *,
        latents: int,
        layers: int,
        heads: int,
        cross_heads: int,
        rank: int,
        ff_mult: int,
        feed_forward: FeedForwardKind = "gelu",
        dropout: float = 0.0,
        cross_dim_head: int | None = None,
        dim_head: int | None = None,
    ) -> None:
        super().__init__()
        inner = cross_heads * (cross_dim_head or dim // cross_heads)
        self.cross_heads = cross_heads
        self.latents = nn.Parameter(torch.empty(latents, dim))
        nn.init.trunc_normal_(self.latents, std=LATENT_STD)
        self.mix = nn.Parameter(mixing_matrix(rank)) if rank else None
        self.norm = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_out = nn.Linear(inner, dim)
        self.dropout = nn.Dropout(dropout)
        self.ff = FeedForward(dim, ff_mult, feed_forward, dropout)
        self.layers = nn.ModuleList(
            LatentBlock(dim, heads, dim_head or dim // heads, ff_mult, feed_forward, dropout) for _ in range(layers)
        )

    def project(self, x_BND: Tensor, mask_BN: Tensor | None, grid: Grid) -> tuple[Tensor, Tensor | None]:
        """Tokens (B,N,D) to the rows the encoder attends to, (B,K,D), and their mask: none after a low-rank projection."""
        if self.mix is None:
            return x_BND, mask_BN
        return project(x_BND, self.mix, mask_BN, grid), None

    def forward(self, kv_BK2I: Tensor, mask_BK: Tensor | None = None) -> tuple[Tensor, ...]:
        """Keys and values to the latents (B,M,D) after the encoder and after each block of the stack."""
        q_MI = self.to_q(self.norm(self.latents))
        attended_BMI = cross_attend(q_MI, kv_BK2I, self.cross_heads, mask_BK)
        x_BMD = self.ff(self.latents + self.dropout(self.to_out(attended_BMI)))
        stages = [x_BMD]
        for layer in self.layers:
            stages.append(layer(stages[-1]))
        return tuple(stages)


class Head(nn.Module):
    """Perceiver head of one task: queries attend to the latents, and a linear classifier reads the mean of the queries.

    Args:
        latent_mean: whether the mean of the normalised latents is added to, or concatenated with, every query output.
        decoder_ff: feed-forward block after the cross-attention.
        final_norm: LayerNorm before the classifier.
        cross_dim_head: channels of a head; default dim / cross_heads.
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        cross_heads: int,
        queries: int = 1,
        latent_mean: LatentMean = "add",
        decoder_ff: bool = False,
        final_norm: bool = False,
        ff_mult: int = 2,
        feed_forward: FeedForwardKind = "gelu",
        cross_dim_head: int | None = None,
    ) -> None:
        super().__init__()
        inner = cross_heads * (cross_dim_head or dim // cross_heads)
        self.cross_heads, self.latent_mean = cross_heads, latent_mean
        self.queries = nn.Parameter(torch.empty(queries, dim))
        nn.init.normal_(self.queries)
        self.norm_q = nn.LayerNorm(dim)
        self.norm = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim)
        self.ff = FeedForward(dim, ff_mult, feed_forward) if decoder_ff else None
        width = 2 * dim if latent_mean == "concat" else dim
        self.final_norm = nn.LayerNorm(width) if final_norm else None
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, latents_BMD: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (B,M,D) to query outputs (B,Q,D) and logits (B, classes)."""
        z_BMD = self.norm(latents_BMD)
        y_BQD = self.to_out(cross_attend(self.to_q(self.norm_q(self.queries)), self.to_kv(z_BMD), self.cross_heads))
        if self.ff is not None:
            y_BQD = self.ff(y_BQD)
        if self.latent_mean != "none":
            mean_B1D = z_BMD.mean(dim=1, keepdim=True)
            y_BQD = y_BQD + mean_B1D if self.latent_mean == "add" else torch.cat([y_BQD, mean_B1D.expand_as(y_BQD)], dim=-1)
        if self.final_norm is not None:
            y_BQD = self.final_norm(y_BQD)
        return y_BQD, self.classifier(y_BQD.mean(dim=1))


class LinceiverIO(nn.Module):
    """Adapter, backbone and head in one model; see the module's docstring."""

    def __init__(self, adapter: Adapter, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.adapter = adapter
        self.head = head

    def trace(self, inputs: Tensor) -> Trace:
        """Run the model and return the latents of every stage, the query outputs and the logits."""
        x_BND, mask_BN, grid = self.adapter.front(inputs)
        x_BKD, mask_BK = self.backbone.project(self.adapter.norm(x_BND), mask_BN, grid)
        latents = self.backbone(self.adapter.to_kv(x_BKD), mask_BK)
        queries, logits = self.head(latents[-1])
        return Trace(latents, queries, logits)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images (B,3,H,W) or token ids (B,N) to logits (B, classes)."""
        return self.trace(inputs).logits
