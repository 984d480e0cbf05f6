"""The models that benchmarks/linceiver.py compares, all of the same sizes, on ready tokens.

Shapes: B batch, N tokens, D channels, M latents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, cast

import perceiver_pytorch
import torch
from torch import Tensor, nn
from transformers import PerceiverConfig, PerceiverModel
from transformers.models.perceiver.modeling_perceiver import PerceiverClassificationDecoder, PerceiverLayer

from models.adapters import Adapter
from models.attention import FeedForwardKind
from models.front_ends import FrontEnd, Tokens
from models.gates import PrefixGate
from models.linceiver import Backbone, Head, LinceiverIO
from models.low_rank import Form, make_projection

BASELINE = "perceiver-pytorch"
FEW = (BASELINE, "none", "basis 32")
Stages = Literal["encoder", "all"]


@dataclass(frozen=True)
class Sizes:
    """Sizes that all contestants share: GEGLU feed-forward x 4, one query, no dropout."""

    dim: int = 128
    layers: int = 4
    heads: int = 4
    dim_head: int = 32
    cross_heads: int = 1
    cross_dim_head: int = 64
    classes: int = 10
    ff_mult: int = 4

    @property
    def inner(self) -> int:
        """Inner width of cross-attention."""
        return self.cross_heads * self.cross_dim_head


class ReadyTokens(nn.Module):
    """A front end for inputs that are tokens already."""

    def forward(self, x_BND: Tensor, frozen: nn.Module | None = None) -> Tokens:
        """(B,N,D) to (B,N,D), no mask, and the grid of a sequence."""
        return x_BND, None, (x_BND.shape[1],)


class PerceiverIO(nn.Module):
    """The baseline: perceiver-pytorch as it is shipped, with one learned query."""

    def __init__(self, sizes: Sizes, latents: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, sizes.dim))
        self.model = perceiver_pytorch.PerceiverIO(
            depth=sizes.layers,
            dim=sizes.dim,
            queries_dim=sizes.dim,
            logits_dim=sizes.classes,
            num_latents=latents,
            latent_dim=sizes.dim,
            cross_heads=sizes.cross_heads,
            latent_heads=sizes.heads,
            cross_dim_head=sizes.cross_dim_head,
            latent_dim_head=sizes.dim_head,
        )

    def forward(self, x_BND: Tensor) -> Tensor:
        """Tokens to logits (B, classes)."""
        logits: Tensor = self.model(x_BND, queries=self.queries).mean(dim=1)
        return logits


class Transformers(nn.Module):
    """PerceiverModel of Hugging Face transformers with its classification decoder.

    Its feed-forward blocks have one matrix less (GELU, not GEGLU): they are half as wide again, so that parameters and
    operations agree. Left as they are: biases, one small feed-forward block in the decoder.
    """

    def __init__(self, sizes: Sizes, latents: int) -> None:
        super().__init__()
        widening = sizes.ff_mult * 3 // 2
        config = PerceiverConfig(
            num_latents=latents,
            d_latents=sizes.dim,
            d_model=sizes.dim,
            num_blocks=1,
            num_self_attends_per_block=sizes.layers,
            num_self_attention_heads=sizes.heads,
            num_cross_attention_heads=sizes.cross_heads,
            self_attention_widening_factor=widening,
            cross_attention_widening_factor=widening,
            attention_probs_dropout_prob=0.0,
        )
        config.num_labels = sizes.classes
        decoder = PerceiverClassificationDecoder(  # type: ignore[no-untyped-call]
            config,
            num_channels=sizes.dim,
            qk_channels=sizes.inner,
            v_channels=sizes.inner,
            num_heads=sizes.cross_heads,
            trainable_position_encoding_kwargs={"num_channels": sizes.dim, "index_dims": 1},
        )
        self.model = PerceiverModel(config, decoder=decoder)
        # The config has one width for the cross-attention and the latent stack; here they differ.
        self.model.encoder.cross_attention = PerceiverLayer(  # type: ignore[no-untyped-call]
            config,
            is_cross_attention=True,
            qk_channels=sizes.inner,
            v_channels=sizes.inner,
            num_heads=sizes.cross_heads,
            q_dim=sizes.dim,
            kv_dim=sizes.dim,
            widening_factor=widening,
            use_query_residual=True,
        )

    def forward(self, x_BND: Tensor) -> Tensor:
        """Tokens to logits (B, classes)."""
        logits: Tensor = self.model(x_BND).logits
        return logits


def linceiver(
    sizes: Sizes,
    latents: int,
    length: int,
    form: Form = "none",
    rank: int = 0,
    stages: Stages = "encoder",
    gate: PrefixGate | None = None,
) -> LinceiverIO:
    """Build our model without front end.

    Args:
        sizes: sizes of all contestants.
        latents: latents M.
        length: tokens N, for the dense forms.
        form: of the projection.
        rank: its rows k.
        stages: ``all``: latent stack and decoder are projected too, as in the first Linceiver.
        gate: closes columns.
    """
    project = partial(make_projection, form, rank)
    shared = form == "basis"
    encoder = project(length=length, heads=sizes.cross_heads, nested=gate is not None)
    everywhere = stages == "all"
    kind: FeedForwardKind = "geglu"
    backbone = Backbone(
        sizes.dim,
        latents=latents,
        layers=sizes.layers,
        heads=sizes.heads,
        cross_heads=sizes.cross_heads,
        projection=encoder if shared else None,
        latent_projections=[project(length=latents, heads=sizes.heads) for _ in range(sizes.layers)] if everywhere else None,
        ff_mult=sizes.ff_mult,
        feed_forward=kind,
        cross_dim_head=sizes.cross_dim_head,
        dim_head=sizes.dim_head,
    )
    adapter = Adapter(cast(FrontEnd, ReadyTokens()), sizes.dim, sizes.inner, None if shared else encoder, gate)
    head = Head(
        sizes.dim,
        sizes.classes,
        cross_heads=sizes.cross_heads,
        cross_dim_head=sizes.cross_dim_head,
        projection=project(length=latents, heads=sizes.cross_heads) if everywhere else None,
        latent_mean="none",
    )
    return LinceiverIO(adapter, backbone, head)


def gated(sizes: Sizes, latents: int, length: int, columns: int, open_columns: int) -> LinceiverIO:
    """Build our model with a prefix gate over ``columns`` columns that leaves the first ``open_columns`` open or partly so."""
    ramp = 2.0
    gate = PrefixGate(columns, ramp)
    with torch.no_grad():
        # Column j = 1, 2, … is open where j < kappa + ramp.
        gate.fraction.fill_((open_columns + 0.5 - ramp) / columns)
    return linceiver(sizes, latents, length, "basis", columns, gate=gate)


Build = Callable[[], nn.Module]


def contestants(sizes: Sizes, latents: int, length: int, few: bool = False) -> dict[str, Build]:
    """Return the contestants of one cell by name, the baseline first; those with more rows than tokens are left out.

    Args:
        sizes: sizes of all contestants.
        latents: latents M.
        length: tokens N.
        few: only those in ``FEW``.
    """
    ours = partial(linceiver, sizes, latents, length)
    builds: dict[str, tuple[int, Build]] = {  # rows k, and how to build it
        BASELINE: (0, partial(PerceiverIO, sizes, latents)),
        "transformers": (0, partial(Transformers, sizes, latents)),
        "none": (0, ours),
        "basis 16": (16, partial(ours, "basis", 16)),
        "basis 32": (32, partial(ours, "basis", 32)),
        "basis 64": (64, partial(ours, "basis", 64)),
        "pool 32": (32, partial(ours, "pool", 32)),
        "dense-before 32": (32, partial(ours, "dense-before", 32)),
        "dense 32": (32, partial(ours, "dense", 32)),
        "dense 32, all stages": (32, partial(ours, "dense", 32, "all")),
    }
    return {name: build for name, (rank, build) in builds.items() if rank <= length and (name in FEW or not few)}
