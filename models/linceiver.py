"""Linceiver IO: a Perceiver IO whose encoder attends to a low-rank projection of its input.

    tokens X --adapter: LN--> E^T X --to_kv--> K, V        the forms of E are in models/low_rank.py; none: Perceiver IO
    latents Z --LN, to_q--> Z + softmax(Q K^T / sqrt(d)) V --feed-forward--> L x (self-attention, feed-forward) --> Z
    queries --cross-attention to LN(Z)--> y (+ mean of LN(Z)) --> logits

Encode, process, decode: the part that federated clients share (``backbone``) stands between their own adapter and head, and
so sees their data. The first name in a parameter's name is its group (models/groups.py).

Shapes: B batch, N tokens, D channels, M latents, K rows of the projection, I inner width of cross-attention, Q queries.

By default the encoder alone is projected, because there alone the input length is paid for. Gates in the adapter may close
columns of the projection (models/gates.py); models/slicing.py removes those.

Source: Perceiver IO (Jaegle et al., ICLR 2022); Linformer (Wang et al. 2020, arXiv 2006.04768).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from models.adapters import Adapter
from models.attention import FeedForward, FeedForwardKind, LatentBlock, cross_attend
from models.low_rank import Projection
from models.trace import Trace

LatentMean = Literal["none", "add", "concat"]
# On short federated runs (40 epochs of 1 to 5 steps) latents of unit size train better than the 0.02 of the paper: validation
# accuracy of the text clients of the default run .594 against .554, of the image clients .286 against .292 (2 seeds).
LATENT_STD = 1.0


class Backbone(nn.Module):
    """The shared part: latents, query side of the encoder, latent stack, and a projection that has one shape for all.

    Args:
        projection: projection of the encoder that may be shared; None: none, or one that is in the adapter.
        latent_projections: one for each layer, or the same for all; None: the latent stack is not projected.
        tie_layers: one block is used L times.
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
        projection: Projection | None = None,
        latent_projections: Sequence[Projection | None] | None = None,
        tie_layers: bool = False,
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
        self.projection = projection
        self.norm = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_out = nn.Linear(inner, dim)
        self.dropout = nn.Dropout(dropout)
        self.ff = FeedForward(dim, ff_mult, feed_forward, dropout)
        self.depth = layers
        self.layers = nn.ModuleList(
            LatentBlock(
                dim,
                heads,
                dim_head or dim // heads,
                ff_mult,
                feed_forward,
                dropout,
                latent_projections[layer] if latent_projections else None,
            )
            for layer in range(min(layers, 1) if tie_layers else layers)
        )

    def forward(self, kv_BK2I: Tensor, mask_BK: Tensor | None = None, bias_BK: Tensor | None = None) -> tuple[Tensor, ...]:
        """Keys and values, with a mask or a bias of the logits, to the latents (B,M,D) after the encoder and each block."""
        q_MI = self.to_q(self.norm(self.latents))
        attended_BMI = cross_attend(q_MI, kv_BK2I, self.cross_heads, mask_BK, bias_BK)
        x_BMD = self.ff(self.latents + self.dropout(self.to_out(attended_BMI)))
        stages = [x_BMD]
        for i in range(self.depth):
            stages.append(self.layers[min(i, len(self.layers) - 1)](stages[-1]))
        return tuple(stages)


class Head(nn.Module):
    """Perceiver head of one task: queries attend to the latents, and a linear classifier reads the mean of the queries.

    Args:
        latent_mean: whether the mean of the normalised latents is added to, or concatenated with, every query output.
        decoder_ff: feed-forward block after the cross-attention.
        final_norm: LayerNorm before the classifier.
        cross_dim_head: channels of a head; default dim / cross_heads.
        projection: low-rank projection of the latents; None: none.
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        cross_heads: int,
        projection: Projection | None = None,
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
        self.projection = projection
        self.to_out = nn.Linear(inner, dim)
        self.ff = FeedForward(dim, ff_mult, feed_forward) if decoder_ff else None
        width = 2 * dim if latent_mean == "concat" else dim
        self.final_norm = nn.LayerNorm(width) if final_norm else None
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, latents_BMD: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (B,M,D) to query outputs (B,Q,D) and logits (B, classes)."""
        z_BMD = self.norm(latents_BMD)
        kv_BK2I = self.projection(z_BMD, self.to_kv, None, z_BMD.shape[1:2]) if self.projection else self.to_kv(z_BMD)
        y_BQD = self.to_out(cross_attend(self.to_q(self.norm_q(self.queries)), kv_BK2I, self.cross_heads))
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
        self.frozen: nn.Module | None = None  # set by models/factory.py where the front end needs it

    @property
    def projection(self) -> Projection | None:
        """The low-rank projection of the encoder: shared if it has one shape for all inputs, else the client's own."""
        return self.backbone.projection or self.adapter.projection

    def keys_values(self, inputs: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return what the encoder attends to: keys and values (B,K,2I), and a mask (B,K) or a bias of the logits."""
        x_BND, mask_BN, grid = self.adapter.front(inputs, self.frozen)
        x_BND = self.adapter.norm(x_BND)
        if self.projection is None:
            return self.adapter.to_kv(x_BND), mask_BN, None
        kv_BK2I, bias_BK = self.adapter.weigh(self.projection(x_BND, self.adapter.to_kv, mask_BN, grid))
        return kv_BK2I, None, bias_BK

    def trace(self, inputs: Tensor) -> Trace:
        """Run the model and return the latents of every stage, the query outputs and the logits."""
        latents = self.backbone(*self.keys_values(inputs))
        queries, logits = self.head(latents[-1])
        return Trace(latents, queries, logits)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images (B,3,H,W) or token ids (B,N) to logits (B, classes)."""
        return self.trace(inputs).logits
