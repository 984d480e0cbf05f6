"""A model of another width that begins with what fits of a trained one.

Of each tensor the leading block that both have is copied, so a smaller model gets the first channels and heads of a trained
one, and a larger one has them before what it was initialised with. Heads keep their width. In a matrix that is several, as
keys and values are, each part gets its own block.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.attention import FeedForward
from models.groups import Group, copy_model, group_of, named_tensors

PARTS = {"to_kv.weight": 2, "qkv.weight": 3}
"""Matrices that are several, one above the other, by the end of their names."""


def parts_of(model: nn.Module) -> dict[str, int]:
    """Return how many matrices (or vectors) a tensor of a model is, by its name; those that are one are left out."""
    found = {name: parts for name in named_tensors(model) for end, parts in PARTS.items() if name.endswith(f".{end}")}
    gated = [path for path, module in model.named_modules() if isinstance(module, FeedForward) and module.gated]
    return found | {f"{path}.up.{kind}": 2 for path in gated for kind in ("weight", "bias")}


@torch.no_grad()
def fitted(trained: nn.Module, fresh: nn.Module) -> nn.Module:
    """Return a copy of a fresh model with what fits of a trained one.

    Args:
        trained: of the same settings but for the width.
        fresh: of the wanted width, as initialised.

    Raises:
        ValueError: the two have tensors of other names, numbers of dimensions or parts.
    """
    model = copy_model(fresh)
    own, other, parts = named_tensors(model), named_tensors(trained), parts_of(fresh)
    if set(own) != set(other) or parts != parts_of(trained):
        raise ValueError(f"{sorted(set(own) ^ set(other))[:4]} are in one model alone: the two differ in more than width")
    for name, tensor in own.items():
        if group_of(name) is not Group.FROZEN:
            copy_block(other, name, tensor, parts.get(name, 1))
    return model


def copy_block(trained: Mapping[str, Tensor], name: str, tensor: Tensor, parts: int) -> None:
    """Copy the leading block that a trained tensor and a new one have in common, of each of its parts.

    Raises:
        ValueError: their numbers of dimensions differ.
    """
    old = trained[name]
    if old.ndim != tensor.ndim:
        raise ValueError(f"{name} has {old.ndim} dimensions in one model and {tensor.ndim} in the other")
    for new_part, old_part in zip(tensor.chunk(parts), old.chunk(parts), strict=True) if tensor.ndim else [(tensor, old)]:
        block = tuple(slice(min(sizes)) for sizes in zip(new_part.shape, old_part.shape, strict=True))
        new_part[block].copy_(old_part[block])
