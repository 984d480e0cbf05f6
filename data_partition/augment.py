"""Batched augmentation of training inputs, drawn from a passed generator.

Both functions return a new tensor and leave the batch alone. Draws are made on the generator's device.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from data_partition.text import PAD_ID, UNK_ID


def flip_and_shift(images: Tensor, generator: Generator, max_shift: int = 3, border: str = "replicate") -> Tensor:
    """Mirror every image with probability 1/2 and shift it by up to ``max_shift`` pixels in each direction.

    One gather for the whole batch; shape and type are kept, and the draws do not depend on the border. A shift with a border
    of zeros is a random crop after padding with zeros, as in CPG and most work on CIFAR.

    Args:
        images: any type, (n, channels, height, width).
        generator: source of all draws.
        max_shift: largest shift in pixels; >= 0.
        border: ``data.shift_border``: ``replicate``, or ``zero``, which is black.
    """
    num, channels, height, width = images.shape
    device = generator.device
    shifts = torch.randint(-max_shift, max_shift + 1, (2, num, 1), generator=generator, device=device)
    flips = torch.rand((num, 1), generator=generator, device=device) < 0.5
    rows, columns = torch.arange(height, device=device) + shifts[0], torch.arange(width, device=device) + shifts[1]
    columns = torch.where(flips, width - 1 - columns, columns)
    inner_rows, inner_columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    pixels = (inner_rows[:, :, None] * width + inner_columns[:, None, :]).reshape(num, 1, height * width).to(images.device)
    flat = images.reshape(num, channels, height * width)
    moved = flat.gather(2, pixels.expand(-1, channels, -1)).reshape(images.shape)
    if border == "zero":
        outside = (rows != inner_rows)[:, None, :, None] | (columns != inner_columns)[:, None, None, :]
        moved.masked_fill_(outside.to(images.device), 0)
    return moved


def drop_words(tokens: Tensor, probability: float, generator: Generator, replacement: int = UNK_ID) -> Tensor:
    """Replace each token by ``replacement`` with a probability; a text keeps at least one of its tokens.

    [UNK] rather than padding, so that the length of a text tells nothing new and padding stays on the right.

    Args:
        tokens: ids, int64 (n, length), 0 = padding, which is never replaced.
        probability: of each token, in [0, 1].
        generator: source of all draws.
        replacement: id written instead.

    Source: word dropout of Bowman et al. (CoNLL 2016), applied to the input of a classifier.
    """
    draws = torch.rand(tokens.shape, generator=generator, device=generator.device).to(tokens.device)
    draws = draws.masked_fill(tokens == PAD_ID, -1.0)
    kept = draws >= probability
    kept |= draws == draws.amax(dim=1, keepdim=True)
    return torch.where(kept | (tokens == PAD_ID), tokens, replacement)
