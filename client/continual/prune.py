"""Magnitude pruning of the task in training: the smallest of its weights become free for later tasks.

Each layer is pruned by itself. A released weight is set to 0 and leaves the optimizer with its momentum, so it cannot move
again; nothing is pruned twice, and weights of earlier tasks are not looked at.

Source: Zhu & Gupta (ICLR workshop 2018), cubic schedule; CPG (Hung et al., NeurIPS 2019): share of own and free weights;
PackNet (Mallya & Lazebnik, CVPR 2018): once, share of own weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from client.continual.assemble import Workspace, without_some
from client.continual.session import Session


def cubic(step: int, first: int, last: int, start: float, end: float) -> float:
    """Return the share to have pruned at a step: s_e + (s_s - s_e) (1 - p)^3 with p = (step - first) / (last - first).

    >>> [round(cubic(step, 0, 4, 0.0, 0.8), 4) for step in (-1, 0, 1, 2, 4, 9)]
    [0.0, 0.0, 0.4625, 0.7, 0.8, 0.8]

    Source: Zhu & Gupta 2018, Eq. 1.
    """
    p = 1.0 if last <= first else min(1.0, max(0.0, (step - first) / (last - first)))
    return end + (start - end) * (1 - p) ** 3


@torch.no_grad()
def prune(session: Session, ratio: float, optimizer: torch.optim.Optimizer | None = None) -> int:
    """Prune until round(ratio x (own + free)) weights of each layer are free, smallest first; return how many were released.

    A layer with as many free weights is left alone. Nothing of an earlier forward pass that has a graph, such as its loss, may
    be alive: the next backward pass would expect a gradient of the old size.

    Args:
        session: the task in training.
        ratio: share of own and free weights, in [0, 1].
        optimizer: of the session; its state is cut like the weights.

    Raises:
        ValueError: the ratio is out of range.
    """
    own, free = _counts(session)
    wanted = [round(ratio * (mine + empty)) - empty for mine, empty in zip(own, free, strict=True)]
    return _release(session, ratio, own, [max(0, count) for count in wanted], optimizer)


@torch.no_grad()
def prune_once(session: Session, ratio: float, optimizer: torch.optim.Optimizer | None = None) -> int:
    """Prune round(ratio x own) weights of each layer, whatever is free already (PackNet); otherwise as :func:`prune`."""
    own, _ = _counts(session)
    return _release(session, ratio, own, [round(ratio * mine) for mine in own], optimizer)


def _counts(session: Session) -> tuple[list[int], list[int]]:
    """Own and free weights of each layer."""
    sums = [torch.stack([(owner == session.task).sum(), (owner == 0).sum()]) for owner in _owners(session)]
    found = torch.stack(sums).tolist()  # one transfer from the device, not two for each layer
    return [mine for mine, _ in found], [empty for _, empty in found]


def _owners(session: Session) -> list[Tensor]:
    return [layer.get_buffer("owner") for layer in session.layers]


def _release(
    session: Session, ratio: float, own: Sequence[int], counts: Sequence[int], optimizer: torch.optim.Optimizer | None
) -> int:
    """Free the ``counts`` smallest of the ``own`` weights of each layer."""
    if not 0.0 <= ratio <= 1.0:
        raise ValueError(f"found a pruning ratio of {ratio}, expected 0 to 1")
    if not any(counts):
        return 0
    keep = torch.ones_like(session.values, dtype=torch.bool)
    start = 0
    for count, size in zip(counts, own, strict=True):
        if count:
            smallest = session.values[start : start + size].abs().topk(count, largest=False, sorted=False).indices
            keep[start + smallest] = False
        start += size
    _free(session, session.layout.own[~keep])
    _cut(session.values, keep, optimizer)
    session.workspace = Workspace(without_some(session.layout, keep), session.values.detach())
    session.values.data = session.workspace.values
    return sum(counts)


def _free(session: Session, positions: Tensor) -> None:
    """Set owner and weight to 0 at positions in the flattened ownable weights."""
    own = _owners(session)
    gone = torch.zeros(session.layout.size, dtype=torch.bool, device=positions.device)
    gone[positions] = True
    parts = torch.split(gone, [owner.numel() for owner in own])
    for layer, owner, part in zip(session.layers, own, parts, strict=True):
        mask = part.view(owner.shape)
        owner.masked_fill_(mask, 0)
        layer.get_parameter("weight").masked_fill_(mask, 0.0)


def _cut(values: nn.Parameter, keep: Tensor, optimizer: torch.optim.Optimizer | None) -> None:
    """Keep some numbers of the vector that is optimised, and of the optimizer's state of each number."""
    shape = values.shape
    state: dict[str, Any] = optimizer.state.get(values, {}) if optimizer is not None else {}
    for key, value in state.items():
        if isinstance(value, Tensor) and value.shape == shape:
            state[key] = value[keep]
    values.grad = None
    values.data = values.data[keep]
