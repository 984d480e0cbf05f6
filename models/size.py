"""Sizes of a model by parameter group."""

from __future__ import annotations

from torch import nn

from models.groups import Group, group_of, named_tensors


def count(model: nn.Module) -> dict[Group, int]:
    """Return the number of values in each group; tied weights count once."""
    sizes = dict.fromkeys(Group, 0)
    for name, tensor in named_tensors(model).items():
        sizes[group_of(name)] += tensor.numel()
    return sizes
