"""Training one task: the weights that it owns as one vector, and the scores of its picks as another.

    values  (weights with owner == c,)       what the task may change
    scores  (weights with 0 < owner < c,)    pick = score > THRESHOLD, in both directions as if it were the pick itself

A step puts both together to the weights of the whole backbone, and the model computes with these in place of its own
for the time of the call. Whatever the optimizer does - momentum, weight decay, clipping - it cannot reach a weight of
another task, because no such weight is in what it optimises; and it has two tensors to update where it had one for each layer.
Any optimizer that treats each number by itself may be used.

Source: Piggyback (Mallya et al., ECCV 2018), scores and the straight-through gradient; CPG (Hung et al., NeurIPS 2019). They
mask the gradients of whole weights instead, and keep scores of all weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from client.continual.memory import Memory, TaskRecord, install, remember
from client.continual.ownership import check_task, ownable, ownable_layers, owners, private_names
from models.groups import Group

PICK_INIT = 1e-2
THRESHOLD = 5e-3


@dataclass(frozen=True)
class Layout:
    """Where values and scores belong in the ownable weights, flattened one after the other.

    Attributes:
        shapes: of the weights.
        own: positions with owner == c, ascending.
        old: positions with 0 < owner < c, ascending.
        old_weights: the weights at ``old``.
        source: for each ownable weight its place in (values, scores, one zero).
    """

    shapes: tuple[torch.Size, ...]
    own: Tensor
    old: Tensor
    old_weights: Tensor
    source: Tensor


class Assemble(torch.autograd.Function):
    """Values and scores to the weights of the backbone; see the module's docstring."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, scores: Tensor, layout: Layout) -> tuple[Tensor, ...]:
        """Return one weight for each layer."""
        ctx.layout = layout
        owned, used = len(values), len(values) + len(scores)
        if owned == len(layout.source):
            flat = values.clone()
        else:
            parts = values.new_zeros(used + 1)
            parts[:owned] = values
            torch.gt(scores, THRESHOLD, out=parts[owned:used]).mul_(layout.old_weights)
            flat = parts.index_select(0, layout.source)  # one gather costs a third of two scatters
        weights = torch.split(flat, [shape.numel() for shape in layout.shapes])
        return tuple(weight.view(shape) for weight, shape in zip(weights, layout.shapes, strict=True))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of weights to those of values (gathered) and scores (gathered, times the weight)."""
        layout: Layout = ctx.layout
        flat = torch.cat([grad.reshape(-1) for grad in grads])
        values = flat if len(layout.own) == len(flat) else flat.index_select(0, layout.own)
        scores = flat.index_select(0, layout.old).mul_(layout.old_weights) if ctx.needs_input_grad[1] else None
        return values, scores, None


@contextmanager
def in_place_of_parameters(layers: Sequence[nn.Module], weights: Sequence[Tensor]) -> Iterator[None]:
    """Let layers compute with other weights; their parameters are not touched.

    An attribute of the object hides a registered parameter of that name. ``torch.func.functional_call`` does the same by
    exchanging parameters, at several times the cost: 3 % of a step of the default model.
    """
    for layer, weight in zip(layers, weights, strict=True):
        layer.__dict__["weight"] = weight
    try:
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("weight", None)


@dataclass
class Session:
    """One task in training; made by :func:`begin`.

    Attributes:
        model: its own weights are not read by the forward pass, and written when the session is written back.
        memory: the finished tasks.
        task: its id c.
        layers: the layers of the ownable weights.
        layout: of values and scores.
        values: the task's weights, shape (owned,).
        scores: of its picks, shape (pickable,).
        private: the private parameters it trains, by name.
    """

    model: nn.Module
    memory: Memory
    task: int
    layers: tuple[nn.Module, ...]
    layout: Layout
    values: nn.Parameter
    scores: nn.Parameter
    private: dict[str, nn.Parameter]

    def __call__(self, inputs: Tensor) -> Tensor:
        """Inputs to logits (B, classes) of the task as it stands, in the mode (training, evaluation) of the model."""
        weights = Assemble.apply(self.values, self.scores, self.layout)  # type: ignore[no-untyped-call]
        with in_place_of_parameters(self.layers, weights):
            logits: Tensor = self.model(inputs)
        return logits

    def picks(self) -> Tensor:
        """Return the picks, bool, shape (pickable,)."""
        return self.scores.detach() > THRESHOLD

    def parameter_groups(self, weight_decay: float, *, scores: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Return groups for an optimizer: weight decay on weights and private matrices, not on vectors and scores.

        The group of the scores has ``scores_alone``: whether the task owns no weight, and learns by its picks.

        Args:
            weight_decay: of the first group.
            scores: more options for the scores, such as ``lr``; None: none.
        """
        private = self.private.values()
        values = [self.values] if len(self.values) else []
        groups = [
            {"params": [*values, *(p for p in private if p.ndim >= 2)], "weight_decay": weight_decay},
            {"params": [p for p in private if p.ndim < 2], "weight_decay": 0.0},
        ]
        if self.scores.requires_grad:
            alone = len(self.values) == 0
            groups.append({"params": [self.scores], "weight_decay": 0.0, "scores_alone": alone, **(scores or {})})
        return groups


def begin(
    model: nn.Module,
    memory: Memory,
    task: int,
    scores: Tensor | None = None,
    *,
    picking: bool = True,
    empty: bool = False,
) -> Session:
    """Begin to train a task, or go on with the latest.

    Who owns what is as it is: call :func:`client.continual.ownership.claim_free` before. Private tensors begin with what the
    model holds; :func:`client.continual.memory.install` gives it others, such as a new head.

    Args:
        model: with owners. Until the session is written back, only the session may change it.
        memory: the finished tasks.
        task: id, from 1.
        scores: of an earlier session of this task, to go on with its picks; None: all are picked, with PICK_INIT.
        picking: whether picks are learned; if not, they stay as ``scores`` has them, as in PackNet or while CPG prunes.
        empty: allow a task that owns no weight, and learns by picks and private tensors alone, as in Piggyback.

    Raises:
        ValueError: a later task is finished, the task owns no weight without ``empty``, or scores and picks
            are not as many.
    """
    check_task(task)
    if memory.latest > task:
        raise ValueError(f"task {task} cannot be trained: task {memory.latest} came after it and builds on it")
    install(model, memory.shared_adapter(task))
    layout = make_layout(model, task)
    if not len(layout.own) and not empty:
        raise ValueError(f"task {task} owns no weight: claim free ones first, or let the model grow if there are none")
    if scores is None:
        scores = torch.full_like(layout.old_weights, PICK_INIT)
    if len(scores) != len(layout.old):
        raise ValueError(f"found {len(scores)} scores, expected {len(layout.old)}: one for each weight of earlier tasks")
    without = frozenset({Group.ADAPTER}) if memory.shares_adapter(task) else frozenset()
    mine = set(private_names(model, without))
    return Session(
        model=model,
        memory=memory,
        task=task,
        layers=tuple(ownable_layers(model).values()),
        layout=layout,
        values=nn.Parameter(flat_weights(model).index_select(0, layout.own)),
        scores=nn.Parameter(scores.detach().clone(), requires_grad=picking and len(scores) > 0),
        private={name: p for name, p in model.named_parameters() if name in mine and p.requires_grad},
    )


@torch.no_grad()
def write_back(session: Session) -> None:
    """Write the task's weights into the model, and nothing else; the session may go on."""
    own = owners(session.model)
    start = 0
    for name, weight in ownable(session.model).items():
        mask = own[name] == session.task
        count = int(mask.sum())
        weight[mask] = session.values[start : start + count]
        start += count


def finish(session: Session) -> TaskRecord:
    """Write the task's weights into the model and its record into the memory; return the record."""
    write_back(session)
    shared = session.memory.shared_adapter(session.task)
    install(session.model, shared)  # statistics, which are no parameters, may have moved
    return remember(session.model, session.memory, session.task, session.picks())


def flat_weights(model: nn.Module) -> Tensor:
    """Return a copy of all ownable weights, one after the other."""
    return torch.cat([weight.detach().reshape(-1) for weight in ownable(model).values()])


def make_layout(model: nn.Module, task: int) -> Layout:
    """Return where values and scores of a task belong."""
    flat = torch.cat([owner.reshape(-1) for owner in owners(model).values()])
    own = (flat == task).nonzero().squeeze(1)
    old = ((flat > 0) & (flat < task)).nonzero().squeeze(1)
    shapes = tuple(weight.shape for weight in ownable(model).values())
    return Layout(shapes, own, old, flat_weights(model).index_select(0, old), make_source(own, old, len(flat)))


def make_source(own: Tensor, old: Tensor, size: int) -> Tensor:
    """Return for each of ``size`` ownable weights its place in (values, scores, one zero)."""
    used = len(own) + len(old)
    places = torch.arange(used, device=own.device)
    return torch.full((size,), used, device=own.device).index_copy_(0, torch.cat([own, old]), places)
