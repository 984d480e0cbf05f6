"""Small models and batches for the tests of ``models/``."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from config import CONVOLUTIONAL, Model
from models.convnet import SIDE
from models.factory import BUILDERS, build_model

MODALITIES = ("image", "text", "series")
TOKEN_MODELS = [name for name in BUILDERS if name not in CONVOLUTIONAL]
"""Models for all modalities; the others have tests of their own in test_convnets.py and test_wrn.py."""
WINDOW, CHANNELS = 48, 6
"""Sizes of a series, which is 12 patches."""
LOW_RANKS = ("basis", "none", "dense", "dense-before", "pool")


def tiny(modality: str, low_rank: str = "basis", num_classes: int = 5, seed: int = 0, **settings: object) -> nn.Module:
    """A model of the default sizes on 16 x 16 images, 30 words or series; a convolutional network on 32 x 32 images."""
    small = {"rank": 8} if low_rank != "basis" else {}
    model = Model.model_validate({"low_rank": low_rank, **small, **settings})
    side = SIDE if model.name in CONVOLUTIONAL else 16
    sizes = {"image_size": side, "vocab_size": 30, "max_tokens": 12, "window": WINDOW, "channels": CHANNELS}
    return build_model(model, modality, num_classes, **sizes, seed=seed)


def batch(modality: str, size: int = 4, seed: int = 1, side: int = 16) -> Tensor:
    """Images in [0, 1], texts of different lengths, or z-scored series."""
    generator = torch.Generator().manual_seed(seed)
    if modality == "image":
        return torch.rand(size, 3, side, side, generator=generator)
    if modality == "series":
        return torch.randn(size, CHANNELS, WINDOW, generator=generator)
    ids = torch.randint(1, 30, (size, 10), generator=generator)
    lengths = torch.randint(1, 11, (size, 1), generator=generator)
    return torch.where(torch.arange(10) < lengths, ids, 0)


def save_bert(folder: Path, rows: int, positions: int, hidden: int) -> nn.Module:
    """Write a small random BERT model as transformers does, and return it."""
    from transformers import BertConfig, BertModel

    sizes = {"vocab_size": rows, "max_position_embeddings": positions, "hidden_size": hidden, "intermediate_size": 8}
    model: nn.Module = BertModel(BertConfig(num_hidden_layers=1, num_attention_heads=2, layer_norm_eps=1e-3, **sizes))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.embeddings.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    return model
