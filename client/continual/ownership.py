"""Who owns which weight: task ids beside the weights of a backbone, and the weights that one task computes with.

    owner 0         free: computes nothing, whatever its value
    owner t >= 1    learned by task t, and never changed again

    task c computes with    W            where owner == c
                            W * pick     where 0 < owner < c       a pick is one bit of task c
                            0            elsewhere

Ownable are the ``weight`` of every linear and convolution layer of the group BACKBONE, a tied weight once. All other tensors
but those of FROZEN are private: each task has its own (client/continual/memory.py). So no tensor that an earlier task computes
with is ever written, and its logits stay bit-equal.

Source: PackNet (Mallya & Lazebnik, CVPR 2018), owners; Piggyback (Mallya et al., ECCV 2018), picks; CPG (Hung et al., NeurIPS
2019), both together. Unlike them: no mask is ever written into the weights, and biases, norms, latents and position codes are
private too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.groups import WEIGHT, Group, group_of, named_tensors, ownable, ownable_layers

MAX_TASK = 255  # owners are uint8
OWNER = ".owner"


def attach_owners(model: nn.Module) -> None:
    """Give every ownable weight a buffer ``owner`` (uint8, its shape) beside it, all free; what is there already stays.

    Raises:
        ValueError: the model has no ownable weight.
    """
    layers = ownable_layers(model)
    if not layers:
        raise ValueError("the model has no linear or convolution layer in its backbone: no task can own anything")
    for layer in layers.values():
        if "owner" not in dict(layer.named_buffers(recurse=False)):
            layer.register_buffer("owner", torch.zeros_like(layer.weight, dtype=torch.uint8))  # type: ignore[arg-type]


def owners(model: nn.Module) -> dict[str, Tensor]:
    """Return the owners of every ownable weight, by the name of the weight.

    Raises:
        ValueError: the model has no owners.
    """
    buffers = dict(model.named_buffers())
    names = {name: name.removesuffix(WEIGHT) + OWNER for name in ownable_layers(model)}
    missing = [name for name, buffer in names.items() if buffer not in buffers]
    if missing or not names:
        raise ValueError(f"{len(missing)} weights, such as {missing[:1]}, have no owners: call attach_owners first")
    return {name: buffers[buffer] for name, buffer in names.items()}


def check_task(task: int) -> None:
    """Raise ValueError unless a task id is in 1 … 255."""
    if not 1 <= task <= MAX_TASK:
        raise ValueError(f"found task {task}, expected 1 to {MAX_TASK}: owners are 8 bits, and 0 means free")


@torch.no_grad()
def claim_free(model: nn.Module, task: int) -> int:
    """Give every free weight to a task, as CPG does when a task begins; return how many they are.

    Weights that pruning released begin at 0, those of a grown layer at the layer's initial values.

    Raises:
        ValueError: the task is out of range, or a later one owns weights already.
    """
    check_task(task)
    own = owners(model)
    latest = max(int(owner.max()) for owner in own.values())
    if latest > task:
        raise ValueError(f"task {task} cannot claim weights: task {latest} came after it")
    count = sum(int((owner == 0).sum()) for owner in own.values())
    for owner in own.values():
        owner.masked_fill_(owner == 0, task)
    return count


def count_owned(model: nn.Module) -> dict[int, int]:
    """Return the number of weights of each owner that has any; 0 is free."""
    flat = torch.cat([owner.flatten() for owner in owners(model).values()])
    return {task: count for task, count in enumerate(torch.bincount(flat).tolist()) if count}


def pickable(model: nn.Module, task: int) -> dict[str, Tensor]:
    """Return where a task can pick: masks of 0 < owner < task."""
    return {name: (owner > 0) & (owner < task) for name, owner in owners(model).items()}


@torch.no_grad()
def effective_weights(model: nn.Module, task: int, picks: Tensor | None = None) -> dict[str, Tensor]:
    """Return the weights that a task computes with: new tensors, by name.

    Args:
        model: with owners.
        task: from 1.
        picks: bool, one for each weight with 0 < owner < task, in the order of the model; None: all are picked.

    Raises:
        ValueError: there are more or fewer picks than weights to pick from.
    """
    own, masks = owners(model), pickable(model, task)
    sizes = [int(mask.sum()) for mask in masks.values()]
    if picks is not None and len(picks) != sum(sizes):
        raise ValueError(f"found {len(picks)} picks, expected {sum(sizes)}: one for each weight that tasks before {task} own")
    parts = torch.split(torch.ones(sum(sizes), dtype=torch.bool) if picks is None else picks, sizes)
    result = {}
    for (name, weight), part in zip(ownable(model).items(), parts, strict=True):
        used = own[name] == task
        used[masks[name]] = part.to(used.device)
        result[name] = torch.where(used, weight, 0.0)  # not a product: what is not used may be anything, even NaN
    return result


def private_names(model: nn.Module, without: frozenset[Group] = frozenset()) -> list[str]:
    """Return the names of the tensors of which each task has its own: all that is neither ownable, owner nor FROZEN.

    Args:
        model: with or without owners.
        without: more groups to leave out.
    """
    shared = set(ownable_layers(model))
    shared |= {name.removesuffix(WEIGHT) + OWNER for name in shared}
    out = {Group.FROZEN, *without}
    return [name for name in named_tensors(model) if name not in shared and group_of(name) not in out]
