"""Joint training: modules shared by several clients, on the data of all of them. A reference, not federated."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from client import training
from client.learner import Learner, make_recipe
from client.schedule import column_price
from client.seeding import seed_for
from client.state import save_state
from config import RunConfig
from models.arrays import get_arrays
from models.groups import stored_names
from strategies.shared_fedavg import cluster_key


def train_jointly(config: RunConfig, learners: list[Learner], folder_of: Callable[[int], Path]) -> dict[str, float]:
    """Train the rounds of the instruction and save every client's state after the last.

    An epoch visits every batch of every client once, in one shuffled order: a shared module takes as many steps as all clients
    that share it together, any other as many as alone.

    Args:
        config: settings of the run.
        learners: all clients, whose models share modules.
        folder_of: where the state of a partition id goes.

    Returns:
        Metrics of the last round, over all clients.
    """
    told, settings = learners[0].instruction, config.train
    start = time.monotonic()
    ids = [learner.data.subgroup.partition_id for learner in learners]
    recipes = [make_recipe(config, learner.data, learner.device) for learner in learners]
    union = nn.ModuleList([learner.model for learner in learners])
    optimizer = training.make_optimizer(union, settings, config.model.k_learning_rate)
    per_round = told.epochs * sum(training.steps_per_epoch(learner.data.train, settings.batch_size) for learner in learners)
    losses: list[float] = []
    for server_round in range(told.round, told.round + told.rounds):
        if settings.restart_optimizer:
            optimizer = training.make_optimizer(union, settings, config.model.k_learning_rate)
        torch.manual_seed(seed_for(config.run.seed, -1, server_round, "dropout"))
        generators = [
            torch.Generator().manual_seed(seed_for(config.run.seed, partition, server_round, "batches")) for partition in ids
        ]
        shuffle = random.Random(seed_for(config.run.seed, -1, server_round, "batches"))  # noqa: S311
        step, losses = (server_round - 1) * per_round, []
        union.train()
        for _ in range(told.epochs):
            queue: list[tuple[int, Tensor, Tensor]] = [
                (index, inputs, labels)
                for index, learner in enumerate(learners)
                for inputs, labels in training.batches(learner.data.train, settings.batch_size, generators[index])
            ]
            shuffle.shuffle(queue)
            for index, inputs, labels in queue:
                learner, recipe = learners[index], recipes[index]
                changed = training.augmented(inputs, recipe, generators[index]).to(learner.device)
                training.set_learning_rate(optimizer, settings, step, told.total_rounds * per_round)
                price = column_price(config.model, step, told.total_rounds * per_round)
                labels = labels.to(learner.device)
                losses.append(training.training_step(learner.model, optimizer, changed, labels, recipe, {}, price))
                step += 1
    last_round = told.round + told.rounds - 1
    for partition, learner in zip(ids, learners, strict=True):
        save_state(folder_of(partition), told.run_token, last_round, get_arrays(learner.model, stored_names(learner.model)))
    return {
        "partition-id": told.partition_id,
        "num-examples": sum(len(learner.data.train.labels) for learner in learners),
        "loss": sum(losses) / len(losses),
        "steps": len(losses) * told.rounds,
        "seconds-training": time.monotonic() - start,
    }


def share_modules(learners: list[Learner], share: str, scope: str) -> None:
    """Make all models of a cluster use the modules of its first.

    Args:
        learners: all clients.
        share: ``strategy.share``: names of the modules.
        scope: ``strategy.scope``: who makes up a cluster.
    """
    first: dict[tuple[str, ...], nn.Module] = {}
    for learner in learners:
        group = learner.data.subgroup
        owner = first.setdefault(cluster_key(group.modality, group.classes, scope), learner.model)
        for name in share.split("+"):
            setattr(learner.model, name, owner.get_submodule(name))
