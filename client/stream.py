"""One client walking its stream of tasks: what it has learned so far, on disk after each task, and the task it is at.

The model, who owns what in it, and each task's private tensors are one record of the client's state (client/state.py), which
is numbered by the server. A task that is asked for again, because a process died, begins from the record before it.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from client import training
from client.continual import checkpoint
from client.continual.ewc import Anchor
from client.continual.grow import set_widths, widths
from client.continual.memory import Memory, install, pack, stored_bytes, task_model, unpack
from client.continual.methods import MASKED, METHODS, Work
from client.continual.ownership import OWNER, attach_owners, private_names
from client.continual.train import TaskData
from client.device import choose_device
from client.learner import cached_client, cached_model, make_recipe
from client.seeding import seed_for
from client.state import load_newest, save_state
from config import RunConfig
from data_partition.client_data import ClientData
from models.arrays import Arrays, set_arrays
from models.groups import Group, copy_model, get_tensors, group_of, named_tensors, ownable, stored_names
from strategies.protocol import SCRATCH, TARGET, Instruction

ANCHOR = "anchor-"
SCORES = "scores"
Learn = Callable[[nn.Module, Memory, Work], None]
Metrics = dict[str, float | list[int] | list[float]]


@dataclass
class Stream:
    """One client's stream as it stands.

    Attributes:
        config: settings of the run.
        instruction: what the server asked for.
        folder: the client's state on disk.
        data: the rows of the task of the instruction.
        device: where the model is.
        model: with owners; what the tasks have learned.
        memory: the finished tasks.
        fresh: a model of this task as initialised, of the first widths.
        scores: of the picks of a task in training; None: none.
        anchors: of ewc, by task.
        training: id of the task in training, from 1; 0: none.
        offset: ids before that of the client's first task; they own what came from donors.
        validation: of the last task that was learned.
        built_on: hash of what came from donors, if the task of the instruction begins with it.
    """

    config: RunConfig
    instruction: Instruction
    folder: Path
    data: ClientData
    device: torch.device
    model: nn.Module
    memory: Memory
    fresh: nn.Module
    scores: Tensor | None = None
    anchors: dict[int, Anchor] = field(default_factory=dict)
    training: int = 0
    offset: int = 0
    validation: float = 0.0
    built_on: str = ""

    @property
    def method(self) -> str:
        """How the stream is learned."""
        return self.instruction.method or self.config.continual.method

    @property
    def task(self) -> int:
        """Id of the task of the instruction, from 1."""
        return self.instruction.task + 1 + self.offset

    @property
    def seed(self) -> int:
        """Seed of everything random in this client's tasks."""
        return seed_for(self.config.run.seed, self.instruction.partition_id, self.instruction.repeat, "stream")


def open_stream(config: RunConfig, told: Instruction, folder: Path, before: int, *, blank: bool = False) -> Stream:
    """Return a stream as it was saved last before a number.

    Args:
        config: settings of the run.
        told: names the client and the task.
        folder: the client's state on disk.
        before: records from this number on are not looked at.
        blank: nor are those before it.
    """
    config = config.of_students if told.arm == TARGET or told.arm.startswith("pack-") else config
    device = choose_device(config.train, config.federation)
    data = cached_client(config.data, told.partition_id, told.train_fraction, told.task)
    shared, initial = cached_model(
        config.model, config.data, data.subgroup.modality, len(data.subgroup.classes), config.run.seed
    )
    fresh = copy_model(shared)
    set_arrays(fresh, initial)
    model = copy_model(fresh)
    attach_owners(model)
    stream = Stream(config, told, folder, data, device, model, Memory(config.continual.adapter), fresh)
    arrays, facts = ({}, {}) if blank else load_newest(folder, told.run_token, before)
    if arrays:
        read(stream, arrays, facts)
    model.to(device)
    return stream


def read(stream: Stream, arrays: Arrays, facts: Mapping[str, Any]) -> None:
    """Put a record of :func:`save` into a new stream."""
    scores = arrays.pop(SCORES, None)
    stream.scores = None if scores is None else torch.from_numpy(scores.copy())
    for task in facts["anchors"]:
        kept = {kind: take(arrays, f"{ANCHOR}{task}.{kind}.", stream.device) for kind in ("fisher", "parameters")}
        stream.anchors[int(task)] = Anchor(**kept)
    stream.memory = unpack(stream.model, arrays, facts["memory"])
    stream.training, stream.offset, stream.validation = facts["training"], facts["offset"], facts["validation"]


def save(stream: Stream) -> None:
    """Write the stream as it stands, under the number of the instruction."""
    arrays, facts = pack(stream.model, stream.memory)
    if stream.scores is not None:
        arrays[SCORES] = stream.scores.detach().float().cpu().numpy()
    for task, anchor in stream.anchors.items():
        for kind, tensors in (("fisher", anchor.fisher), ("parameters", anchor.parameters)):
            arrays |= {f"{ANCHOR}{task}.{kind}.{name}": value.detach().cpu().numpy() for name, value in tensors.items()}
    told = stream.instruction
    own = {
        "memory": facts,
        "anchors": list(stream.anchors),
        "training": stream.training,
        "offset": stream.offset,
        "validation": stream.validation,
    }
    save_state(stream.folder, told.run_token, told.round, arrays, own)


def take(arrays: Arrays, prefix: str, device: torch.device) -> dict[str, Tensor]:
    """Remove the arrays whose names begin with a prefix, and return them as tensors without it."""
    names = [name for name in arrays if name.startswith(prefix)]
    return {name.removeprefix(prefix): torch.from_numpy(arrays.pop(name).copy()).to(device) for name in names}


def start_task(stream: Stream) -> None:
    """Give the model the head of a new task and, with ``continual.start = "fresh"``, all private tensors as initialised.

    A first task on top of donors begins with theirs.
    """
    fresh = copy_model(stream.fresh)
    names = [name for name in named_tensors(fresh) if group_of(name) is Group.HEAD]
    on_donors = stream.offset > 0 and not stream.memory.records
    if stream.config.continual.start == "fresh" and stream.method in MASKED and not on_donors:
        set_widths(fresh, widths(stream.model), seed=stream.seed)
        names = private_names(fresh)
    install(stream.model, get_tensors(fresh, names))
    stream.scores, stream.training = None, stream.task


def learn_task(
    config: RunConfig,
    told: Instruction,
    folder: Path,
    prepare: Callable[[Stream], None] = lambda stream: None,
    learn: Learn | None = None,
) -> tuple[Metrics, list[str]]:
    """Learn the task of the instruction to its end, save the stream, and return metrics and facts, one a line of JSON.

    Args:
        config: settings of the run.
        told: ``round`` is the number of the record to write; no epochs: the task was trained in rounds.
        folder: the client's state on disk.
        prepare: called with the stream before anything else.
        learn: how the task is learned; None: by the method of the stream.
    """
    start = time.monotonic()
    stream = open_stream(config, told, folder, told.round, blank=told.method == SCRATCH)
    prepare(stream)
    checkpoints = folder / f"task-{told.run_token}{stream.built_on[:16]}"
    for other in folder.glob("task-*"):
        if other != checkpoints:
            shutil.rmtree(other)  # of an earlier run of the same name, or begun on top of other donors
    record = FactLog(checkpoints / f"facts-{told.round:04d}.jsonl", stream)
    if stream.training != stream.task:
        start_task(stream)
    for note, fields in shortcomings(stream):
        record(note, task=stream.task, **fields)
    work = Work(
        stream.config,
        stream.task,
        task_data(stream),
        told.epochs,
        stream.seed,
        record,
        goal=told.goal,
        remaining=config.data.tasks_per_client - told.task - 1 + told.later,
        folder=checkpoints,
        scores=None if stream.scores is None else stream.scores.to(stream.device),
        anchors=stream.anchors,
    )
    (learn or METHODS["finetune" if stream.method == SCRATCH else stream.method])(stream.model, stream.memory, work)
    facts = record.lines()
    states = [json.loads(line) for line in facts]
    validation = [state["validation"] for state in states if state.get("validation") is not None]
    stream.scores, stream.training, stream.validation = None, 0, validation[-1] if validation else 0.0
    save(stream)
    checkpoint.clear(checkpoints, stream.task)
    record.path.unlink(missing_ok=True)
    losses = [state["loss"] for state in states if "loss" in state]
    epochs = sum(state.get("epochs", 0) for state in states)
    return {
        "partition-id": told.partition_id,
        "num-examples": len(stream.data.train),
        "loss": losses[-1] if losses else 0.0,
        "validation": stream.validation,
        "goal": told.goal,
        "steps": epochs * training.steps_per_epoch(stream.data.train, config.train.batch_size),
        "seconds-training": time.monotonic() - start,
        **storage(stream),
    }, facts


def evaluate_tasks(config: RunConfig, told: Instruction, folder: Path) -> Metrics:
    """Evaluate every finished task on the split of the instruction; each list has one number for each of ``tasks``.

    Raises:
        ForgottenError: a task no longer computes with what it learned, under a method that promises it.
    """
    stream = open_stream(config, told, folder, told.round + 1)

    def model_of(task: int) -> nn.Module:
        return task_model(stream.model, stream.memory, task, verify=stream.method in MASKED)

    models = {task - 1 - stream.offset: partial(model_of, task) for task in stream.memory.records}
    return {**evaluate_each(config, told, stream.device, models), **storage(stream)}


def evaluate_each(
    config: RunConfig, told: Instruction, device: torch.device, models: Mapping[int, Callable[[], nn.Module]]
) -> Metrics:
    """Evaluate the models of some tasks, by their place in the stream; see :func:`evaluate_tasks`."""
    lists: dict[str, list[float]] = {}
    for task, model in models.items():
        data = cached_client(config.data, told.partition_id, told.train_fraction, task)
        split = data.test if told.split == "test" else data.val
        found = training.evaluate(model(), split, len(data.subgroup.classes), device, config.train.precision)
        for name, value in found.items():
            lists.setdefault(name.replace("num-examples", "examples"), []).append(value)
    indices = list(models)
    return {"partition-id": told.partition_id, "num-examples": int(sum(lists["examples"])), "tasks": indices, **lists}


def storage(stream: Stream) -> dict[str, float]:
    """Return what the tasks take: ``capacity`` (what evaluating them needs, in models of one task) and bytes on disk."""
    found = stored_bytes(stream.model, stream.memory)
    latest = stream.memory.records[stream.memory.latest].private
    tensors = named_tensors(stream.model)
    common = sum(tensors[name].numel() for name in stored_names(stream.model) if name not in latest and OWNER not in name)
    masks = found.masks if stream.method in MASKED else 0
    one = sum(named_tensors(stream.fresh)[name].numel() for name in stored_names(stream.fresh))
    anchors = [tensor for one in stream.anchors.values() for tensor in (*one.fisher.values(), *one.parameters.values())]
    return {
        "capacity": (common + (found.private + masks) / 4) / one,
        "mask-bytes": masks,
        "stored-bytes": found.total + sum(tensor.nbytes for tensor in anchors),
        "ownable": sum(weight.numel() for weight in ownable(stream.model).values()),
    }


def shortcomings(stream: Stream) -> list[tuple[str, dict[str, Any]]]:
    """Return a note for what a task lacks: a second class, or examples of a class to validate with."""
    names, found = stream.data.subgroup.classes, []
    trained, validated = (set(split.labels.tolist()) for split in (stream.data.train, stream.data.val))
    if len(trained) < 2:
        found.append(("one-class", {"classes": [names[label] for label in sorted(trained)]}))
    if missing := [name for label, name in enumerate(names) if label not in validated]:
        found.append(("no-validation-example", {"classes": missing}))
    return found


def task_data(stream: Stream) -> TaskData:
    """Return the task's examples, augmented as the run config says."""
    return augmented_data(stream.config, stream.data, stream.device)


def augmented_data(config: RunConfig, data: ClientData, device: torch.device) -> TaskData:
    """Return the examples of a client, augmented as the run config says."""
    recipe = make_recipe(config, data, device)

    def augment(inputs: Tensor, generator: torch.Generator) -> Tensor:
        return training.augmented(inputs, recipe, generator)

    return TaskData(data.train, data.val, augment, recipe.weight, config.train.precision)


class FactLog:
    """Facts of one task in a file, so that those of before a crash are there after it; one that comes again counts once."""

    def __init__(self, path: Path, stream: Stream) -> None:
        self.path = path
        self.method, self.task = stream.method, stream.instruction.task
        path.parent.mkdir(parents=True, exist_ok=True)

    def __call__(self, event: str, /, **fields: Any) -> None:
        """Append one fact."""
        line = json.dumps({"fact": event, "method": self.method, **fields, "task": self.task}, allow_nan=False)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def lines(self) -> list[str]:
        """Return all facts in order; a last line that a crash cut off is left out."""
        if not self.path.exists():
            return []
        return list(dict.fromkeys(line for line in self.path.read_text(encoding="utf-8").splitlines() if line.endswith("}")))
