"""What a forward pass computed, for distillation; the same for every model."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Trace:
    """The stages of one forward pass.

    Attributes:
        latents: (B,M,D) after the encoder, if the model has one, and after each of the L blocks. ``linceiver-io`` and
            ``perceiver-io``: L + 1 of them. ``perceiver``, whose blocks are encoders too: L. ``beit3``: L + 1, tokens (B,N,D)
            of the front end and after each block, padding included. ``lenet5`` and ``vgg16-bn``: one for each block, the
            places of its maps by their channels, (B, H * W, C), or features (B,1,F). ``wrn-d-k`` and ``resnet18``: the maps of
            the three or four stages, likewise; of series (B,T,C).
        queries: what the classifier reads, (B,Q,D), or (B,Q,2D) if the latent mean is concatenated. ``perceiver`` and
            ``beit3``: the pooled latents or tokens, the convolutional networks: the last features, Q = 1.
        logits: (B, classes).
        grids: of each stage height and width of the map whose places are its rows, empty for latents, tokens and features;
            or () for all.
    """

    latents: tuple[Tensor, ...]
    queries: Tensor
    logits: Tensor
    grids: tuple[tuple[int, ...], ...] = ()
