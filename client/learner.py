"""One client at work: its data, its model, its state on disk."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from client import pruning, training
from client.device import choose_device
from client.schedule import column_price
from client.seeding import seed_for
from client.state import load_state, save_state
from config import Data, Model, RunConfig
from data_partition.client_data import ClientData
from data_partition.files import stamp
from data_partition.metrics import class_weights
from data_partition.sizes import input_sizes
from data_partition.streams import load_task
from models.arrays import Arrays, get_arrays, set_arrays
from models.bert_embeddings import FILES
from models.factory import build_model
from models.groups import copy_model, shared_names, stored_names
from strategies.protocol import Instruction

OPTIMIZER = "optimizer."


def cached_client(data: Data, partition_id: int, train_fraction: float, task: int = 0) -> ClientData:
    """Load the rows of a client's task once per process and vocabulary; fraction 0 means ``data.train-fraction``."""
    return _cached_client(data, partition_id, train_fraction, task, stamp(data.vocab_file))


@lru_cache(maxsize=64)
def _cached_client(
    data: Data, partition_id: int, train_fraction: float, task: int, version: tuple[tuple[int, int], ...]
) -> ClientData:
    return load_task(data, partition_id, task, train_fraction or None)


def cached_model(settings: Model, data: Data, modality: str, num_classes: int, seed: int) -> tuple[nn.Module, Arrays]:
    """Build a model once per process; return it with its initial tensors, as it will be written over."""
    files = [Path(settings.embedding_dir) / name for name in FILES] if settings.embedding_dir and modality == "text" else []
    return _cached_model(settings, data, modality, num_classes, seed, stamp(*files))


@lru_cache(maxsize=64)
def _cached_model(
    settings: Model, data: Data, modality: str, num_classes: int, seed: int, version: tuple[tuple[int, int], ...]
) -> tuple[nn.Module, Arrays]:
    model = build_model(settings, modality, num_classes, **input_sizes(data), seed=seed)
    return model, get_arrays(model, stored_names(model))


@dataclass
class Learner:
    """A client's model, ready to train or evaluate.

    Attributes:
        config: settings of the run.
        instruction: what the server asked for.
        data: the client's rows, of the task of the instruction.
        model: holds the client's own tensors, and the shared ones that came with the message.
        device: where the model is.
        folder: the client's state on disk.
        optimizer_state: moments of AdamW from the last round, if they are kept.
    """

    config: RunConfig
    instruction: Instruction
    data: ClientData
    model: nn.Module
    device: torch.device
    folder: Path
    optimizer_state: Arrays

    @property
    def num_classes(self) -> int:
        """Classes of this client's task."""
        return len(self.data.subgroup.classes)

    def shared(self) -> Arrays:
        """Return the tensors that the instruction asks for."""
        return get_arrays(self.model, shared_names(self.model, self.instruction.share)) if self.instruction.share else {}


def make_learner(
    config: RunConfig,
    instruction: Instruction,
    folder: Path,
    shared: Mapping[str, np.ndarray],
    for_round: int,
    private: bool = False,
) -> Learner:
    """Set up the client: initial tensors, written over by its own state before ``for_round``, then by the shared ones.

    Clients of one process take turns with one model object, unless it is asked for as ``private``.
    """
    device = choose_device(config.train, config.federation)
    data = cached_client(config.data, instruction.partition_id, instruction.train_fraction, instruction.task)
    modality, classes = data.subgroup.modality, len(data.subgroup.classes)
    model, initial = cached_model(config.model, config.data, modality, classes, config.run.seed)
    model = copy_model(model) if private else model
    model.to(device)
    saved = load_state(folder, instruction.run_token, for_round)
    own = {name: value for name, value in saved.items() if not name.startswith(OPTIMIZER)}
    set_arrays(model, initial | own | dict(shared))
    kept = {name.removeprefix(OPTIMIZER): value for name, value in saved.items() if name.startswith(OPTIMIZER)}
    return Learner(config, instruction, data, model, device, folder, kept)


def train(learner: Learner, shared: Mapping[str, np.ndarray]) -> dict[str, float | list[int]]:
    """Train the rounds of the instruction, save the state after the last, and return the metrics of the last.

    A client with adaptive k also returns the ``columns`` that it kept open, and their number ``k``.
    """
    config, told = learner.config, learner.instruction
    start = time.monotonic()
    recipe = make_recipe(config, learner.data, learner.device)
    parameters = dict(learner.model.named_parameters())
    pulled = [name for name in shared if name in parameters] if recipe.proximal_mu > 0 else []  # and no running means
    anchor = {name: parameters[name].detach().clone() for name in pulled}
    optimizer = training.make_optimizer(learner.model, config.train, config.model.k_learning_rate)
    if not config.train.restart_optimizer:
        restore_moments(optimizer, parameters, learner.optimizer_state)
    losses: list[float] = []
    for server_round in range(told.round, told.round + told.rounds):
        if config.train.restart_optimizer:
            optimizer = training.make_optimizer(learner.model, config.train, config.model.k_learning_rate)
        losses = train_round(learner, optimizer, recipe, server_round, anchor)
    tensors = get_arrays(learner.model, stored_names(learner.model))
    if not config.train.restart_optimizer:
        tensors |= {f"{OPTIMIZER}{name}": value for name, value in moments(optimizer, parameters).items()}
    save_state(learner.folder, told.run_token, told.round + told.rounds - 1, tensors)
    return {
        "partition-id": told.partition_id,
        "num-examples": len(learner.data.train.labels),
        "loss": sum(losses) / len(losses),
        "steps": len(losses) * told.rounds,
        "seconds-training": time.monotonic() - start,
        **pruning.kept_columns(learner.model),
    }


def train_round(
    learner: Learner,
    optimizer: torch.optim.Optimizer,
    recipe: training.Recipe,
    server_round: int,
    anchor: Mapping[str, Tensor],
) -> list[float]:
    """Train the epochs of one round; return the loss of each step.

    Batches, augmentation and dropout depend on (run seed, client, round) alone, so the control arm sees the same ones.
    """
    told, settings, split = learner.instruction, learner.config.train, learner.data.train
    seed = learner.config.run.seed
    generator = torch.Generator().manual_seed(seed_for(seed, told.partition_id, server_round, "batches"))
    torch.manual_seed(seed_for(seed, told.partition_id, server_round, "dropout"))
    per_round = told.epochs * training.steps_per_epoch(split, settings.batch_size)
    step, total = (server_round - 1) * per_round, told.total_rounds * per_round
    losses: list[float] = []
    learner.model.train()
    for _ in range(told.epochs):
        for inputs, labels in training.batches(split, settings.batch_size, generator):
            changed = training.augmented(inputs, recipe, generator).to(learner.device)
            training.set_learning_rate(optimizer, settings, step, total)
            price = column_price(learner.config.model, step, total)
            labels = labels.to(learner.device)
            losses.append(training.training_step(learner.model, optimizer, changed, labels, recipe, anchor, price))
            step += 1
    return losses


def evaluate(learner: Learner) -> dict[str, float]:
    """Evaluate the split of the instruction; a model that closes columns is evaluated without them."""
    final, precision = learner.instruction.split == "test", learner.config.train.precision
    split = learner.data.test if final else learner.data.val
    model, facts = pruning.without_closed_columns(learner.model, split.inputs[:32].to(learner.device) if final else None)
    metrics = training.evaluate(model, split, learner.num_classes, learner.device, precision)
    return {"partition-id": learner.instruction.partition_id, **metrics, **facts}


def make_recipe(config: RunConfig, data: ClientData, device: torch.device) -> training.Recipe:
    """Return how a client trains under this config."""
    classes = len(data.subgroup.classes)
    weight = class_weights(data.train.labels, classes).to(device) if config.train.class_weights else None
    modality, mu = data.subgroup.modality, config.strategy.proximal_mu
    return training.Recipe(config.train, config.data, modality, weight, mu, config.model.k_target)


def moments(optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor]) -> Arrays:
    """Return AdamW's state as named arrays."""
    return {
        f"{name}.{key}": value.detach().cpu().numpy()
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_moments(optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor], saved: Arrays) -> None:
    """Give AdamW the state that :func:`moments` returned; without any it starts fresh."""
    for key, value in saved.items():
        name, _, moment = key.rpartition(".")
        tensor = torch.from_numpy(value.copy())
        optimizer.state[parameters[name]][moment] = tensor if moment == "step" else tensor.to(parameters[name].device)
