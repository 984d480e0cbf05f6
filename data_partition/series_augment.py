"""Augmentation of windows of series: Removal, Noise, Shift, and their mixes, batched and drawn from a passed generator.

    removal   a stretch of time is set to 0, in all channels: at most half of the window, anywhere in it
    noise     Gaussian noise is added, of a deviation drawn for each window from [0, 0.2]
    shift     the window is turned in time, by up to half of it either way: what leaves it at one end enters at the other
    mix1      removal, then shift
    mix2      removal, then noise, then shift

Windows are z-scored, so that 0 is the mean of a channel and deviations are in units of its own. The five are those of the
paper, of which mix1, for the student, is its general advice; how far each goes is our choice, as the paper's ranges could not
be read.

Every function returns a new tensor of the same shape and type and leaves the batch alone; draws are made on the generator's
device, one for each window.

Source: Jeon et al., Role of Data Augmentation Strategies in Knowledge Distillation for Wearable Sensor Data (IEEE Internet of
Things Journal 2022, arXiv:2201.00111).
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Generator, Tensor

LONGEST_REMOVAL: Final = 0.5
LARGEST_NOISE: Final = 0.2
FARTHEST_SHIFT: Final = 0.5
STEPS: Final = {
    "none": (),
    "removal": ("removal",),
    "noise": ("noise",),
    "shift": ("shift",),
    "mix1": ("removal", "shift"),
    "mix2": ("removal", "noise", "shift"),
}
"""What each value of ``data.series_augment`` does, in its order."""


def change(windows: Tensor, how: str, generator: Generator) -> Tensor:
    """Return randomly changed windows.

    Args:
        windows: float (n, channels, samples), z-scored.
        how: ``data.series_augment``.
        generator: source of all draws.
    """
    for step in STEPS[how]:
        windows = {"removal": remove, "noise": add_noise, "shift": shift}[step](windows, generator)
    return windows


def remove(windows: Tensor, generator: Generator, longest: float = LONGEST_REMOVAL) -> Tensor:
    """Set a stretch of each window to 0, in all channels.

    Its length is drawn from 0 to ``longest`` times the window, rounded down, and its start from those at which it fits.
    """
    samples = windows.shape[2]
    lengths = _integers(torch.full((len(windows),), int(longest * samples)), generator)
    starts = _integers(samples - lengths, generator)
    place = torch.arange(samples)
    gone = (place >= starts[:, None]) & (place < (starts + lengths)[:, None])
    return windows.masked_fill(gone[:, None].to(windows.device), 0.0)


def add_noise(windows: Tensor, generator: Generator, largest: float = LARGEST_NOISE) -> Tensor:
    """Add Gaussian noise to each window, of a deviation drawn from [0, ``largest``]."""
    deviations = largest * torch.rand((len(windows), 1, 1), generator=generator, device=generator.device)
    noise = torch.randn(windows.shape, generator=generator, device=generator.device)
    return windows + (deviations * noise).to(windows)


def shift(windows: Tensor, generator: Generator, farthest: float = FARTHEST_SHIFT) -> Tensor:
    """Turn each window in time, all channels alike, by up to ``farthest`` times its samples either way."""
    samples = windows.shape[2]
    most = int(farthest * samples)
    by = _integers(torch.full((len(windows),), 2 * most), generator) - most
    place = (torch.arange(samples) - by[:, None]) % samples
    return windows.gather(2, place[:, None].expand(-1, windows.shape[1], -1).to(windows.device))


def _integers(highest: Tensor, generator: Generator) -> Tensor:
    """Draw an integer from 0 to ``highest``, both included, for each of its elements, int64 (n,)."""
    draws = torch.rand(len(highest), generator=generator, device=generator.device).cpu()
    return torch.minimum((draws * (highest + 1)).long(), highest)
