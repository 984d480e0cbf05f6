"""What a client of FedWeIT remembers: one base, and for each task a mask, sparse adaptive parameters and private tensors.

    weight of task t = base * mask_t + adaptive_t + sum_k alpha_tk foreign_k        (FedWeIT; mask: one number a row)

``base`` and, while a later task is trained, ``adaptive_t`` change after the task is finished: it may forget a little, so a
task's model is the one *as it is now*, and no hash is kept. Adaptive parameters of other clients never change: each is stored
once, whichever tasks use it, and a task refers to it by its hash. Tensors of a state are on the CPU and replaced, never
written into.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from client.continual.memory import install
from client.continual.sparse import dense_all, sparse_all
from models.arrays import Arrays
from models.groups import copy_model

Tensors = dict[str, Tensor]
VERSION = 1


@dataclass
class WeITTask:
    """One task; tensors by the name of the weight they belong to, but for ``private``.

    Attributes:
        mask: before it is clipped to [0, 1], shape (rows,).
        adaptive: A, the shape of the weight, mostly zeros.
        alpha: how much of each foreign A is added, shape (foreign,).
        foreign: hashes of the A of other clients, in the order of alpha.
        private: all that the task has for itself besides: biases, norms, latents, adapter, head.
    """

    mask: Tensors
    adaptive: Tensors
    alpha: Tensors
    foreign: tuple[str, ...]
    private: Tensors


@dataclass
class Before:
    """The base and the earlier tasks' A at the end of the last task, from which drift is measured."""

    base: Tensors
    adaptive: dict[int, Tensors]


@dataclass
class WeITState:
    """Everything of one client.

    Attributes:
        base: B by name of the weight; empty before the first task, if the server sent none.
        tasks: by task id, the unfinished one included.
        foreign: A of other clients' tasks, by hash.
        unfinished: the task in training; 0: none.
        before: see there; None: no task is in training, and B is that of the last one.
    """

    base: Tensors = field(default_factory=dict)
    tasks: dict[int, WeITTask] = field(default_factory=dict)
    foreign: dict[str, Tensors] = field(default_factory=dict)
    unfinished: int = 0
    before: Before | None = None

    def task(self, task: int) -> WeITTask:
        """Return a task.

        Raises:
            ValueError: the task is not known.
        """
        if task not in self.tasks:
            raise ValueError(f"task {task} is not known: found {sorted(self.tasks)}")
        return self.tasks[task]

    def hold(self) -> None:
        """Note B and A as they are, unless that was done since the last task ended."""
        if self.before is None:
            self.before = Before(self.base, {task: part.adaptive for task, part in self.tasks.items()})


def rows(mask: Tensor, weight: Tensor) -> Tensor:
    """Return a mask clipped to [0, 1], to be multiplied with a weight row by row."""
    return mask.clamp(0, 1).view(-1, *[1] * (weight.ndim - 1))


def weight_of(base: Tensor, mask: Tensor, adaptive: Tensor, alpha: Tensor, foreign: Tensor) -> Tensor:
    """Return the weight of a task; see the module's docstring.

    Args:
        base: shape (rows, ...).
        mask: (rows,).
        adaptive: (rows, ...).
        alpha: (n,); n may be 0.
        foreign: (n, rows, ...).
    """
    weight = base * rows(mask, base) + adaptive
    return weight + torch.tensordot(alpha, foreign, dims=1) if len(alpha) else weight


def stack_foreign(state: WeITState, part: WeITTask) -> Tensors:
    """Return the foreign A that a task uses, one above the other, by name."""
    return {
        name: torch.stack([state.foreign[key][name] for key in part.foreign])
        if part.foreign
        else base.new_zeros(0, *base.shape)
        for name, base in state.base.items()
    }


def task_model(model: nn.Module, state: WeITState, task: int) -> nn.Module:
    """Return the plain model of a task as it is now, in evaluation mode.

    It shares no tensor with ``model`` but those of FROZEN, and ``model`` is not changed.

    Raises:
        ValueError: the task is not known.
    """
    part = state.task(task)
    foreign = stack_foreign(state, part)
    weights = {
        name: weight_of(base, part.mask[name], part.adaptive[name], part.alpha[name], foreign[name])
        for name, base in state.base.items()
    }
    own = copy_model(model).eval()
    install(own, weights | part.private)
    return own


def pack(state: WeITState) -> tuple[Arrays, dict[str, Any]]:
    """Return everything as arrays, A as sparse ones, and JSON facts, for :func:`models.storage.save_record`."""
    arrays: Arrays = {}
    for prefix, tensors in _dense_parts(state):
        arrays |= {prefix + name: _array(value) for name, value in tensors.items()}
    for prefix, tensors in _sparse_parts(state):
        arrays |= {prefix + name: value for name, value in sparse_all({n: _array(v) for n, v in tensors.items()}).items()}
    facts = {
        "version": VERSION,
        "unfinished": state.unfinished,
        "tasks": {str(task): list(part.foreign) for task, part in state.tasks.items()},
        "foreign": list(state.foreign),
        "before": None if state.before is None else list(state.before.adaptive),
    }
    return arrays, facts


def unpack(arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> WeITState:
    """Return the state that was packed.

    Raises:
        ValueError: the facts are of another version, or arrays are missing.
    """
    if facts.get("version") != VERSION:
        raise ValueError(f"found a record of version {facts.get('version')}, expected {VERSION}")

    def found(prefix: str) -> Arrays:
        return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}

    def dense_part(prefix: str) -> Tensors:
        return {name: torch.from_numpy(value.copy()) for name, value in found(prefix).items()}

    base = dense_part("base.")
    shapes = {name: tuple(value.shape) for name, value in base.items()}

    def sparse_part(prefix: str) -> Tensors:
        return {name: torch.from_numpy(value) for name, value in dense_all(found(prefix), shapes).items()}

    state = WeITState(base, unfinished=facts["unfinished"])
    for task, foreign in facts["tasks"].items():
        state.tasks[int(task)] = WeITTask(
            mask=dense_part(f"mask-{task}."),
            adaptive=sparse_part(f"adaptive-{task}."),
            alpha=dense_part(f"alpha-{task}."),
            foreign=tuple(foreign),
            private=dense_part(f"private-{task}."),
        )
    state.foreign = {key: sparse_part(f"foreign-{key}.") for key in facts["foreign"]}
    if facts["before"] is not None:
        state.before = Before(dense_part("before."), {task: sparse_part(f"before-{task}.") for task in facts["before"]})
    return state


def parameters_stored(state: WeITState) -> float:
    """Return how many parameters a client stores: those of A that are not zero, and all others.

    Base, masks, alphas and private tensors count whole, a foreign A once, whichever tasks use it; while a task is in training
    also what its drift is measured from. The positions of A, 1/32 of a parameter each, are in :func:`stored_bytes` alone.
    """
    whole = sum(value.numel() for _, tensors in _dense_parts(state) for value in tensors.values())
    return float(whole + sum(nonzeros(tensors) for _, tensors in _sparse_parts(state)))


def stored_bytes(state: WeITState) -> int:
    """Return the bytes of all arrays of :func:`pack`."""
    return sum(array.nbytes for array in pack(state)[0].values())


def nonzeros(tensors: Mapping[str, Tensor]) -> int:
    """Return how many numbers are not zero."""
    return sum(int(torch.count_nonzero(value)) for value in tensors.values())


def density(parts: Iterable[Mapping[str, Tensor]]) -> float:
    """Return the share of numbers that are not zero; 0.0 of none at all."""
    parts = list(parts)
    size = sum(value.numel() for tensors in parts for value in tensors.values())
    return sum(nonzeros(tensors) for tensors in parts) / size if size else 0.0


def cut(value: Tensor, threshold: float) -> Tensor:
    """Return a tensor with 0 where it is at most ``threshold`` from 0."""
    return torch.where(value.abs() <= threshold, 0.0, value)


def to_cpu(parameters: Mapping[str, Tensor], threshold: float = 0.0) -> Tensors:
    """Return copies on the CPU, cut at a threshold."""
    return {name: cut(value.detach(), threshold).to("cpu", copy=True) for name, value in parameters.items()}


def check_arrays(arrays: Mapping[str, np.ndarray], like: Mapping[str, Tensor], what: str) -> Tensors:
    """Return arrays of another client or the server as tensors, in the order of ``like``.

    Raises:
        ValueError: a name is missing or unknown, a shape is wrong, or a value is not finite; ``what`` says of what.
    """
    if wrong := set(arrays) ^ set(like):
        raise ValueError(f"{what}: {sorted(wrong)[:4]} are missing or unknown, expected the {len(like)} weights of the model")
    for name, value in arrays.items():
        if value.shape != tuple(like[name].shape):
            raise ValueError(f"{what}: {name!r} has shape {value.shape}, expected {tuple(like[name].shape)}")
        if not np.isfinite(value).all():
            raise ValueError(f"{what}: {name!r} has values that are NaN or infinite, expected finite ones")
    return {name: torch.from_numpy(np.array(arrays[name], dtype=np.float32)) for name in like}


def _dense_parts(state: WeITState) -> Iterator[tuple[str, Tensors]]:
    yield "base.", state.base
    for task, part in state.tasks.items():
        yield f"mask-{task}.", part.mask
        yield f"alpha-{task}.", part.alpha
        yield f"private-{task}.", part.private
    if state.before is not None:
        yield "before.", state.before.base


def _sparse_parts(state: WeITState) -> Iterator[tuple[str, Tensors]]:
    for task, part in state.tasks.items():
        yield f"adaptive-{task}.", part.adaptive
    for key, tensors in state.foreign.items():
        yield f"foreign-{key}.", tensors
    if state.before is not None:
        for task, tensors in state.before.adaptive.items():
            yield f"before-{task}.", tensors


def _array(value: Tensor) -> np.ndarray:
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
