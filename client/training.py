"""Local training and evaluation of one model: plain PyTorch, nothing of Flower."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from client.schedule import learning_rate
from config import Data, Train
from data_partition.augment import drop_words, flip_and_shift
from data_partition.client_data import Split
from data_partition.metrics import balanced_accuracy
from data_partition.series_augment import change
from data_partition.text import unk_id
from models.gates import gates, paid_columns


@dataclass(frozen=True)
class Recipe:
    """How one client trains.

    Attributes:
        train: optimisation settings.
        data: augmentation settings.
        modality: ``image``, ``text`` or ``series``.
        weight: loss weight of each class, shape (classes,); None: equal.
        proximal_mu: FedProx coefficient μ.
        k_target: open columns that cost nothing.
    """

    train: Train
    data: Data
    modality: str
    weight: Tensor | None
    proximal_mu: float = 0.0
    k_target: int = 0


def make_optimizer(model: nn.Module, train: Train, k_learning_rate: float) -> torch.optim.Optimizer:
    """Return ``train.optimizer`` with a learning rate of its own for gates.

    Weight decay acts on matrices only, not on biases, norms and gates.
    """
    gated = [p for gate in gates(model) for p in gate.parameters()]
    rest = [p for p in model.parameters() if p.requires_grad and not any(p is gate for gate in gated)]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": train.weight_decay, "lr_scale": 1.0},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0, "lr_scale": 1.0},
    ]
    if gated:
        groups.append({"params": gated, "weight_decay": 0.0, "lr_scale": k_learning_rate / train.learning_rate})
    return new_optimizer(train.optimizer, groups, train.learning_rate, train.momentum)


def new_optimizer(name: str, groups: list[dict[str, Any]], learning_rate: float, momentum: float) -> torch.optim.Optimizer:
    """Return an optimizer over parameter groups; a group's own ``lr`` and ``weight_decay`` win.

    Args:
        name: ``adamw`` (Loshchilov & Hutter, ICLR 2019), or ``sgd``, with Nesterov momentum (Sutskever et al., ICML 2013) and
            weight decay as L2 in the gradient.
        groups: of parameters.
        learning_rate: of groups without one.
        momentum: of ``sgd``; 0: none.
    """
    if name == "sgd":
        return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum, nesterov=momentum > 0, fused=True)
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True)


def steps_per_epoch(split: Split, batch_size: int) -> int:
    """Return the number of batches of one epoch; the last one may be short."""
    return -(-len(split) // batch_size)


def batches(split: Split, batch_size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch of shuffled (inputs, labels)."""
    for chosen in torch.split(torch.randperm(len(split), generator=generator), batch_size):
        yield split.inputs[chosen], split.labels[chosen]


def augmented(inputs: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Return a randomly changed copy of a batch, or the batch itself without ``data.augment``."""
    if not recipe.data.augment:
        return inputs
    if recipe.modality == "image":
        return flip_and_shift(inputs, generator, recipe.data.shift, recipe.data.shift_border)
    if recipe.modality == "series":
        return change(inputs, recipe.data.series_augment, generator)
    return drop_words(inputs, recipe.data.word_dropout, generator, unk_id(recipe.data))


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Return the context of a forward pass under ``train.precision``.

    bfloat16: products are computed in bfloat16; weights, gradients and optimizer stay float32 (Micikevicius et al., ICLR 2018;
    unlike float16 it has the range of float32, so the loss needs no scaling). float32: nothing is changed.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def training_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    labels: Tensor,
    recipe: Recipe,
    anchor: Mapping[str, Tensor],
    column_price: float = 0.0,
) -> float:
    """Do one optimisation step and return its loss.

    Args:
        model: in training mode.
        optimizer: over the model's parameters, with the step's learning rate set.
        inputs: a batch, already augmented.
        labels: shape (B,).
        recipe: loss and clipping.
        anchor: parameters that the FedProx term μ/2 Σ‖w − w_anchor‖² pulls towards (Li et al., MLSys 2020, Eq. 2).
        column_price: λ of the term λ Σ max(0, open columns − k*) of adaptive k.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    with autocast(recipe.train.precision, inputs.device):
        logits = model(inputs)
    loss: Tensor = F.cross_entropy(logits.float(), labels, weight=recipe.weight)
    if recipe.proximal_mu > 0 and anchor:
        parameters = dict(model.named_parameters())
        distance = torch.stack([(parameters[name] - value).square().sum() for name, value in anchor.items()]).sum()
        loss = loss + 0.5 * recipe.proximal_mu * distance
    if column_price > 0 and (columns := paid_columns(model, recipe.k_target)) is not None:
        loss = loss + column_price * columns
    value = finite(loss)
    descend(loss, [optimizer], model.parameters(), recipe.train.clip_norm)
    for gate in gates(model):
        gate.clamp_()
    return value


def finite(loss: Tensor) -> float:
    """Return the value of a loss.

    Raises:
        FloatingPointError: it is not finite.
    """
    value = loss.item()
    if not math.isfinite(value):
        raise FloatingPointError(f"the training loss is {value}: lower train.learning-rate or set train.clip-norm")
    return value


def descend(loss: Tensor, optimizers: Sequence[torch.optim.Optimizer], parameters: Iterable[Tensor], clip_norm: float) -> None:
    """Do one step of each optimizer down the gradient of a loss, clipped to a norm over ``parameters``; 0: not clipped."""
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if clip_norm > 0:
        nn.utils.clip_grad_norm_((p for p in parameters if p.grad is not None), clip_norm)
    for optimizer in optimizers:
        optimizer.step()


def set_learning_rate(optimizer: torch.optim.Optimizer, train: Train, step: int, total_steps: int) -> None:
    """Set the learning rate of the next step, times each parameter group's ``lr_scale``."""
    rate = learning_rate(train, step, total_steps)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


@torch.inference_mode()
def predict(compute: Callable[[Tensor], Tensor], split: Split, device: torch.device) -> Tensor:
    """Return the logits (n, classes) of a split, float32, on the CPU."""
    return torch.cat([compute(inputs.to(device)).float().cpu() for inputs in torch.split(split.inputs, 256)])


@torch.inference_mode()
def evaluate(
    model: nn.Module, split: Split, num_classes: int, device: torch.device, precision: str = "float32"
) -> dict[str, float]:
    """Return loss, accuracy, balanced accuracy and the number of examples of a split."""
    model.eval()
    with autocast(precision, device):
        logits = predict(model, split, device)
    predictions = logits.argmax(dim=1)
    return {
        "loss": F.cross_entropy(logits, split.labels).item(),
        "accuracy": (predictions == split.labels).float().mean().item(),
        "balanced-accuracy": balanced_accuracy(predictions, split.labels, num_classes),
        "num-examples": len(split.labels),
    }
