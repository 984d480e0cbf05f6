"""Values and scores to the weights of the backbone, and the gradients of these back to values and scores.

    values  (weights with owner == c,)       --+
    scores  (weights with 0 < owner < c,)    --+--> weights of all layers:  value | weight * (score > THRESHOLD) | 0

With a large model memory is what takes time: a new buffer of its size costs several times what writing into an old one does.
So everything is written into buffers that stay (:class:`Workspace`), by 32-bit indexes, and a few layers at a time
(:class:`Part`), whose gradients are read and given back as soon as they are there.

A buffer is not written again while a graph that still has to go backward reads it: then the next one gets new ones. The
gradients of values and scores are such a buffer too, and last until the backward pass after the next time that both are None:
copy what is to be kept longer.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from client.continual.ownership import owners
from models.groups import ownable

THRESHOLD = 5e-3
PART = 1 << 20
"""Weights of a part, at least; but for the last."""


@dataclass(frozen=True)
class Part:
    """Some neighbouring layers.

    Attributes:
        shapes: of their weights.
        weights: where these are among all ownable weights, flattened one after the other.
        values: which values are theirs.
        scores: which scores are theirs.
        own: positions with owner == c within the part, ascending.
        old: positions with 0 < owner < c within the part, ascending.
    """

    shapes: tuple[torch.Size, ...]
    weights: slice
    values: slice
    scores: slice
    own: Tensor
    old: Tensor


@dataclass(frozen=True)
class Layout:
    """Where values and scores belong in the ownable weights.

    Attributes:
        size: number of ownable weights.
        parts: in the order of the model.
        old_weights: the weights with 0 < owner < c.
        source: for each ownable weight its place in (values, scores, one zero).
    """

    size: int
    parts: tuple[Part, ...]
    old_weights: Tensor
    source: Tensor

    @property
    def own(self) -> Tensor:
        """Positions with owner == c, ascending, shape (values,)."""
        return torch.cat([part.own.long() + part.weights.start for part in self.parts])


def make_layout(model: nn.Module, task: int) -> Layout:
    """Return where values and scores of a task belong."""
    flat = torch.cat([owner.reshape(-1) for owner in owners(model).values()])
    shapes = [weight.shape for weight in ownable(model).values()]
    weights = flat_weights(model)
    index = torch.int32 if len(flat) < 2**31 else torch.int64
    own, old = flat == task, (flat > 0) & (flat < task)
    parts, values, scores = [], 0, 0
    for first, last, start, end in part_bounds(shapes):
        mine, theirs = (mask[start:end].nonzero().squeeze(1).to(index) for mask in (own, old))
        kept, picked = slice(values, values + len(mine)), slice(scores, scores + len(theirs))
        parts.append(Part(tuple(shapes[first:last]), slice(start, end), kept, picked, mine, theirs))
        values, scores = kept.stop, picked.stop
    source = torch.full((len(flat),), values + scores, dtype=index, device=flat.device)
    source[own] = torch.arange(values, dtype=index, device=flat.device)
    source[old] = torch.arange(values, values + scores, dtype=index, device=flat.device)
    return Layout(len(flat), tuple(parts), weights[old], source)


@torch.no_grad()
def without_some(layout: Layout, keep: Tensor) -> Layout:
    """Return the layout in which some values are gone and their weights are 0.

    Args:
        layout: as it is.
        keep: bool, shape (values,); False: gone.
    """
    count, scores = int(keep.sum()), len(layout.old_weights)
    places = torch.arange(count - len(keep), count + scores + 1, dtype=layout.source.dtype, device=keep.device)
    torch.cumsum(keep, 0, dtype=places.dtype, out=places[: len(keep)]).sub_(1).masked_fill_(~keep, count + scores)
    parts, start = [], 0
    for part in layout.parts:
        own = part.own[keep[part.values]]
        parts.append(replace(part, own=own, values=slice(start, start + len(own))))
        start += len(own)
    return replace(layout, parts=tuple(parts), source=places.index_select(0, layout.source))


def part_bounds(shapes: Sequence[torch.Size]) -> list[tuple[int, int, int, int]]:
    """Cut layers into parts: first layer, the one after the last, first weight, the one after the last."""
    cuts, total = [(0, 0)], 0
    for layer, shape in enumerate(shapes, start=1):
        total += shape.numel()
        if total - cuts[-1][1] >= PART or layer == len(shapes):
            cuts.append((layer, total))
    return [(first, last, start, end) for (first, start), (last, end) in pairwise(cuts)]


def flat_weights(model: nn.Module) -> Tensor:
    """Return a copy of all ownable weights, one after the other."""
    return torch.cat([weight.detach().reshape(-1) for weight in ownable(model).values()])


class Workspace:
    """The buffers of one session.

    Args:
        layout: of its values and scores.
        values: become the first part of a buffer, which the optimizer then writes into: they need not be copied.
    """

    def __init__(self, layout: Layout, values: Tensor) -> None:
        self.layout = layout
        self.owned = len(values)
        used = self.owned + len(layout.old_weights)
        self.sources = values.new_zeros(used + 1)
        self.sources[: self.owned] = values
        self.whole = self.owned == layout.size  # then the values are the weights
        self.flat = self.sources[: self.owned] if self.whole else values.new_empty(layout.size)
        self.grads = values.new_empty(used)
        self.pass_: weakref.ref[Pass] | None = None

    @property
    def values(self) -> Tensor:
        """The place of the values."""
        return self.sources[: self.owned]

    def begin(self) -> Pass:
        """Begin a forward pass: in the session's buffers, or in new ones if an earlier pass still has to go backward."""
        before = self.pass_() if self.pass_ is not None else None
        if before is None or before.done:
            begun = Pass(self, self.flat, self.grads)
            self.pass_ = weakref.ref(begun)
            return begun
        return Pass(self, self.flat if self.whole else torch.empty_like(self.flat), torch.empty_like(self.grads))


class Pass:
    """One pass forward, and backward as often as asked for."""

    def __init__(self, workspace: Workspace, flat: Tensor, grads: Tensor) -> None:
        self.workspace, self.flat, self.grads = workspace, flat, grads
        self.done = False
        self.collected: set[int] = set()

    @torch.no_grad()
    def fill(self, values: Tensor, scores: Tensor) -> None:
        """Write the weights."""
        space, layout = self.workspace, self.workspace.layout
        if values.data_ptr() != space.sources.data_ptr() and len(values):  # someone gave the parameter other data
            space.values.copy_(values)
        if space.whole:
            return
        for part in layout.parts:
            old = space.sources[space.owned + part.scores.start : space.owned + part.scores.stop]
            torch.ops.aten.threshold_backward.grad_input(  # weight * (score > THRESHOLD) in one go
                layout.old_weights[part.scores], scores[part.scores], THRESHOLD, grad_input=old
            )
            torch.index_select(space.sources, 0, layout.source[part.weights], out=self.flat[part.weights])

    def weights(self, part: Part) -> tuple[Tensor, ...]:
        """Return the weights of a part's layers."""
        pieces = torch.split(self.flat[part.weights], [shape.numel() for shape in part.shapes])
        return tuple(piece.view(shape) for piece, shape in zip(pieces, part.shapes, strict=True))

    def collect(self, index: int, grads: Sequence[Tensor], picking: bool) -> None:
        """Take the gradients of one part's weights: to values (gathered) and to scores (gathered, times the weight)."""
        space, part = self.workspace, self.workspace.layout.parts[index]
        into = self.grads[part.values]
        if space.whole:
            torch.cat([grad.reshape(-1) for grad in grads], out=into)
        else:
            flat = grads[0].reshape(-1) if len(grads) == 1 else torch.cat([grad.reshape(-1) for grad in grads])
            torch.index_select(flat, 0, part.own, out=into)
            if picking:
                into = self.grads[space.owned + part.scores.start : space.owned + part.scores.stop]
                torch.index_select(flat, 0, part.old, out=into).mul_(space.layout.old_weights[part.scores])
        self.collected.add(index)

    def hand_over(self) -> tuple[Tensor, Tensor]:
        """Return the gradients of values and scores; those of parts that no gradient reached are zero."""
        space = self.workspace
        for index, part in enumerate(space.layout.parts):
            if index not in self.collected:
                self.grads[part.values] = 0.0
                self.grads[space.owned + part.scores.start : space.owned + part.scores.stop] = 0.0
        self.collected.clear()
        self.done = True
        return self.grads[: space.owned], self.grads[space.owned :]


class Fill(torch.autograd.Function):
    """Values and scores to a token, which stands for all weights; backward it hands over what the parts collected."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, scores: Tensor, begun: Pass) -> Tensor:
        """Write the weights of all layers."""
        ctx.begun = begun
        begun.fill(values, scores)
        return values.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of values and scores."""
        values, scores = ctx.begun.hand_over()
        return values, scores if ctx.needs_input_grad[1] else None, None


class Take(torch.autograd.Function):
    """The token to the weights of one part."""

    @staticmethod
    def forward(ctx: Any, token: Tensor, begun: Pass, index: int, parameters: tuple[nn.Parameter, nn.Parameter]) -> Any:
        """Return one weight for each layer."""
        ctx.begun, ctx.index, ctx.parameters = begun, index, parameters
        return begun.weights(begun.workspace.layout.parts[index])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Let the pass take the gradients."""
        begun: Pass = ctx.begun
        if not begun.collected and any(parameter.grad is not None for parameter in ctx.parameters):
            begun.grads = torch.empty_like(begun.grads)  # the gradients there are may lie in the buffer, and are added to
        begun.collect(ctx.index, grads, ctx.parameters[1].requires_grad)
        return grads[0].new_zeros(()), None, None, None


def assemble(values: nn.Parameter, scores: nn.Parameter, workspace: Workspace) -> list[Tensor]:
    """Return the weights of all layers, in the order of the model."""
    begun = workspace.begin()
    token = Fill.apply(values, scores, begun)  # type: ignore[no-untyped-call]
    weights: list[Tensor] = []
    for index in range(len(workspace.layout.parts)):
        weights.extend(Take.apply(token, begun, index, (values, scores)))  # type: ignore[no-untyped-call]
    return weights
