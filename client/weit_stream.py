"""One client of FedWeIT walking its stream: rounds of a task, its end, and evaluation (strategies/fedweit.py)."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from torch import nn

from client import training
from client.continual import weit
from client.continual.methods import optimisation
from client.continual.train import validate
from client.continual.weit_memory import WeITState, pack, parameters_stored, stored_bytes, task_model, unpack
from client.state import load_newest, save_state
from client.stream import Metrics, Stream, evaluate_each, open_stream, shortcomings, task_data
from config import RunConfig
from models.arrays import Arrays
from models.groups import named_tensors, ownable, stored_names
from models.sparse import dense_all, sparse_all
from strategies.protocol import Instruction


def train_round(
    config: RunConfig,
    told: Instruction,
    folder: Path,
    base: Mapping[str, np.ndarray],
    foreign: Sequence[Mapping[str, np.ndarray]],
) -> tuple[Metrics, Arrays, Arrays, list[str]]:
    """Train one round of a task and save the stream; after the last one the task is finished.

    Args:
        config: settings of the run.
        told: ``round`` is the number of the record to write, ``server_round`` that of the round within the task.
        folder: the client's state on disk.
        base: the server's B; empty: the client's own.
        foreign: sparse adaptive parameters of other clients' last tasks, for the first round of a task.

    Returns:
        Metrics; the masked base; after the last round the task's sparse adaptive parameters; and facts, one a line of JSON.
    """
    start = time.monotonic()
    stream, state = open_state(config, told, folder, told.round)
    settings = settings_of(stream)
    if state.unfinished != stream.task:
        shapes = {name: tuple(weight.shape) for name, weight in ownable(stream.model).items()}
        known = [{name: value.numpy() for name, value in one.items()} for one in state.foreign.values()]
        came = [dense_all(one, shapes) for one in foreign]
        session = weit.begin_task(stream.model, state, stream.task, [*known, *came], settings)
    else:
        session = weit.resume(stream.model, state, settings)
    if base:
        weit.set_base(session, base)
    span = ((told.server_round - 1) * told.epochs, told.total_rounds * told.epochs)
    data = task_data(stream)
    loss = weit.train_round(session, data, epochs=told.epochs, server_round=told.server_round, span=span)
    last = told.server_round == told.total_rounds
    facts = [{"fact": note, **fields} for note, fields in shortcomings(stream)] if told.server_round == 1 else []
    found = 0.0
    if last:
        found = validate(stream.model, session, data)
        facts.append({"fact": "train", "loss": loss, "validation": found, "epochs": told.epochs * told.total_rounds})
        adaptive = sparse_all(weit.adaptive(session))
        weit.finish(session, state)
    else:
        adaptive = {}
        weit.suspend(session, state)
    arrays, kept = pack(state)
    save_state(folder, told.run_token, told.round, arrays, {"weit": kept})
    metrics: Metrics = {
        "partition-id": told.partition_id,
        "num-examples": len(stream.data.train),
        "loss": loss,
        "steps": told.epochs * training.steps_per_epoch(stream.data.train, config.train.batch_size),
        "seconds-training": time.monotonic() - start,
        **({"validation": found, **storage(stream, state)} if last else {}),
    }
    lines = [json.dumps({"method": stream.method, "task": told.task, **fact}, allow_nan=False) for fact in facts]
    masked = {name: value.astype(config.strategy.wire_dtype) for name, value in weit.masked_base(session).items()}
    return metrics, masked, adaptive, lines


def open_state(config: RunConfig, told: Instruction, folder: Path, before: int) -> tuple[Stream, WeITState]:
    """Return a stream with a fresh model of the task, and what the client saved last before a number."""
    stream = open_stream(config, told, folder, 0, blank=True)
    arrays, facts = load_newest(folder, told.run_token, before)
    return stream, unpack(arrays, facts["weit"]) if arrays else WeITState()


def settings_of(stream: Stream) -> weit.WeITSettings:
    """Return the settings of FedWeIT under a run config."""
    settings = stream.config.continual
    return weit.WeITSettings(
        l1=settings.weit_l1,
        drift=settings.weit_drift,
        threshold=settings.weit_threshold,
        start=settings.weit_start,
        optimisation=optimisation(stream.config),
        seed=stream.seed,
    )


def evaluate_tasks(config: RunConfig, told: Instruction, folder: Path) -> Metrics:
    """Evaluate every finished task as it is now; see :func:`client.stream.evaluate_tasks`."""
    stream, state = open_state(config, told, folder, told.round + 1)

    def model_of(task: int) -> nn.Module:
        return task_model(stream.model, state, task)

    models = {task - 1: partial(model_of, task) for task in state.tasks if task != state.unfinished}
    return {**evaluate_each(config, told, stream.device, models), **storage(stream, state)}


def storage(stream: Stream, state: WeITState) -> dict[str, float]:
    """Return what the tasks take, in models of one task and in bytes."""
    one = sum(named_tensors(stream.fresh)[name].numel() for name in stored_names(stream.fresh))
    return {"capacity": parameters_stored(state) / one, "stored-bytes": stored_bytes(state)}
