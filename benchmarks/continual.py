"""Cost of a training step under weight ownership, as a ratio to a plain step of the same model.

    .venv/bin/python benchmarks/continual.py            # three minutes
    .venv/bin/python benchmarks/continual.py --quick    # a minute

A step is forward, loss, backward and AdamW, of the default model (with images, with texts) and of VGG16 with batch norm (33.6
million weights, images 32 x 32), with a batch of 32, process CPU time, one thread. Every round runs each contestant once, in
shuffled order; a ratio is the median over rounds of the ratios within a round. The masked steps are those of a first, second
and tenth task: each earlier one kept half of what it found free, and the task trains what it owns, picks from the tasks before
it, and its private tensors. The plain step trains all weights. Pruning, which is done every few steps, is timed by itself.

Memory that is freed stays with the process. Otherwise a step of VGG16 spends up to a fifth of its time on getting the memory
of its gradients from the system again, more or less of it as the layout of the heap has it: the same contestant, the plain one
too, then differs by 15 % between runs.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # run as a script: the folder of the script is not where packages are
    sys.path[0] = str(ROOT)

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
import typer  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from benchmarks.measure import Step, Timing, interleave, summarise  # noqa: E402
from client.continual.memory import Memory  # noqa: E402
from client.continual.ownership import attach_owners, claim_free  # noqa: E402
from client.continual.prune import prune  # noqa: E402
from client.continual.session import Session, begin, finish  # noqa: E402
from client.training import make_optimizer  # noqa: E402
from config import Model, Train  # noqa: E402
from models.factory import build_model  # noqa: E402

BATCH, CLASSES, TOKENS, WORDS = 32, 12, 32, 2000
PLAIN, LIMIT = "plain", 1.10


@dataclass(frozen=True)
class Case:
    """What is trained, and for how many rounds it is timed: all, and with ``--quick``."""

    name: Literal["linceiver-io", "vgg16-bn"]
    modality: str
    rounds: int
    quick: int


CASES = (
    Case("linceiver-io", "image", 300, 100),
    Case("linceiver-io", "text", 300, 100),
    Case("vgg16-bn", "image", 40, 6),
)


def build(case: Case) -> nn.Module:
    """Build the model, in training mode."""
    sizes = {"vocab_size": WORDS, "max_tokens": TOKENS} if case.modality == "text" else {}
    return build_model(Model(name=case.name), case.modality, CLASSES, seed=0, **sizes).train()


def data(case: Case) -> tuple[Tensor, Tensor]:
    """A batch of random inputs and labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (BATCH,), generator=generator)
    if case.modality == "text":
        return torch.randint(1, WORDS, (BATCH, TOKENS), generator=generator), labels
    return torch.rand(BATCH, 3, 32, 32, generator=generator), labels


def plain_step(case: Case) -> Step:
    """A training step of a model without owners."""
    model, (inputs, labels) = build(case), data(case)
    optimizer = make_optimizer(model, Train(), 0.0)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(inputs), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def session_of(case: Case, tasks: int) -> Session:
    """A session of the last of some tasks; each before it kept half of what it found free."""
    model, memory = build(case), Memory()
    attach_owners(model)
    for task in range(1, tasks):
        claim_free(model, task)
        session = begin(model, memory, task)
        prune(session, 0.5)
        finish(session)
    claim_free(model, tasks)
    return begin(model, memory, tasks)


def masked_step(case: Case, tasks: int) -> Step:
    """A training step of a task."""
    session, (inputs, labels) = session_of(case, tasks), data(case)
    train = Train()
    groups = session.parameter_groups(train.weight_decay, scores={"lr": 5e-4})
    optimizer = torch.optim.AdamW(groups, lr=train.learning_rate, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(session(inputs), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def measure(case: Case, rounds: int) -> dict[str, Timing]:
    """Time all contestants of one case."""
    steps = {PLAIN: plain_step(case)} | {f"task {tasks}": masked_step(case, tasks) for tasks in (1, 2, 10)}
    return summarise(interleave(steps, rounds=rounds, seconds=0), PLAIN)


def prune_ms(case: Case, quick: bool) -> float:
    """Median CPU time of one pruning update of a second task, in milliseconds."""
    shares = iter(0.3 + 0.02 * i for i in range(100))
    session = session_of(case, 2)
    found = interleave({"prune": lambda: prune(session, next(shares))}, rounds=3 if quick else 15, seconds=0)
    return summarise(found, "prune")["prune"].cpu_ms


def keep_freed_memory() -> None:
    """Let glibc give no memory back to the system; nothing happens with another C library."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for parameter, value in ((-4, 0), (-1, 2**31 - 1), (-2, 2**28)):  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD
            libc.mallopt(parameter, value)


def main(quick: Annotated[bool, typer.Option(help="fewer rounds")] = False) -> None:
    """Measure and print; exit 1 if a masked step costs more than 1.10 of a plain one."""
    torch.set_num_threads(1)
    keep_freed_memory()
    console, worst = Console(), 0.0
    table = Table("model", "modality", "step", "CPU ms", "ratio", "quartiles")
    for case in CASES:
        for name, timing in measure(case, case.quick if quick else case.rounds).items():
            quartiles = f"{timing.ratio_low:.3f} to {timing.ratio_high:.3f}"
            table.add_row(case.name, case.modality, name, f"{timing.cpu_ms:.2f}", f"{timing.ratio:.3f}", quartiles)
            worst = max(worst, timing.ratio)
        table.add_row(case.name, case.modality, "one pruning update", f"{prune_ms(case, quick):.2f}", "", "")
    console.print(table)
    console.print(f"masked / plain: {worst:.3f}, required at most {LIMIT:.2f}")
    if worst > LIMIT:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
