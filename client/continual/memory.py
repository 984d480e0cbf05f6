"""What a client remembers of its tasks: picks, private tensors and widths; the weights themselves are in the model.

One model + for each task 1 bit per ownable weight + its private tensors is all that is stored, as arrays and facts for
:func:`models.storage.save_record`: where earlier tasks own a weight the bit is a pick, elsewhere it says whether the task owns
it. A task's model can be taken out whole (:func:`task_model`), as a plain model of its own.

Source: CPG (Hung et al., NeurIPS 2019). Unlike theirs, a pick is one bit and exists only where 0 < owner < task.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from client.continual.grow import set_widths, widths
from client.continual.ownership import (
    OWNER,
    attach_owners,
    check_task,
    effective_weights,
    owners,
    pickable,
    private_names,
)
from models.arrays import Arrays, get_arrays, set_arrays
from models.groups import Group, copy_model, get_tensors, group_of, named_tensors, stored_names

AdapterPolicy = Literal["private", "first"]
MODEL = "model."
OWNED = re.compile(r"task-(\d+)\.owned")
VERSION = 2


class ForgottenError(RuntimeError):
    """A task's weights are no longer those that it learned."""


@dataclass
class TaskRecord:
    """What one finished task needs besides the weights.

    Attributes:
        widths: units of each seam that the model had (client/continual/grow.py).
        picks: uint8, 8 picks each, in the order of the model; the rest of the last byte is 0.
        pickable: number of picks.
        private: the task's private tensors by name, on the CPU.
        digest: hash of all it computes with.
    """

    widths: dict[str, int]
    picks: np.ndarray
    pickable: int
    private: dict[str, Tensor]
    digest: str = ""


@dataclass
class Memory:
    """The finished tasks of one client.

    Attributes:
        adapter: ``private``: each task has its own; ``first``: all have that of the first task, which stays as it is. A text
            embedding may be larger than the backbone.
        records: by task id.
        base: units of each seam before the first task, of which a cap on growth is a multiple; empty: not set.
    """

    adapter: AdapterPolicy = "private"
    records: dict[int, TaskRecord] = field(default_factory=dict)
    base: dict[str, int] = field(default_factory=dict)

    @property
    def latest(self) -> int:
        """The last finished task; 0: none yet."""
        return max(self.records, default=0)

    def record(self, task: int) -> TaskRecord:
        """Return a task's record.

        Raises:
            ValueError: the task is not finished.
        """
        if task not in self.records:
            raise ValueError(f"task {task} is not known: found {sorted(self.records)}")
        return self.records[task]

    def shares_adapter(self, task: int) -> bool:
        """Whether a task computes with the adapter of an earlier one."""
        return self.adapter == "first" and any(done < task for done in self.records)

    def private(self, task: int) -> dict[str, Tensor]:
        """Return all private tensors that a finished task computes with, a shared adapter included."""
        return self.shared_adapter(task) | self.record(task).private

    def shared_adapter(self, task: int) -> dict[str, Tensor]:
        """Return the adapter that a task has from the first one; empty: it has its own."""
        if not self.shares_adapter(task):
            return {}
        first = self.records[min(self.records)].private
        return {name: value for name, value in first.items() if group_of(name) is Group.ADAPTER}


def remember(model: nn.Module, memory: Memory, task: int, picks: Tensor, shared: frozenset[Group] = frozenset()) -> TaskRecord:
    """Write down a task that is finished: its weights and private tensors are in the model.

    Args:
        model: with owners.
        memory: gets the record.
        task: from 1; no later one may be finished.
        picks: bool, shape (weights with 0 < owner < task,), in the order of the model.
        shared: groups of which the task has no private tensors, and computes with whatever the model holds.

    Raises:
        ValueError: the task is out of range, a later one is finished, or the number of picks is wrong.
    """
    check_task(task)
    if memory.latest > task:
        raise ValueError(f"task {task} cannot be written: task {memory.latest} came after it and builds on it")
    without = shared | ({Group.ADAPTER} if memory.shares_adapter(task) else set())
    record = TaskRecord(
        widths=widths(model),
        picks=np.packbits(picks.cpu().numpy()),
        pickable=len(picks),
        private=get_tensors(model, private_names(model, without)),
    )
    weights = effective_weights(model, task, picks)
    record.digest = digest(weights | record.private | memory.shared_adapter(task))
    memory.records[task] = record
    return record


def task_model(model: nn.Module, memory: Memory, task: int, *, verify: bool = True) -> nn.Module:
    """Return the model of a finished task: a plain one, without owners, of the width it had, in evaluation mode.

    It shares no tensor with ``model`` but those of FROZEN, and ``model`` is not changed. Logits are bit-equal to those of the
    day it was finished, on the same machine and with as many threads.

    Args:
        model: with owners; may have learned, and grown for, later tasks.
        memory: the finished tasks.
        task: which one.
        verify: compare the hash of all the task computes with.

    Raises:
        ValueError: the task is not known.
        ForgottenError: the hash is another one, as after an average with another model.
    """
    record = memory.record(task)
    own = copy_model(model).eval()
    set_widths(own, record.widths)
    picks = torch.from_numpy(np.unpackbits(record.picks, count=record.pickable).astype(bool))
    weights = effective_weights(own, task, picks)
    private = memory.private(task)
    if verify and digest(weights | private) != record.digest:
        raise ForgottenError(
            f"task {task} no longer computes with the tensors it learned: something wrote weights that it owns or picks. "
            "Load the state of before"
        )
    install(own, weights | private)
    for module in own.modules():
        if "owner" in module._buffers:
            del module.owner
    return own


def put_back(model: nn.Module, memory: Memory, task: int) -> None:
    """Copy a task's private tensors into the model, to train it further.

    Raises:
        ValueError: the task is not known, or the model has another width now.
    """
    if widths(model) != memory.record(task).widths:
        raise ValueError(f"the model has grown since task {task}, whose tensors no longer fit: use task_model to evaluate it")
    install(model, memory.private(task))


@torch.no_grad()
def install(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into a model in place; one of another shape, as of a head for more classes, replaces the model's own.

    Raises:
        ValueError: the model has no tensor of that name.
    """
    known = named_tensors(model)
    for name, value in tensors.items():
        if name not in known:
            raise ValueError(f"tensor {name!r} is unknown: the model has {len(known)} others")
        old = known[name]
        if old.shape == value.shape:
            old.copy_(value)
            continue
        new = value.detach().to(old.device, old.dtype, copy=True)
        for module in model.modules():
            for key, parameter in module._parameters.items():
                if parameter is old:
                    module._parameters[key] = nn.Parameter(new, old.requires_grad)
            for key, buffer in module._buffers.items():
                if buffer is old:
                    module._buffers[key] = new


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Hash names, shapes and bits of tensors, in the order of their names."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        found.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def pack(model: nn.Module, memory: Memory) -> tuple[Arrays, dict[str, Any]]:
    """Return everything as arrays and JSON facts: the model as it is, and the records of its tasks."""
    names = [name for name in stored_names(model) if not name.endswith(OWNER)]
    arrays = {MODEL + name: value for name, value in get_arrays(model, names).items()}
    arrays |= {f"task-{task}.owned": bits for task, bits in pack_owners(model).items()}
    for task, record in memory.records.items():
        arrays |= {f"task-{task}.{name}": _array(value) for name, value in record.private.items()}
        arrays[f"task-{task}.picks"] = record.picks
    tasks = {
        str(task): {"widths": record.widths, "pickable": record.pickable, "digest": record.digest}
        for task, record in memory.records.items()
    }
    facts = {"version": VERSION, "adapter": memory.adapter, "base": memory.base, "widths": widths(model), "tasks": tasks}
    return arrays, facts


def pack_owners(model: nn.Module) -> dict[int, np.ndarray]:
    """Return for each task up to the last owner one bit for each weight that no earlier task owns: whether the task does."""
    left = torch.cat([owner.reshape(-1) for owner in owners(model).values()]).cpu().numpy()
    found = {}
    for task in range(1, int(left.max()) + 1):
        mine = left == task
        found[task] = np.packbits(mine)
        left = left[~mine]
    return found


@torch.no_grad()
def unpack_owners(model: nn.Module, bits: Mapping[int, np.ndarray]) -> None:
    """Put what :func:`pack_owners` returned into a model of the same widths.

    Raises:
        ValueError: there are more or fewer bits than weights.
    """
    own = owners(model)
    flat = np.zeros(sum(owner.numel() for owner in own.values()), np.uint8)
    left = np.arange(len(flat))
    for task, packed in sorted(bits.items()):
        if len(packed) != -(-len(left) // 8):
            raise ValueError(f"found {len(packed)} bytes of owners of task {task}, expected {-(-len(left) // 8)}")
        mine = np.unpackbits(packed, count=len(left)).astype(bool)
        flat[left[mine]] = task
        left = left[~mine]
    parts = torch.split(torch.from_numpy(flat), [owner.numel() for owner in own.values()])
    for owner, part in zip(own.values(), parts, strict=True):
        owner.copy_(part.view(owner.shape))


def unpack(model: nn.Module, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> Memory:
    """Put what :func:`pack` returned into a new model of the same settings, which grows as needed; return the memory.

    The head and the adapter take the shapes of the arrays, as the last task may have had more classes than the model's first.

    Raises:
        ValueError: the arrays do not fit the model, or the facts are of another version.
    """
    if facts.get("version") != VERSION:
        raise ValueError(f"found a record of version {facts.get('version')}, expected {VERSION}")
    attach_owners(model)
    set_widths(model, facts["widths"])
    own = {name.removeprefix(MODEL): value for name, value in arrays.items() if name.startswith(MODEL)}
    known = named_tensors(model)
    other = {n: torch.from_numpy(v.copy()) for n, v in own.items() if n in known and known[n].shape != v.shape}
    expected = {name for name in stored_names(model) if not name.endswith(OWNER)}
    wrong = set(own) ^ expected | {name for name in other if group_of(name) is Group.BACKBONE}
    if wrong:
        raise ValueError(f"{sorted(wrong)} are missing or have other shapes: the model was built with other settings")
    install(model, other)
    set_arrays(model, own)
    unpack_owners(model, {int(OWNED.fullmatch(name)[1]): bits for name, bits in arrays.items() if OWNED.fullmatch(name)})  # type: ignore[index]
    memory = Memory(facts["adapter"], base=dict(facts.get("base", {})))
    dtypes = {name: tensor.dtype for name, tensor in named_tensors(model).items()}
    for task, fact in facts["tasks"].items():
        prefix = f"task-{task}."
        mine = {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
        picks = mine.pop("picks")
        mine.pop("owned", None)
        private = {name: torch.from_numpy(value.copy()).to(dtypes[name]) for name, value in mine.items()}
        memory.records[int(task)] = TaskRecord(fact["widths"], picks, fact["pickable"], private, fact["digest"])
    return memory


def _array(value: Tensor) -> np.ndarray:
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()


@dataclass(frozen=True)
class StoredBytes:
    """Bytes of tensors on disk: weights and private tensors of the model as it is, and what the tasks add.

    ``masks`` are owners and picks together, at most one bit per ownable weight and task.
    """

    model: int
    masks: int
    private: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.model + self.masks + self.private


def stored_bytes(model: nn.Module, memory: Memory) -> StoredBytes:
    """Return what :func:`pack` stores: one model + for each task 1 bit per ownable weight + its private tensors."""
    tensors = named_tensors(model)
    picks = sum(record.picks.nbytes for record in memory.records.values())
    return StoredBytes(
        model=_bytes(tensors[name] for name in stored_names(model) if not name.endswith(OWNER)),
        masks=picks + sum(bits.nbytes for bits in pack_owners(model).values()),
        private=sum(_bytes(record.private.values()) for record in memory.records.values()),
    )


def count_pickable(model: nn.Module, task: int) -> int:
    """Return the number of weights with 0 < owner < task."""
    return sum(int(mask.sum()) for mask in pickable(model, task).values())


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * max(tensor.element_size(), 4 * (tensor.dtype == torch.bfloat16)) for tensor in tensors)
