"""Growth that does not change what a model computes: new attention heads and new hidden units of feed-forward blocks.

What grows together is a seam: the rows of one or more linear layers and the columns of the layer that reads them.

    heads     qkv or (to_q, to_kv) --> out      one unit is a head of d channels
    hidden    up --> down                       one unit is a channel

The new columns of the reading layer are zero, so the new units add exactly 0; the new rows begin as those of a new layer.
New weights are free. A grown matrix is summed in another order, so an earlier task computes with a copy that is cut back to
its own width (``set_widths``): its logits are bit-equal.

A seam is found by the shape of a module, not by its model: a module with ``heads`` and linear layers named as above, one with
linear layers ``up`` and ``down``, and an ``nn.Sequential`` of two linear layers with activations and dropout between them. The
output of a seam and residual streams keep their width, and so does cross-attention, whose keys are made in the adapter.

Source: Net2Net (Chen et al., ICLR 2016) and staged growth of transformers (Shen et al., ICML 2022), function-preserving
growth; CPG (Hung et al., NeurIPS 2019), growth of a continual model, which there restarts from the previous task instead.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.factory import seeded
from models.groups import Group, ownable_layers

ROWS, COLUMNS = 0, 1
# Layers of attention and the matrices that each consists of.
ATTENTION_ROWS = {"qkv": 3, "to_q": 1, "to_kv": 2}
ATTENTION_SETS = (({"qkv"}, "out"), ({"to_q", "to_kv"}, "to_out"))
BETWEEN = (nn.GELU, nn.ReLU, nn.SiLU, nn.Tanh, nn.Dropout, nn.Identity)


@dataclass(frozen=True)
class Edge:
    """One side of a layer: ``blocks`` matrices of equal size, one after the other along ROWS or COLUMNS."""

    layer: nn.Linear
    dim: int
    blocks: int

    @property
    def size(self) -> int:
        """Channels of one block."""
        return self.layer.weight.shape[self.dim] // self.blocks


@dataclass(frozen=True)
class Seam:
    """What grows together.

    Attributes:
        edges: rows of the writing layers, then columns of the reading one; each block has ``units`` x ``channels``.
        channels: channels of one unit.
        heads: the module whose attribute ``heads`` counts the units, if there is one.
    """

    edges: tuple[Edge, ...]
    channels: int
    heads: nn.Module | None = None

    @property
    def units(self) -> int:
        """Heads or hidden units there are now."""
        return self.edges[-1].size // self.channels


def seams(model: nn.Module) -> dict[str, Seam]:
    """Return the seams of a backbone by the name of their module."""
    places = Counter(id(module.weight) for module in model.modules() if isinstance(getattr(module, "weight", None), Tensor))
    known = {id(layer) for layer in ownable_layers(model).values() if places[id(layer.weight)] == 1}  # tied ones cannot grow
    found = {}
    for path, module in model.named_modules():
        seam = attention_seam(module) or feed_forward_seam(module)
        if seam is not None and all(id(edge.layer) in known for edge in seam.edges):
            found[path] = seam
    return found


def attention_seam(module: nn.Module) -> Seam | None:
    """Return the seam of a self-attention module; None: it is none, or its projection has a shape for each head."""
    heads, children = getattr(module, "heads", None), dict(module.named_children())
    if not isinstance(heads, int) or "projection" in children:
        return None
    for writers, reader in ATTENTION_SETS:
        layers = [children.get(name) for name in (*sorted(writers), reader)]
        if all(isinstance(layer, nn.Linear) for layer in layers):
            rows = [Edge(children[name], ROWS, ATTENTION_ROWS[name]) for name in sorted(writers)]  # type: ignore[arg-type]
            last = Edge(children[reader], COLUMNS, 1)  # type: ignore[arg-type]
            if all(edge.size == last.size for edge in rows):
                return Seam((*rows, last), last.size // heads, module)
    return None


def feed_forward_seam(module: nn.Module) -> Seam | None:
    """Return the seam of a feed-forward module, gated or not; None: it is none."""
    children = dict(module.named_children())
    if isinstance(module, nn.Sequential):
        layers = list(children.values())
        ends = [i for i, child in enumerate(layers) if isinstance(child, nn.Linear)]
        between = layers[ends[0] + 1 : ends[1]] if len(ends) == 2 else [module]
        if not all(isinstance(child, BETWEEN) or type(child).__name__ == "GEGLU" for child in between):
            return None
        return pair_seam(layers[ends[0]], layers[ends[1]])  # type: ignore[arg-type]
    up, down = children.get("up"), children.get("down")
    return pair_seam(up, down) if isinstance(up, nn.Linear) and isinstance(down, nn.Linear) else None


def pair_seam(first: nn.Linear, second: nn.Linear) -> Seam | None:
    """Return the seam of two layers with a function of single channels between them; None: their widths do not fit.

    Twice as many rows as columns is a gated unit (values, then gates).
    """
    blocks, rest = divmod(first.out_features, second.in_features)
    if rest or blocks not in (1, 2):
        return None
    return Seam((Edge(first, ROWS, blocks), Edge(second, COLUMNS, 1)), 1)


def widths(model: nn.Module) -> dict[str, int]:
    """Return the units of every seam."""
    return {name: seam.units for name, seam in seams(model).items()}


def next_widths(start: Mapping[str, int], now: Mapping[str, int], step: float, cap: float) -> dict[str, int]:
    """Return the widths after one growth; equal to ``now``: the cap is reached.

    Args:
        start: units of each seam before any growth.
        now: units now.
        step: share of ``start`` to add, rounded up to a unit.
        cap: never more than this multiple of ``start``, rounded down; >= 1.

    >>> next_widths({"attn": 4, "ff": 128}, {"attn": 4, "ff": 128}, step=0.25, cap=1.5)
    {'attn': 5, 'ff': 160}
    >>> next_widths({"attn": 4, "ff": 128}, {"attn": 6, "ff": 190}, step=0.25, cap=1.5)
    {'attn': 6, 'ff': 192}
    """
    return {
        name: max(now[name], min(now[name] + math.ceil(step * units), math.floor(cap * units)))
        for name, units in start.items()
    }


@torch.no_grad()
def set_widths(model: nn.Module, units: Mapping[str, int], *, seed: int = 0) -> None:
    """Grow or cut seams in place. Growing does not change the output; cutting back returns the tensors of before.

    Parameters and owners are replaced by new ones, so an optimizer has to be made anew.

    Args:
        model: with or without owners.
        units: units of each seam that changes.
        seed: of the new rows; they depend on it, the seam and its widths alone.

    Raises:
        ValueError: a seam is unknown, or would have no unit left.
    """
    found = seams(model)
    for name, count in units.items():
        if name not in found:
            raise ValueError(f"the model has no seam {name!r}: expected one of {list(found)}")
        if count < 1:
            raise ValueError(f"seam {name!r}: found {count} units, expected 1 or more")
    for name, count in units.items():
        seam = found[name]
        if count == seam.units:
            continue
        with seeded(seed, Group.BACKBONE, f"{name}/{seam.units}/{count}"):
            for edge in seam.edges:
                resize(edge, count * seam.channels)
        if seam.heads is not None:
            seam.heads.heads = count  # type: ignore[assignment]


def resize(edge: Edge, size: int) -> None:
    """Give each block of a layer's side ``size`` channels: new rows are initial values, new columns zero, new owners free."""
    layer, dim, blocks = edge.layer, edge.dim, edge.blocks
    out, width = layer.weight.shape
    shape = (size * blocks, width) if dim == ROWS else (out, size * blocks)
    fresh = nn.Linear(shape[1], shape[0], bias=layer.bias is not None).to(layer.weight)
    if dim == COLUMNS:
        fresh.weight.zero_()
    layer.weight = nn.Parameter(placed(layer.weight, fresh.weight, dim, blocks), layer.weight.requires_grad)
    owner = dict(layer.named_buffers(recurse=False)).get("owner")
    if owner is not None:
        layer.owner = placed(owner, torch.zeros_like(layer.weight, dtype=torch.uint8), dim, blocks)
    if dim == ROWS and layer.bias is not None:
        layer.bias = nn.Parameter(placed(layer.bias, fresh.bias, ROWS, blocks), layer.bias.requires_grad)
    layer.out_features, layer.in_features = shape


def placed(old: Tensor, new: Tensor, dim: int, blocks: int) -> Tensor:
    """Return ``new`` with the values of ``old`` at the beginning of each block; where ``new`` is shorter, old is cut."""
    result = new.detach().clone()
    news, olds = result.chunk(blocks, dim), old.detach().chunk(blocks, dim)
    common = min(news[0].shape[dim], olds[0].shape[dim])
    for into, out in zip(news, olds, strict=True):
        into.narrow(dim, 0, common).copy_(out.narrow(dim, 0, common))
    return result
