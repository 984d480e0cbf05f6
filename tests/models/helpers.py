"""Small models and batches for the tests of ``models/``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from config import Model
from models.factory import build_model

MODALITIES = ("image", "text")
LOW_RANKS = ("basis", "none", "dense", "dense-before", "pool")


def tiny(modality: str, low_rank: str = "basis", num_classes: int = 5, seed: int = 0, **settings: object) -> nn.Module:
    """A model of the default sizes on 16 x 16 images or on 30 words."""
    small = {"rank": 8} if low_rank != "basis" else {}
    model = Model.model_validate({"low_rank": low_rank, **small, **settings})
    return build_model(model, modality, num_classes, image_size=16, vocab_size=30, max_tokens=12, seed=seed)


def batch(modality: str, size: int = 4, seed: int = 1) -> Tensor:
    """Images in [0, 1], or texts of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    if modality == "image":
        return torch.rand(size, 3, 16, 16, generator=generator)
    ids = torch.randint(1, 30, (size, 10), generator=generator)
    lengths = torch.randint(1, 11, (size, 1), generator=generator)
    return torch.where(torch.arange(10) < lengths, ids, 0)
