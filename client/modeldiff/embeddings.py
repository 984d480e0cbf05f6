"""Offsets of the word embeddings of a text model, by a hook that is there for one computation only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from models.front_ends import BertFrontEnd, TextFrontEnd


def embedding_module(model: nn.Module) -> nn.Module:
    """Return the module that turns token ids (B,N) into word embeddings (B,N,D).

    With frozen embeddings of BERT it is these, which all models have in common; else the client's own.

    Raises:
        ValueError: the model takes no texts.
    """
    front = getattr(getattr(model, "adapter", None), "front", None)
    if isinstance(front, TextFrontEnd):
        return front.embed
    frozen = getattr(model, "frozen", None)
    if isinstance(front, BertFrontEnd) and isinstance(frozen, nn.Module):
        return frozen
    raise ValueError(f"the front end is {type(front).__name__}: expected that of a text model, which has word embeddings")


@torch.inference_mode()
def embedding_rms(model: nn.Module, tokens: Tensor) -> float:
    """Return the root mean square of the embeddings of some texts (B,N), padding left out."""
    words_BND = embedding_module(model)(tokens)
    return float(words_BND[tokens != 0].float().square().mean().sqrt())


@contextmanager
def shifted(model: nn.Module, offsets: Tensor) -> Iterator[None]:
    """Add offsets (B,N,D) to the word embeddings of every text that the model reads inside the context.

    Raises:
        ValueError: the model takes no texts, or its embeddings have another shape.
    """

    def add(module: nn.Module, args: tuple[Tensor, ...], words_BND: Tensor) -> Tensor:
        if words_BND.shape != offsets.shape:
            raise ValueError(
                f"offsets have shape {tuple(offsets.shape)}, expected that of embeddings {tuple(words_BND.shape)}"
            )
        return words_BND + offsets.to(words_BND.dtype)

    handle = embedding_module(model).register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()
