"""Cost of a training step under weight ownership, as a ratio to a plain step of the same model.

    .venv/bin/python benchmarks/continual.py            # a minute
    .venv/bin/python benchmarks/continual.py --quick    # 20 seconds

A step is forward, loss, backward and AdamW, of the default model with a batch of 32, process CPU time, one thread. Every round
runs each contestant once, in shuffled order; a ratio is the median over rounds of the ratios within a round. The masked steps
are those of a first, second and tenth task: each earlier one kept half of what it found free, and the task trains what it
owns, picks from the tasks before it, and its private tensors. The plain step trains all weights. Pruning, which is done every
few steps, is timed by itself.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

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


def build(modality: str) -> nn.Module:
    """Build the default model, in training mode."""
    sizes = {"vocab_size": WORDS, "max_tokens": TOKENS} if modality == "text" else {}
    return build_model(Model(), modality, CLASSES, seed=0, **sizes).train()


def data(modality: str) -> tuple[Tensor, Tensor]:
    """A batch of random inputs and labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (BATCH,), generator=generator)
    if modality == "text":
        return torch.randint(1, WORDS, (BATCH, TOKENS), generator=generator), labels
    return torch.rand(BATCH, 3, 32, 32, generator=generator), labels


def plain_step(modality: str) -> Step:
    """A training step of a model without owners."""
    model, (inputs, labels) = build(modality), data(modality)
    optimizer = make_optimizer(model, Train(), 0.0)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(inputs), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def session_of(modality: str, tasks: int) -> Session:
    """A session of the last of some tasks; each before it kept half of what it found free."""
    model, memory = build(modality), Memory()
    attach_owners(model)
    for task in range(1, tasks):
        claim_free(model, task)
        session = begin(model, memory, task)
        prune(session, 0.5)
        finish(session)
    claim_free(model, tasks)
    return begin(model, memory, tasks)


def masked_step(modality: str, tasks: int) -> Step:
    """A training step of a task."""
    session, (inputs, labels) = session_of(modality, tasks), data(modality)
    train = Train()
    groups = session.parameter_groups(train.weight_decay, scores={"lr": 5e-4})
    optimizer = torch.optim.AdamW(groups, lr=train.learning_rate, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(session(inputs), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def measure(modality: str, rounds: int, seconds: float) -> dict[str, Timing]:
    """Time all contestants of one modality."""
    steps = {PLAIN: plain_step(modality)} | {f"task {tasks}": masked_step(modality, tasks) for tasks in (1, 2, 10)}
    return summarise(interleave(steps, rounds=rounds, seconds=seconds), PLAIN)


def prune_ms(modality: str) -> float:
    """Median CPU time of one pruning update of a second task, in milliseconds."""
    shares = iter(0.3 + 0.02 * i for i in range(100))
    session = session_of(modality, 2)
    found = interleave({"prune": lambda: prune(session, next(shares))}, rounds=15, seconds=0)
    return summarise(found, "prune")["prune"].cpu_ms


def main(quick: Annotated[bool, typer.Option(help="fewer rounds")] = False) -> None:
    """Measure and print; exit 1 if a masked step costs more than 1.10 of a plain one."""
    torch.set_num_threads(1)
    console, worst = Console(), 0.0
    table = Table("modality", "step", "CPU ms", "ratio", "quartiles")
    for modality in ("image", "text"):
        for name, timing in measure(modality, 100 if quick else 300, 0).items():
            quartiles = f"{timing.ratio_low:.3f} to {timing.ratio_high:.3f}"
            table.add_row(modality, name, f"{timing.cpu_ms:.2f}", f"{timing.ratio:.3f}", quartiles)
            worst = max(worst, timing.ratio)
        table.add_row(modality, "one pruning update", f"{prune_ms(modality):.2f}", "", "")
    console.print(table)
    console.print(f"masked / plain: {worst:.3f}, required at most {LIMIT:.2f}")
    if worst > LIMIT:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
