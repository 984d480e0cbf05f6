"""Small students and teachers, and data in which the place of a bright patch is the class."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from client.continual.train import Optimisation, TaskData
from client.packing.data import PackData
from client.packing.teachers import Teacher
from config import Packing
from models.groups import named_tensors
from tests.client.continual.helpers import separable
from tests.models.helpers import batch, tiny

CLASSES = ("ant", "bee", "cat")
HOW = Optimisation(batch_size=5)
CPU = torch.device("cpu")


def model(seed: int = 0, modality: str = "image", classes: int = 3, **settings: object) -> nn.Module:
    """Half the default width and one layer, unless told otherwise."""
    small = {"dim": 32, "latents": 4, "heads": 2, "cross_heads": 2, "layers": 1}
    return tiny(modality, num_classes=classes, seed=seed, **{**small, **settings})


def teacher(
    seed: int = 1, name: str = "", classes: Sequence[str] = CLASSES, net: nn.Module | None = None, **fields: object
) -> Teacher:
    """An untrained teacher that is sure of its answers."""
    own = net or model(seed, classes=len(classes))
    with torch.no_grad():
        own.get_submodule("head").classifier.weight.mul_(8.0)  # type: ignore[union-attr, operator]
    return Teacher(name or f"teacher-{seed}", own, tuple(classes), **fields)  # type: ignore[arg-type]


def data(size: int = 10, unlabelled: int = 12, **fields: object) -> PackData:
    """Labelled and unlabelled images, without validation examples."""
    task = separable(0, size=size)
    empty = replace(task.val, inputs=task.val.inputs[:0], labels=task.val.labels[:0])
    more = separable(3, size=unlabelled).train.inputs if unlabelled else None
    return PackData(TaskData(task.train, empty), CLASSES, more, **fields)  # type: ignore[arg-type]


def packing(**settings: object) -> Packing:
    return Packing.model_validate({"epochs": 2, **settings})


def tensors(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in named_tensors(net).items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(value, right[name]) for name, value in left.items())


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def texts(size: int) -> Tensor:
    return batch("text", size)


class Watched(nn.Module):
    """A teacher that remembers what it computed, and for how long that lives."""

    alive: list[weakref.ref[Tensor]] = []  # noqa: RUF012
    peak = 0
    calls = 0

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.head = inner.head
        for layer in inner.modules():
            layer.register_forward_hook(self.note)

    @staticmethod
    def note(_: nn.Module, __: object, output: object) -> None:
        for value in output if isinstance(output, tuple | list) else [output]:
            if isinstance(value, Tensor):
                Watched.alive.append(weakref.ref(value))

    def trace(self, inputs: Tensor) -> object:
        # Nothing that another teacher computed, or this one before, is alive when one is asked.
        Watched.calls += 1
        Watched.peak = max(Watched.peak, sum(ref() is not None for ref in Watched.alive))
        Watched.alive.clear()
        return self.inner.trace(inputs)  # type: ignore[operator]
