"""Sizes and costs of a model: values by parameter group, operations and time of a forward pass."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from models.groups import Group, group_of, named_tensors


@dataclass(frozen=True)
class Cost:
    """What a model costs.

    Attributes:
        macs: multiply-accumulate operations of one forward pass for one input, of matrix products alone.
        parameters: values of all groups.
        bytes: the memory they take.
        milliseconds: median time of a forward pass of the whole batch.
    """

    macs: int
    parameters: int
    bytes: int
    milliseconds: float


def count(model: nn.Module) -> dict[Group, int]:
    """Return the number of values in each group; tied weights count once."""
    sizes = dict.fromkeys(Group, 0)
    for name, tensor in named_tensors(model).items():
        sizes[group_of(name)] += tensor.numel()
    return sizes


@torch.enable_grad()  # the counter's hooks need it
def count_macs(model: nn.Module, inputs: Tensor) -> int:
    """Return the multiply-accumulate operations of one forward pass of a batch, all inputs together.

    Attention counts as two matrix products, whatever kernel computes it.
    """
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(inputs)
    return int(counter.get_total_flops()) // 2


@torch.no_grad()
def measure(model: nn.Module, inputs: Tensor, repeats: int = 10) -> Cost:
    """Measure a model on a batch; it is in evaluation mode afterwards."""
    model.eval()
    tensors = named_tensors(model).values()
    seconds = []
    for _ in range(repeats + 1):  # the first call warms up
        start = time.perf_counter()
        model(inputs)
        if inputs.is_cuda:
            torch.cuda.synchronize(inputs.device)
        seconds.append(time.perf_counter() - start)
    return Cost(
        macs=count_macs(model, inputs) // len(inputs),
        parameters=sum(tensor.numel() for tensor in tensors),
        bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        milliseconds=1000 * statistics.median(seconds[1:]),
    )
