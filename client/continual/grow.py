"""Growth that does not change what a model computes: heads, hidden units, and the maps and features of chains of layers.

What grows together is a seam (client/continual/seams.py says which there are): the rows of a layer, the batch norms behind it,
and the columns of the layer that reads them. The new columns are zero, so the new units add exactly 0; the new rows begin as
those of a new layer, and the new channels of a batch norm with scale 1, shift 0, mean 0 and variance 1.
New weights are free. A grown matrix is summed in another order, so an earlier task computes with a copy that is cut back to
its own width (``set_widths``): its logits are bit-equal.

Source: Net2Net (Chen et al., ICLR 2016) and staged growth of transformers (Shen et al., ICML 2022), function-preserving
growth; CPG (Hung et al., NeurIPS 2019), growth of a continual model, which there restarts from the previous task instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from client.continual.seams import COLUMNS, ROWS, Edge, Layer, seams
from models.factory import seeded
from models.groups import Group

NORM = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
"""What a new channel of a batch norm begins with."""


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
        seed: of the new rows; they depend on it, the seam and the widths of its layers alone.

    Raises:
        ValueError: a seam is unknown, or would have no unit left.
    """
    found = seams(model)
    for name, count in units.items():
        if name not in found:
            raise ValueError(f"the model has no seam {name!r}: expected one of {list(found)}")
        if count < 1:
            raise ValueError(f"seam {name!r}: found {count} units, expected 1 or more")
    for name, seam in found.items():  # one seam may add columns to the rows of another: always in the order of the model
        count = units.get(name, seam.units)
        if count == seam.units:
            continue
        with seeded(seed, Group.BACKBONE, f"{name}/{seam.units}/{count}"):
            for edge in seam.edges:
                resize(edge, count * edge.channels)
        if seam.heads is not None:
            seam.heads.heads = count  # type: ignore[assignment]


def resize(edge: Edge, size: int) -> None:
    """Give each block of a layer's side ``size`` channels: new rows are initial values, new columns zero, new owners free."""
    layer, dim, blocks = edge.layer, edge.dim, edge.blocks
    if isinstance(layer, _BatchNorm):
        resize_norm(layer, size)
        return
    out, width = layer.weight.shape[:2]
    shape = (size * blocks, width) if dim == ROWS else (out, size * blocks)
    fresh = new_layer(layer, *shape).to(layer.weight)
    if dim == COLUMNS:
        fresh.weight.zero_()
    layer.weight = nn.Parameter(placed(layer.weight, fresh.weight, dim, blocks), layer.weight.requires_grad)
    owner = dict(layer.named_buffers(recurse=False)).get("owner")
    if owner is not None:
        layer.owner = placed(owner, torch.zeros_like(layer.weight, dtype=torch.uint8), dim, blocks)
    if dim == ROWS and layer.bias is not None and fresh.bias is not None:
        layer.bias = nn.Parameter(placed(layer.bias, fresh.bias, ROWS, blocks), layer.bias.requires_grad)
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = shape
    else:
        layer.out_channels, layer.in_channels = shape


def new_layer(layer: Layer, rows: int, columns: int) -> Layer:
    """Return a layer of the same kind and of another size, with initial weights as PyTorch draws them."""
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        return nn.Linear(columns, rows, bias=bias)
    return type(layer)(columns, rows, layer.kernel_size, bias=bias)  # type: ignore[call-arg]


def resize_norm(norm: _BatchNorm, size: int) -> None:
    """Give a batch norm ``size`` channels. What it does not have stays None, and its number of batches as it is."""
    for name, value in NORM.items():
        old = getattr(norm, name)
        if old is None:
            continue
        new = placed(old, old.new_full((size,), value), ROWS, 1)
        setattr(norm, name, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)
    norm.num_features = size


def placed(old: Tensor, new: Tensor, dim: int, blocks: int) -> Tensor:
    """Return ``new`` with the values of ``old`` at the beginning of each block; where ``new`` is shorter, old is cut."""
    result = new.detach().clone()
    news, olds = result.chunk(blocks, dim), old.detach().chunk(blocks, dim)
    common = min(news[0].shape[dim], olds[0].shape[dim])
    for into, out in zip(news, olds, strict=True):
        into.narrow(dim, 0, common).copy_(out.narrow(dim, 0, common))
    return result
