"""Images that stay in a file behave as the same images in memory, and only what is indexed is read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from data_partition.mapped_images import MappedImages
from data_partition.splits import MappedRows

PLACES = np.arange(10, 60)[::-1].copy()


@pytest.fixture
def pair(tmp_path):
    array = np.memmap(tmp_path / "pixels", dtype=np.uint8, mode="w+", shape=(100, 3, 8, 8))
    array[:] = np.random.default_rng(0).integers(0, 255, array.shape)
    array.flush()
    array = np.memmap(tmp_path / "pixels", dtype=np.uint8, mode="r", shape=(100, 3, 8, 8))
    return MappedImages(MappedRows(array, PLACES)), torch.from_numpy(array[PLACES])


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_it_is_used_as_the_tensor_that_it_stands_for(pair, mode):
    mapped, real = pair
    chosen = torch.randperm(50, generator=torch.Generator().manual_seed(0))[:7]
    with mode():
        assert (mapped.shape, mapped.dtype, mapped.device, len(mapped)) == (real.shape, real.dtype, real.device, 50)
        for read in (
            lambda x: x[chosen],
            lambda x: x[:32],
            lambda x: x[5:40:3][chosen.clamp(max=8)],
            lambda x: x[3],
            lambda x: x[:, 0],
            lambda x: x[[1, 2]],
            lambda x: x[x[:, 0, 0, 0] > 100],
            lambda x: torch.cat([part.to("cpu").float() for part in torch.split(x, 16)]),
            lambda x: torch.stack(list(x)),
            lambda x: x.clone(),
            lambda x: x.to(torch.float32) / 127.5 - 1.0,
            lambda x: F.interpolate(x[:2].float(), 4),
            lambda x: torch.from_numpy(x.numpy()),
            lambda x: x.max(),
        ):
            assert torch.equal(read(mapped), read(real))
        assert torch.equal(mapped, real)


class Counted(np.ndarray):
    """An array that counts the rows that are read from it."""

    rows = 0

    def __getitem__(self, chosen):
        found = super().__getitem__(chosen)
        Counted.rows += len(found)
        return found


def test_only_what_is_indexed_is_read(pair, monkeypatch):
    mapped, real = pair
    watched = MappedImages(MappedRows(mapped.rows.pixels.view(Counted), PLACES))
    monkeypatch.setattr(Counted, "rows", 0)
    parts = torch.split(watched[:40], 16)
    assert (Counted.rows, [len(part) for part in parts]) == (0, [16, 16, 8])
    assert type(watched[torch.tensor([3, 4])]) is torch.Tensor
    assert Counted.rows == 2
    assert torch.equal(parts[1].to(torch.float32), real[16:32].float())
    assert Counted.rows == 18


def test_nothing_is_written_into_the_file(pair):
    mapped, real = pair
    mapped.zero_()
    mapped[torch.tensor([0, 1])].zero_()
    assert torch.equal(mapped, real)
