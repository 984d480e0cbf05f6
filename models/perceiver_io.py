"""Perceiver IO, made of the blocks of perceiver-pytorch: the baseline that Linceiver IO is measured against.

    tokens X --adapter: LN, to_kv--> K, V
    latents Z --cross-attention to K, V, feed-forward--> L x (self-attention, feed-forward) --> Z
    query --cross-attention to LN(Z)--> y --> logits

The side of the latents is the backbone; the context norm and ``to_kv`` of the encoder are the adapter; query, decoder and
classifier are the head. The package's ``PerceiverBlock`` does the work: its context norm is taken out and its ``to_kv`` is the
identity, so that ready keys and values are its context.

As in the package, the feed-forward is GEGLU of width 4 and there is no dropout: ``model.feed-forward``, ``model.ff-mult`` and
``model.dropout`` do not apply. Unlike the default ``linceiver-io``, nothing is added to the query's output, and no norm stands
before the classifier.

Shapes: B batch, N tokens, D channels, M latents, I inner width of cross-attention, Q queries.

Source: Perceiver IO (Jaegle et al., ICLR 2022); package perceiver-pytorch 0.11.0, ``PerceiverIO``.
"""

from __future__ import annotations

import torch
from perceiver_pytorch.perceiver_io import Attention, PreNorm
from perceiver_pytorch.perceiver_pytorch import PerceiverBlock
from torch import Tensor, nn

from models.adapters import Adapter
from models.perceiver import without_context
from models.trace import Trace


class Backbone(nn.Module):
    """The shared part: latents, latent side of the encoder, latent stack.

    Args:
        layers: blocks L of the latent stack.
        tied: one set of weights for all of them.
    """

    def __init__(self, dim: int, *, latents: int, layers: int, tied: bool, heads: int, cross_heads: int) -> None:
        super().__init__()
        self.depth = layers
        self.latents = nn.Parameter(torch.randn(latents, dim))
        self.encoder = without_context(
            PerceiverBlock(
                dim=dim,
                context_dim=dim,
                cross_heads=cross_heads,
                cross_dim_head=dim // cross_heads,
                self_per_cross_attn=0,
            )
        )
        self.layers = nn.ModuleList(
            PerceiverBlock(dim=dim, latent_heads=heads, latent_dim_head=dim // heads, has_cross_attn=False)
            for _ in range(min(layers, 1) if tied else layers)
        )

    def forward(self, kv_BN2I: Tensor, mask_BN: Tensor | None = None) -> tuple[Tensor, ...]:
        """Keys and values (B,N,2I) to the latents (B,M,D) after the encoder and after each of the L blocks.

        A sample whose mask is all False attends to all its keys, so that it stays finite.
        """
        stages = [self.encoder(self.latents.expand(len(kv_BN2I), -1, -1), context=kv_BN2I, mask=mask_BN)]
        for i in range(self.depth):
            stages.append(self.layers[min(i, len(self.layers) - 1)](stages[-1]))
        return tuple(stages)


class Head(nn.Module):
    """Learned queries, cross-attention to the latents, linear classifier of the mean of the queries."""

    def __init__(self, dim: int, num_classes: int, *, cross_heads: int, queries: int = 1) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, dim))
        self.decoder = PreNorm(dim, Attention(dim, dim, heads=cross_heads, dim_head=dim // cross_heads), context_dim=dim)
        self.classifier = nn.Linear(dim, num_classes)

    def forward(self, latents_BMD: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (B,M,D) to query outputs (B,Q,D) and logits (B, classes)."""
        y_BQD = self.decoder(self.queries.expand(len(latents_BMD), -1, -1), context=latents_BMD)
        return y_BQD, self.classifier(y_BQD.mean(dim=1))


class PerceiverIO(nn.Module):
    """Adapter, backbone and head in one model; see the module's docstring."""

    def __init__(self, adapter: Adapter, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.adapter = adapter
        self.head = head
        self.frozen: nn.Module | None = None  # set by models/factory.py where the front end needs it

    def trace(self, inputs: Tensor) -> Trace:
        """Run the model and return the latents of every stage, the query outputs and the logits."""
        x_BND, mask_BN, _ = self.adapter.front(inputs, self.frozen)
        latents = self.backbone(self.adapter.to_kv(self.adapter.norm(x_BND)), mask_BN)
        queries, logits = self.head(latents[-1])
        return Trace(latents, queries, logits)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images (B,3,H,W) or token ids (B,N) to logits (B, classes)."""
        return self.trace(inputs).logits
