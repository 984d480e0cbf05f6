"""Parameter groups: which tensors of a model are its backbone, adapter and head, and how they are taken out and put back.

The group of a parameter is the first word of its name. Names come from ``named_parameters`` and the persistent buffers, not
from ``state_dict``, which lists a tied weight once for each place it is used: tied weights travel once.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import TypeVar

import torch
from torch import Tensor, nn

ModelT = TypeVar("ModelT", bound=nn.Module)


class Group(StrEnum):
    """What a parameter belongs to; the value is the first word of its name."""

    BACKBONE = "backbone"
    ADAPTER = "adapter"
    HEAD = "head"
    FROZEN = "frozen"


# FedCola (Sun et al., ECCV 2024) shares self-attention and keeps feed-forward blocks local. Here: the query, key and value
# matrices of self-attention, one matrix in our models (qkv), two in those of perceiver-pytorch (to_q, to_kv); not the query
# matrix of cross-attention. Output matrices stay local, which keeps the payload of a Perceiver below 30 % of its backbone. The
# backbone of beit3 is self-attention and nothing else: three quarters of it.
ATTENTION = re.compile(r"backbone\..*(\bqkv|\bself_attns\..*\bto_(q|kv))\.weight")
# Which columns of the low-rank projection are open, and which task owns a weight, is a client's own affair and never travels.
LOCAL = re.compile(r"adapter\.(gate|input_bias)\..*|.*\.owner")


def group_of(name: str) -> Group:
    """Return the group of a parameter.

    >>> group_of("head.classifier.weight")
    <Group.HEAD: 'head'>

    Raises:
        ValueError: the name is in no group.
    """
    prefix, dot, _ = name.partition(".")
    if not dot or prefix not in set(Group):
        raise ValueError(f"parameter {name!r} is in no group: its name must begin with {', '.join(f'{g}.' for g in Group)}")
    return Group(prefix)


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return every parameter and persistent buffer once, by name, in the order of the model."""
    saved = model.state_dict(keep_vars=True).keys()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in saved}
    return dict(model.named_parameters()) | buffers


def group_names(model: nn.Module, *groups: Group) -> list[str]:
    """Return the names of the tensors of some groups, in the order of the model.

    Raises:
        ValueError: a tensor of the model is in no group.
    """
    return [name for name in named_tensors(model) if group_of(name) in groups]


def stored_names(model: nn.Module) -> list[str]:
    """Return the names of the tensors that a client stores: all but FROZEN, which never change and are on its disk already.

    Raises:
        ValueError: a tensor of the model is in no group.
    """
    return group_names(model, *(group for group in Group if group is not Group.FROZEN))


def shared_names(model: nn.Module, share: str) -> list[str]:
    """Return the names of the tensors that may leave a client under ``strategy.share``.

    Raises:
        ValueError: ``share`` is unknown, or the model has no such tensor.
    """
    if share == "attention":
        names = [name for name in group_names(model, Group.BACKBONE) if ATTENTION.fullmatch(name)]
    else:
        words = share.split("+")
        if words not in (["backbone"], ["backbone", "adapter"], ["backbone", "adapter", "head"]):
            raise ValueError(
                f"strategy.share = {share!r}: expected backbone, attention, backbone+adapter or backbone+adapter+head"
            )
        names = [name for name in group_names(model, *(Group(word) for word in words)) if not LOCAL.fullmatch(name)]
    if not names:
        raise ValueError(
            f"strategy.share = {share!r}: the model has no such tensor; with 'attention' it needs model.layers > 0"
        )
    return names


def copy_model(model: ModelT) -> ModelT:
    """Return a copy of a model; frozen tensors, which may be large and never change, are those of the original."""
    tensors = named_tensors(model)
    shared: dict[int, object] = {id(tensors[name]): tensors[name] for name in group_names(model, Group.FROZEN)}
    return copy.deepcopy(model, shared)


def get_tensors(model: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """Return copies of some tensors of a model on the CPU.

    Raises:
        ValueError: the model has no tensor of that name.
    """
    own = named_tensors(model)
    return {name: _find(own, name).detach().to("cpu", copy=True) for name in names}


@torch.no_grad()
def set_tensors(model: nn.Module, tensors: Mapping[str, Tensor], names: Sequence[str] | None = None) -> None:
    """Copy tensors into a model in place; all are checked before the first is written.

    Args:
        model: the model to change; its tensors keep their dtype and device.
        tensors: values by name.
        names: the names that must be there, neither more nor fewer; None: any that the model has.

    Raises:
        ValueError: a name is missing or unknown, a shape or kind of number is wrong, or a value is not finite.
    """
    own = named_tensors(model)
    for name in names or ():
        if name not in tensors:
            raise ValueError(f"tensor {name!r} is missing: found {len(tensors)} tensors, expected {len(names or ())}")
    for name, value in tensors.items():
        target = _find(own, name)
        if names is not None and name not in names:
            raise ValueError(f"tensor {name!r} was not expected: found {len(tensors)} tensors, expected {len(names)}")
        if value.shape != target.shape:
            raise ValueError(f"tensor {name!r}: found shape {tuple(value.shape)}, expected {tuple(target.shape)}")
        if value.is_floating_point() != target.is_floating_point():
            raise ValueError(f"tensor {name!r}: found {value.dtype}, expected {target.dtype}")
        if not torch.isfinite(value).all():
            bad = int((~torch.isfinite(value)).sum())
            raise ValueError(f"tensor {name!r}: found {bad} of {value.numel()} values NaN or infinite, expected finite values")
    for name, value in tensors.items():
        own[name].copy_(value)


def _find(own: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in own:
        raise ValueError(
            f"tensor {name!r} is unknown: expected one of the {len(own)} names of the model, such as {next(iter(own))!r}"
        )
    return own[name]
