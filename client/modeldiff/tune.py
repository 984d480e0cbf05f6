"""A little training of a candidate on the target's task. All candidates have the same budget and see the same batches."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import Tensor, nn

from client.continual.train import Groups, Optimisation, TaskData, random_stream, train, validate
from client.modeldiff.swap import parameters_of
from models.groups import Group, copy_model


@dataclass(frozen=True)
class Budget:
    """How long, and how.

    Attributes:
        epochs: of the target's training data.
        how: batches and optimizer.
        seed: of batches, augmentation and dropout.
    """

    epochs: int = 3
    how: Optimisation = field(default_factory=Optimisation)
    seed: int = 0


def start(candidate: nn.Module, fresh: nn.Module, *, same_modality: bool, same_classes: bool) -> nn.Module:
    """Return what a target begins to train with a donor: a copy of the candidate with parts of a fresh model.

    Backbone and, inside the modality, adapter are the donor's; the head too if it is for the same classes in the same order.

    Args:
        candidate: B', see client/modeldiff/swap.py.
        fresh: a model of the target as initialised; begin with it alone to see what a target does without a donor.
        same_modality: of donor and target.
        same_classes: of donor and target.
    """
    model = copy_model(candidate)
    if not same_modality:
        model.adapter = copy.deepcopy(fresh.adapter)
    if not (same_modality and same_classes):
        model.head = copy.deepcopy(fresh.head)
    return model


def tune(model: nn.Module, data: TaskData, budget: Budget) -> float:
    """Train a copy of a model on the target's task and return its balanced accuracy on the validation examples.

    Args:
        model: see :func:`start`; it is not changed.
        data: of the target.
        budget: the same for all candidates.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    model = copy_model(model)
    train_groups(model, data, budget, Group.BACKBONE, Group.ADAPTER, Group.HEAD)
    return validate(model, model, data)


def calibrate(candidate: nn.Module, data: TaskData, budget: Budget) -> nn.Module:
    """Return a copy of a candidate whose adapter and head were trained on the target's task, and whose backbone is as it came.

    Dropout is off in the backbone, and batch norm does not follow the data. A head must be for the target's classes.

    Args:
        candidate: B', see client/modeldiff/swap.py.
        data: of the target.
        budget: the same for all candidates.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    model = copy_model(candidate)
    frozen = [p for p in parameters_of(model, Group.BACKBONE) if p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    train_groups(model, data, budget, Group.ADAPTER, Group.HEAD)
    for parameter in frozen:
        parameter.requires_grad_(True)
    return model.eval()


def train_groups(model: nn.Module, data: TaskData, budget: Budget, *groups: Group) -> None:
    """Train the parameters of some groups, in place."""

    def compute(inputs: Tensor) -> Tensor:
        if Group.BACKBONE not in groups:
            model.get_submodule("backbone").eval()
        return model(inputs)  # type: ignore[no-any-return]

    parameters = parameters_of(model, *groups)
    with random_stream(budget.seed, 0, "modeldiff", 0, next(model.parameters()).device) as generator:
        decayed = with_decay(parameters, budget.how.weight_decay)
        train(model, compute, decayed, data, budget.how, epochs=budget.epochs, generator=generator)


def with_decay(parameters: Iterable[nn.Parameter], weight_decay: float) -> Groups:
    """Return groups for an optimizer: weight decay on matrices, not on vectors."""
    trained = [p for p in parameters if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
