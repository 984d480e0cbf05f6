"""A client that learns one task after another, small."""

from __future__ import annotations

import json
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from client.continual.grow import next_widths, set_widths, widths
from client.continual.memory import Memory, task_model
from client.continual.ownership import attach_owners, claim_free
from client.continual.prune import cubic, prune
from client.continual.session import Session, begin, finish
from client.continual.train import TaskData
from data_partition.client_data import Split
from models.convnet import SIDE, ConvNet
from tests.models.helpers import batch, tiny

WIDTHS = {"lenet5": 1.0, "vgg16-bn": 1 / 64, "resnet18": 1 / 64, "wrn-16-1": 1 / 4}
TOKEN_CASES = [(name, modality) for name in ("linceiver-io", "perceiver-io", "beit3") for modality in ("image", "text")]
CASES = [*TOKEN_CASES, *((name, "image") for name in WIDTHS)]
OPTIMIZERS = {
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=3e-3),
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True),
}


def small(name: str = "linceiver-io", modality: str = "image", **settings: object) -> nn.Module:
    """A model with owners, all of them free."""
    sizes = {"width": WIDTHS[name]} if name in WIDTHS else {"dim": 32, "latents": 4, "heads": 2, "cross_heads": 2, "layers": 1}
    model = tiny(modality, name=name, **sizes, **settings)
    attach_owners(model)
    return model


def inputs_of(model: nn.Module, modality: str, size: int = 4, seed: int = 1) -> Tensor:
    """A batch of the model's size."""
    return batch(modality, size, seed, SIDE if isinstance(model, ConvNet) else 16)


def learn(
    model: nn.Module,
    memory: Memory,
    task: int,
    modality: str,
    *,
    optimizer: str = "adamw",
    keep: float = 0.5,
    steps: int = 4,
    grow: bool = False,
) -> Session:
    """Claim, train with weight decay, prune by the cubic schedule while training, finish."""
    if grow:
        now = widths(model)
        set_widths(model, next_widths(now, now, 0.5, 4.0), seed=task)
    claim_free(model, task)
    session = begin(model, memory, task)
    descent = OPTIMIZERS[optimizer](session.parameter_groups(0.1, scores={"lr": 5e-3}))
    inputs, labels = inputs_of(model, modality, 6, seed=task), torch.arange(6) % 5
    model.train()
    torch.manual_seed(task)
    for step in range(steps):
        descent.zero_grad()
        F.cross_entropy(session(inputs), labels).backward()
        descent.step()
        prune(session, cubic(step, 0, steps - 2, 0.0, 1 - keep), descent)
    finish(session)
    return session


def logits_of(model: nn.Module, memory: Memory, modality: str, verify: bool = False) -> dict[int, Tensor]:
    """Logits of every finished task on fixed inputs."""
    with torch.no_grad():
        inputs = inputs_of(model, modality, seed=99)
        return {task: task_model(model, memory, task, verify=verify)(inputs) for task in memory.records}


def changed(before: dict[int, Tensor], after: dict[int, Tensor]) -> list[int]:
    """Tasks whose logits are not bit-equal."""
    return [task for task, logits in before.items() if not torch.equal(logits, after[task])]


def separable(task: int, size: int = 15, classes: int = 3, side: int = 16) -> TaskData:
    """Images in which the place of a bright patch is the class; each task has other places. No augmentation."""

    def split(seed: int) -> Split:
        labels = torch.arange(size) % classes
        images = torch.rand(size, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 0.3
        for image, label in zip(images, labels.tolist(), strict=True):
            place = (5 * task + 3 * label) % 16
            patch = side // 4
            image[:, patch * (place // 4) :, patch * (place % 4) :][:, :patch, :patch] += 0.7
        return Split(images, labels)

    return TaskData(split(2 * task), split(2 * task + 1))


class Facts:
    """Records facts, and fails in place of the one after ``survive``, as a process that is killed."""

    def __init__(self, survive: int | None = None) -> None:
        self.survive = survive
        self.seen: list[dict[str, Any]] = []

    def __call__(self, event: str, /, **fields: Any) -> None:
        if len(self.seen) == self.survive:
            raise KilledError
        json.dumps(fields, allow_nan=False)
        self.seen.append({"event": event, **fields})

    @property
    def events(self) -> list[str]:
        """Names of the facts, in order."""
        return [fact["event"] for fact in self.seen]


class KilledError(Exception):
    """The process was killed."""
