"""Perceiver, made of the blocks of perceiver-pytorch: every block reads the input again.

    tokens X --adapter: LN_i, to_kv_i--> K_i, V_i                      one pair for each block i
    latents Z --block i: cross-attention to K_i, V_i, feed-forward, self-attention, feed-forward--> Z      L times
    mean of Z over latents --LN--> logits

The block's side of the latents is the backbone; what touches the input, LN_i and to_kv_i, is the adapter, because there alone
modalities differ. The package's ``PerceiverBlock`` does the work: its context norm is taken out and its ``to_kv`` is the
identity, so that ready keys and values are its context.

The feed-forward of the package is GEGLU of width 4: ``model.feed-forward`` and ``model.ff-mult`` do not apply.
``model.dropout`` acts on attention weights and after feed-forward blocks. ``model.tie-layers`` ties all blocks but the first.
Position codes are those of the front ends, not of the package.

Shapes: B batch, N tokens, D channels, M latents, I inner width of cross-attention.

Source: Perceiver (Jaegle et al., ICML 2021); package perceiver-pytorch 0.11.0, ``Perceiver``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from perceiver_pytorch.perceiver_pytorch import PerceiverBlock
from torch import Tensor, nn

from models.front_ends import FrontEnd
from models.trace import Trace


def distinct_blocks(layers: int, tied: bool) -> int:
    """Blocks with weights of their own: the package ties all but the first.

    >>> distinct_blocks(4, tied=False), distinct_blocks(4, tied=True), distinct_blocks(1, tied=True)
    (4, 2, 1)
    """
    return min(layers, 2) if tied else layers


def without_context(block: nn.Module) -> nn.Module:
    """Take the context norm and ``to_kv`` out of a ``PerceiverBlock``, in place: its context becomes keys and values (B,N,2I).

    Args:
        block: a block with cross-attention.

    Returns:
        The same block.
    """
    block.get_submodule("cross_attn").norm_context = nn.Identity()
    block.get_submodule("cross_attn.fn").to_kv = nn.Identity()
    return block


class Adapter(nn.Module):
    """Front end, and a norm and a key/value projection for each reading of the input. Stays on the client.

    Args:
        front: raw inputs to tokens (B,N,D).
        readings: pairs of a norm and ``to_kv``; one for each distinct block.
    """

    def __init__(self, front: FrontEnd, dim: int, inner: int, readings: int) -> None:
        super().__init__()
        self.front = front
        self.readings = nn.ModuleList(
            nn.Sequential(OrderedDict(norm=nn.LayerNorm(dim), to_kv=nn.Linear(dim, 2 * inner, bias=False)))
            for _ in range(readings)
        )

    def keys_values(self, x_BND: Tensor) -> list[Tensor]:
        """Tokens to the keys and values (B,N,2I) of each reading, keys first."""
        return [reading(x_BND) for reading in self.readings]


class Backbone(nn.Module):
    """The shared part: latents and the latent side of every block.

    Args:
        layers: blocks L, at least 1, as the blocks alone read the input.
        tied: one set of weights for all blocks but the first.
        dropout: of attention weights and of feed-forward blocks.
    """

    def __init__(
        self, dim: int, *, latents: int, layers: int, tied: bool, heads: int, cross_heads: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.depth = layers
        self.latents = nn.Parameter(torch.randn(latents, dim))
        blocks = (
            PerceiverBlock(
                dim=dim,
                context_dim=dim,
                cross_heads=cross_heads,
                cross_dim_head=dim // cross_heads,
                latent_heads=heads,
                latent_dim_head=dim // heads,
                attn_dropout=dropout,
                ff_dropout=dropout,
            )
            for _ in range(distinct_blocks(layers, tied))
        )
        self.layers = nn.ModuleList(map(without_context, blocks))

    def forward(self, keys_values: Sequence[Tensor], mask_BN: Tensor | None = None) -> tuple[Tensor, ...]:
        """Keys and values (B,N,2I) of each distinct block to the latents (B,M,D) after each of the L blocks.

        A sample whose mask is all False attends to all its keys, so that it stays finite.
        """
        x_BMD = self.latents.expand(len(keys_values[0]), -1, -1)
        stages = []
        for i in range(self.depth):
            own = min(i, len(self.layers) - 1)
            x_BMD = self.layers[own](x_BMD, context=keys_values[own], mask=mask_BN)
            stages.append(x_BMD)
        return tuple(stages)


class Head(nn.Module):
    """Mean of the latents, LayerNorm, linear classifier."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.classifier = nn.Linear(dim, num_classes)

    def forward(self, latents_BMD: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (B,M,D) to their normalised mean (B,1,D) and logits (B, classes)."""
        mean_BD = self.norm(latents_BMD.mean(dim=1))
        return mean_BD.unsqueeze(1), self.classifier(mean_BD)


class Perceiver(nn.Module):
    """Adapter, backbone and head in one model; see the module's docstring."""

    def __init__(self, adapter: Adapter, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.adapter = adapter
        self.head = head
        self.frozen: nn.Module | None = None  # set by models/factory.py where the front end needs it

    def trace(self, inputs: Tensor) -> Trace:
        """Run the model and return the latents after every block, their normalised mean and the logits."""
        x_BND, mask_BN, _ = self.adapter.front(inputs, self.frozen)
        latents = self.backbone(self.adapter.keys_values(x_BND), mask_BN)
        queries, logits = self.head(latents[-1])
        return Trace(latents, queries, logits)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images (B,3,H,W) or token ids (B,N) to logits (B, classes)."""
        return self.trace(inputs).logits
