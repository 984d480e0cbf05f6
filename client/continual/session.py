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

from client.continual.assemble import THRESHOLD, Layout, Workspace, assemble, flat_weights, make_layout
from client.continual.memory import Memory, TaskRecord, install, remember
from client.continual.ownership import check_task, owners, private_names
from models.groups import Group, ownable, ownable_layers

PICK_INIT = 1e-2


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
        workspace: of the forward pass, with the layout of values and scores.
        values: the task's weights, shape (owned,).
        scores: of its picks, shape (pickable,).
        private: the private parameters it trains, by name.
    """

    model: nn.Module
    memory: Memory
    task: int
    layers: tuple[nn.Module, ...]
    workspace: Workspace
    values: nn.Parameter
    scores: nn.Parameter
    private: dict[str, nn.Parameter]

    def __call__(self, inputs: Tensor) -> Tensor:
        """Inputs to logits (B, classes) of the task as it stands, in the mode (training, evaluation) of the model."""
        weights = assemble(self.values, self.scores, self.workspace)
        with in_place_of_parameters(self.layers, weights):
            logits: Tensor = self.model(inputs)
        return logits

    @property
    def layout(self) -> Layout:
        """Where values and scores belong."""
        return self.workspace.layout

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
    workspace = Workspace(layout, flat_weights(model)[layout.own])
    if not workspace.owned and not empty:
        raise ValueError(f"task {task} owns no weight: claim free ones first, or let the model grow if there are none")
    if scores is None:
        scores = torch.full_like(layout.old_weights, PICK_INIT)
    if len(scores) != len(layout.old_weights):
        raise ValueError(
            f"found {len(scores)} scores, expected {len(layout.old_weights)}: one for each weight of earlier tasks"
        )
    without = frozenset({Group.ADAPTER}) if memory.shares_adapter(task) else frozenset()
    mine = set(private_names(model, without))
    return Session(
        model=model,
        memory=memory,
        task=task,
        layers=tuple(ownable_layers(model).values()),
        workspace=workspace,
        values=nn.Parameter(workspace.values),
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
