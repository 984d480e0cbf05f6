"""A task that is trained in rounds: between two of them the server may average what is the task's own.

See strategies/stream_fedavg.py. After the last round the task is finished as in client/stream.py, with nothing left to train.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch

from client import training
from client.continual import finetune
from client.continual.ewc import penalty_of
from client.continual.methods import MASKED, PICKING, optimisation
from client.continual.ownership import OWNER, WEIGHT, claim_free, ownable
from client.continual.session import begin, write_back
from client.continual.train import TaskData, random_stream, train
from client.stream import Metrics, Stream, open_stream, save, start_task, task_data
from config import RunConfig
from models.arrays import Arrays, get_arrays
from models.groups import Group, group_of, named_tensors, shared_names
from strategies.protocol import Instruction, to_masks


def train_rounds(
    config: RunConfig, told: Instruction, folder: Path, shared: Mapping[str, np.ndarray]
) -> tuple[Metrics, Arrays]:
    """Train the rounds of the instruction, save the stream, and return metrics, and the arrays and masks that are asked for.

    Args:
        config: settings of the run.
        told: ``round`` is the number of the record to write, ``server_round`` that of the first round within the task, from 1.
        folder: the client's state on disk.
        shared: means of what is the task's own; empty: none.
    """
    start = time.monotonic()
    stream = open_stream(config, told, folder, told.round)
    if stream.training != stream.task:
        start_task(stream)
        if stream.method != "piggyback" or not stream.memory.records:
            claim_free(stream.model, stream.task)
    receive(stream, shared)
    data = task_data(stream)
    loss = 0.0
    for server_round in range(told.server_round, told.server_round + told.rounds):
        loss = train_round(stream, data, server_round)
    save(stream)
    metrics: Metrics = {
        "partition-id": told.partition_id,
        "num-examples": len(stream.data.train),
        "loss": loss,
        "steps": told.rounds * told.epochs * training.steps_per_epoch(stream.data.train, config.train.batch_size),
        "seconds-training": time.monotonic() - start,
    }
    return metrics, outgoing(stream)


def train_round(stream: Stream, data: TaskData, server_round: int) -> float:
    """Train one round of a task and return the mean loss of its last epoch; the optimizer starts anew."""
    told, how = stream.instruction, optimisation(stream.config)
    model, memory, penalty = stream.model, stream.memory, None
    session = None
    if stream.method in MASKED:
        picking = stream.method in PICKING
        session = begin(model, memory, stream.task, stream.scores, picking=picking, empty=True)
        groups = session.parameter_groups(how.weight_decay, scores={"lr": how.score_learning_rate})
    else:
        groups = finetune.parameter_groups(model, how.weight_decay)
        if stream.method == "ewc":
            penalty = penalty_of(model, stream.anchors, stream.task, stream.config.continual.ewc_strength)
    with random_stream(stream.seed, stream.task, "round", server_round, stream.device) as generator:
        loss = train(
            model,
            session or model,
            groups,
            data,
            how,
            epochs=told.epochs,
            generator=generator,
            penalty=penalty,
            span=((server_round - 1) * told.epochs, told.total_rounds * told.epochs),
        )
    if session is not None:
        write_back(session)
        stream.scores = session.scores.detach()
    return loss


def own_numbers(stream: Stream, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Return where tensors are the own ones of the task in training: bool arrays of their shapes."""
    tensors, weights = named_tensors(stream.model), set(ownable(stream.model))
    without = {Group.ADAPTER} if stream.memory.shares_adapter(stream.task) else set()
    masks = {}
    for name in names:
        if name in weights and stream.method in MASKED:
            owner = tensors[name.removesuffix(WEIGHT) + OWNER]
            masks[name] = (owner == stream.task).cpu().numpy()
        else:
            masks[name] = np.full(tuple(tensors[name].shape), group_of(name) not in without)
    return masks


@torch.no_grad()
def receive(stream: Stream, shared: Mapping[str, np.ndarray]) -> None:
    """Take the means for what is the task's own; all else stays as it is."""
    tensors = named_tensors(stream.model)
    for name, mask in own_numbers(stream, shared).items():
        mean = torch.from_numpy(shared[name].astype(np.float32)).to(tensors[name])
        tensors[name].copy_(torch.where(torch.from_numpy(mask).to(mean.device), mean, tensors[name]))


def outgoing(stream: Stream) -> Arrays:
    """Return the tensors that the instruction asks for and their masks; what is not the task's own is sent as 0.

    So weights of earlier tasks do not leave the client with those of the task in training.
    """
    if not stream.instruction.share:
        return {}
    arrays = get_arrays(stream.model, shared_names(stream.model, stream.instruction.share))
    masks = own_numbers(stream, arrays)
    dtype = stream.config.strategy.wire_dtype
    return {name: np.where(masks[name], value, 0).astype(dtype) for name, value in arrays.items()} | to_masks(masks)
