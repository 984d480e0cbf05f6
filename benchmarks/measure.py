"""Interleaved timing, and the memory that autograd keeps between forward and backward."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Step = Callable[[], object]
Clock = Callable[[Step], "Seconds"]


@dataclass(frozen=True)
class Seconds:
    """What one call took: ``cpu`` process time and ``wall`` time; on CUDA both are the time between two events."""

    cpu: float
    wall: float


@dataclass(frozen=True)
class Timing:
    """Times of one contestant over all rounds.

    Attributes:
        cpu_ms: median.
        wall_ms: median.
        ratio: median over rounds of (its CPU time / that of the baseline in the same round).
        ratio_low: first quartile of the same.
        ratio_high: third quartile.
        wall_ratio: the ratio of wall times.
    """

    cpu_ms: float
    wall_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    wall_ratio: float


def clock_cpu(step: Step) -> Seconds:
    """Time one call on the CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    return Seconds(time.process_time() - cpu, time.perf_counter() - wall)


def clock_cuda(step: Step) -> Seconds:
    """Time one call on the current CUDA device with events."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    start.record()
    step()
    end.record()
    torch.cuda.synchronize()
    seconds = start.elapsed_time(end) / 1000
    return Seconds(seconds, seconds)


def interleave(
    steps: Mapping[str, Step], *, rounds: int, seconds: float, clock: Clock = clock_cpu
) -> list[dict[str, Seconds]]:
    """Run every step once per round, in shuffled order, after a round or two of warm-up.

    Other processes slow one round, not one contestant: only compare times of the same round.

    Args:
        steps: what to run, by name.
        rounds: rounds at least.
        seconds: go on until so much wall time has passed since the first round.
        clock: times one call.
    """
    order = list(steps)
    shuffle = random.Random(0).shuffle
    for name in order * 2:
        clock(steps[name])
    found: list[dict[str, Seconds]] = []
    collecting = gc.isenabled()
    gc.disable()
    gc.freeze()  # what was there before need not be searched after every round
    try:
        start = time.perf_counter()
        while len(found) < rounds or time.perf_counter() - start < seconds:
            shuffle(order)
            times = {name: clock(steps[name]) for name in order}
            found.append({name: times[name] for name in steps})
            gc.collect()
    finally:
        gc.unfreeze()
        if collecting:
            gc.enable()
    return found


def summarise(rounds: list[dict[str, Seconds]], baseline: str) -> dict[str, Timing]:
    """Reduce rounds to medians and ratios; needs two rounds or more for the quartiles."""
    timings = {}
    for name in rounds[0]:
        ratios = [times[name].cpu / max(times[baseline].cpu, 1e-9) for times in rounds]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        timings[name] = Timing(
            cpu_ms=1000 * statistics.median(times[name].cpu for times in rounds),
            wall_ms=1000 * statistics.median(times[name].wall for times in rounds),
            ratio=middle,
            ratio_low=low,
            ratio_high=high,
            wall_ratio=statistics.median(times[name].wall / max(times[baseline].wall, 1e-9) for times in rounds),
        )
    return timings


def loss_of(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of a batch; on CUDA under bf16 autocast."""
    with torch.autocast("cuda", torch.bfloat16) if inputs.is_cuda else nullcontext():
        return F.cross_entropy(model(inputs), labels)


def training_step(model: nn.Module, inputs: Tensor, labels: Tensor) -> Step:
    """Return a function that runs forward, loss and backward; gradients begin as None."""
    parameters = list(model.parameters())

    def step() -> None:
        for tensor in (inputs, *parameters):
            tensor.grad = None
        loss_of(model, inputs, labels).backward()  # type: ignore[no-untyped-call]

    return step


def saved_bytes(model: nn.Module, inputs: Tensor, labels: Tensor) -> int:
    """Return the bytes of all memory that a training step keeps from forward to backward, but for parameters and inputs.

    A storage counts once, whole, however many tensors show parts of it. The cached cosine basis counts.
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in (inputs, labels, *model.parameters())}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = loss_of(model, inputs, labels)
    found = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del loss
    return found
