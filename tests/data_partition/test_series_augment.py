"""Removal, Noise, Shift and their mixes: what each does to every window, how far it goes, and that a generator decides."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from config import Data
from data_partition.series_augment import STEPS, add_noise, change, remove, shift


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(size: int = 200, samples: int = 20) -> torch.Tensor:
    """Windows of which no value is 0 and no two of one channel are equal."""
    return 1 + torch.rand(size, 3, samples, generator=generator(9))


def test_every_value_of_the_config_is_done():
    assert set(STEPS) == set(get_args(Data.model_fields["series_augment"].annotation))


@pytest.mark.parametrize("how", STEPS)
def test_the_generator_decides_and_the_batch_stays(how):
    windows = batch()
    before = windows.clone()
    first, again, other = (change(windows, how, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(windows, before)
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (how == "none")
    assert (first.shape, first.dtype) == (windows.shape, windows.dtype)


def test_removal_sets_one_stretch_of_up_to_half_to_zero_in_all_channels():
    windows = batch(2000)
    gone = remove(windows, generator()) == 0
    assert (gone == gone[:, :1]).all()
    assert torch.equal(remove(windows, generator())[~gone], windows[~gone])
    edges = gone[:, 0].int().diff(dim=1).abs().sum(dim=1) + gone[:, 0, 0].int() + gone[:, 0, -1].int()
    lengths = gone[:, 0].sum(dim=1)
    assert (edges == 2 * (lengths > 0)).all()  # one stretch
    assert set(lengths.tolist()) == set(range(11))
    starts = {int(row.int().argmax()) for row in gone[:, 0] if row.sum() == 10}
    assert starts == set(range(11))  # anywhere it fits


def test_shift_turns_each_window_by_up_to_half_either_way():
    windows = batch(1000)
    moved = shift(windows, generator())
    by = [
        next(n for n in range(-10, 11) if torch.equal(new, old.roll(n, dims=1)))
        for old, new in zip(windows, moved, strict=True)
    ]
    assert set(by) | {10} == set(range(-10, 11))  # ± 10 of 20 are the same turn
    assert all(20 < by.count(n) < 80 for n in range(-9, 10))  # each about once in 21


def test_noise_has_a_deviation_of_its_own_in_every_window():
    windows = batch(400, 500)
    deviations = (add_noise(windows, generator()) - windows).flatten(1).std(dim=1)
    assert float(deviations.max()) < 0.21
    assert abs(float(deviations.mean()) - 0.1) < 0.01
    assert float(deviations.min()) < 0.01


def test_mixes_are_their_parts_in_order():
    windows = batch()
    first, second = generator(4), generator(4)
    assert torch.equal(change(windows, "mix1", first), shift(remove(windows, second), second))
    assert torch.equal(change(windows, "mix2", first), shift(add_noise(remove(windows, second), second), second))
