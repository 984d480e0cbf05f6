"""The packer holds what the student and one teacher compute, for any number of teachers."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from client.continual.train import Optimisation
from client.packing.packer import pack
from tests.client.packing.helpers import HOW, Watched, data, model, packing, teacher


@pytest.mark.parametrize("views", ["same", "clean"])
def test_activations_of_one_teacher_at_a_time(watched: type[Watched], views: str) -> None:
    five = [replace(one, model=Watched(one.model)) for one in map(teacher, range(1, 6))]
    settings = packing(losses="kd,cosine,sp", weights="ebkd", views=views)
    pack(model(0), five, data(), settings, HOW)
    assert watched.alive
    assert watched.peak == 0
    # each: shapes, once for all rows, and where views are the same once in each of 4 steps
    assert watched.calls == 5 * (2 + (4 if views == "same" else 0))


class Peak(TorchDispatchMode):
    """Counts the bytes of all tensors that are made inside it and still alive, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.known, self.now, self.peak = WeakIdKeyDictionary(), 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self.note, found)
        return found

    def note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage not in self.known:
            self.known[storage] = size = storage.nbytes()
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.free, size)

    def free(self, size: int) -> None:
        self.now -= size


def test_peak_of_live_tensors_does_not_grow_with_teachers() -> None:
    peaks, sizes = [], {"dim": 32, "latents": 16, "layers": 2}
    material, settings = data(16, 64), packing(epochs=1, unlabelled_batch=64, losses="kd,sp")
    for number in (0, 1, 5):
        teachers = [teacher(k, net=model(k, **sizes)) for k in range(1, number + 1)]
        student = model(0, **sizes)
        with Peak() as counted:
            pack(student, teachers, material, settings, Optimisation(batch_size=16))
        peaks.append(counted.peak)
    assert 1.2 * peaks[0] < peaks[1] < peaks[2] < 1.1 * peaks[1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_peak_memory_of_the_device_does_not_grow_with_teachers() -> None:
    device, peaks, sizes = torch.device("cuda"), [], {"dim": 128, "latents": 64, "layers": 4}
    material, settings = data(64, 512), packing(epochs=1, unlabelled_batch=512)
    for number in (1, 1, 5):  # once to load kernels
        student = model(0, **sizes).to(device)
        teachers = [teacher(k, net=model(k, **sizes).to(device)) for k in range(1, number + 1)]
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        pack(student, teachers, material, settings, Optimisation(batch_size=64))
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[2] < 1.1 * peaks[1]
