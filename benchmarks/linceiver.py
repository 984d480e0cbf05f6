"""Time, memory and size of Linceiver IO as ratios to perceiver-pytorch's Perceiver IO, and what removing columns saves.

    .venv/bin/python benchmarks/linceiver.py            # all cells, minutes; writes the JSON file and the tables of the page
    .venv/bin/python benchmarks/linceiver.py --quick    # under a minute; only the screen, and --output if given

What is timed is forward, loss and backward of one batch of ready tokens, one thread, process CPU time; on CUDA with events,
under bf16 autocast. Every round runs each contestant once, in shuffled order, and a ratio is the median over rounds of the
ratios within a round: other processes slow a round, not a contestant.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # run as a script: the folder of the script is not where packages are
    sys.path[0] = str(ROOT)

import torch  # noqa: E402
import typer  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.markdown import Markdown  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from benchmarks.contestants import BASELINE, FEW, Build, Sizes, contestants, gated  # noqa: E402
from benchmarks.measure import Clock, clock_cpu, clock_cuda, interleave, saved_bytes, summarise, training_step  # noqa: E402
from benchmarks.page import render, replace_section, update_page  # noqa: E402
from benchmarks.records import CellRecord, Record, Results, SliceRecord, SliceSide, misses, requirements  # noqa: E402
from models.gates import PrefixGate  # noqa: E402
from models.groups import named_tensors  # noqa: E402
from models.size import count_macs  # noqa: E402
from models.slicing import open_columns, slice_columns  # noqa: E402

PAGE = ROOT / "docs" / "linceiver.md"
RESULTS = ROOT / "benchmarks" / "results"
LENGTHS, QUICK_LENGTHS = (64, 256, 1024, 4096, 16384), (64, 1024, 4096)
LATENTS, QUICK_LATENTS = (32, 128), (128,)
SLICE_LENGTHS, QUICK_SLICE_LENGTHS = (64, 1024, 4096, 16384), (64, 1024)
SLICE_LATENTS, COLUMNS, OPEN_COLUMNS = 128, 64, 16
NO_CUDA = "torch.compile and bf16 autocast are measured with `--device cuda` only."


@dataclass(frozen=True)
class Plan:
    """How long to measure, and where: rounds at least, wall seconds at least, per cell."""

    device: torch.device
    rounds: int
    seconds: float

    @property
    def clock(self) -> Clock:
        """What times one call."""
        return clock_cuda if self.device.type == "cuda" else clock_cpu


def batch_size(tokens: int) -> int:
    """Samples of a batch: 4 up to 1024 tokens, then fewer, so that a step stays short."""
    return 4 if tokens <= 1024 else 2 if tokens <= 4096 else 1


def data(tokens: int, sizes: Sizes, device: torch.device) -> tuple[Tensor, Tensor]:
    """Random tokens (B,N,D) that want a gradient, as if from an embedding, and labels (B,)."""
    generator = torch.Generator().manual_seed(0)
    batch = batch_size(tokens)
    inputs = torch.randn(batch, tokens, sizes.dim, generator=generator)
    labels = torch.randint(sizes.classes, (batch,), generator=generator)
    return inputs.to(device).requires_grad_(), labels.to(device)


def build(factory: Build, device: torch.device) -> nn.Module:
    """Build a model in training mode with weights that depend on nothing else."""
    torch.manual_seed(0)
    return factory().to(device).train()


def measure_cell(tokens: int, latents: int, builds: Mapping[str, Build], sizes: Sizes, plan: Plan) -> CellRecord:
    """Measure all contestants for one length and number of latents; the first of them is the baseline."""
    inputs, labels = data(tokens, sizes, plan.device)
    models = {name: build(factory, plan.device) for name, factory in builds.items()}
    baseline = next(iter(models))
    cost = {
        name: {
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "saved_bytes": saved_bytes(model, inputs, labels),
            "macs": count_macs(model, inputs) // len(inputs),
        }
        for name, model in models.items()
    }
    steps = {name: training_step(model, inputs, labels) for name, model in models.items()}
    if plan.device.type == "cuda":  # three of them with torch.compile as well
        for name in [name for name in FEW if name in models]:
            compiled = build(builds[name], plan.device)
            compiled.compile()
            steps[f"{name}, compiled"] = training_step(compiled, inputs, labels)
            cost[f"{name}, compiled"] = cost[name]
    rounds = interleave(steps, rounds=plan.rounds, seconds=plan.seconds, clock=plan.clock)
    base = cost[baseline]
    records = [
        Record(
            name=name,
            ratio=timing.ratio,
            ratio_low=timing.ratio_low,
            ratio_high=timing.ratio_high,
            wall_ratio=timing.wall_ratio,
            cpu_ms=timing.cpu_ms,
            wall_ms=timing.wall_ms,
            parameters=cost[name]["parameters"],
            parameters_ratio=cost[name]["parameters"] / base["parameters"],
            saved_bytes=cost[name]["saved_bytes"],
            saved_ratio=cost[name]["saved_bytes"] / base["saved_bytes"],
            macs=cost[name]["macs"],
            macs_ratio=cost[name]["macs"] / base["macs"],
        )
        for name, timing in summarise(rounds, baseline).items()
    ]
    return CellRecord(tokens=tokens, latents=latents, batch=len(inputs), rounds=len(rounds), contestants=records)


def measure_slice(tokens: int, latents: int, columns: int, keep: int, sizes: Sizes, plan: Plan) -> SliceRecord:
    """Measure a model whose gate leaves ``keep`` of ``columns`` columns open, before and after the others are removed."""
    inputs, labels = data(tokens, sizes, plan.device)
    before = gated(sizes, latents, tokens, columns, keep).to(plan.device)
    after = slice_columns(before)
    models = {"before": before, "after": after}
    with torch.no_grad():
        change = float((before.eval()(inputs) - after.eval()(inputs)).abs().max())

    def forward(model: nn.Module) -> Tensor:
        with torch.no_grad():
            logits: Tensor = model(inputs)
        return logits

    passes = {name: partial(forward, model) for name, model in models.items()}
    run = partial(interleave, rounds=plan.rounds, seconds=plan.seconds / 4, clock=plan.clock)
    rounds = run(passes)
    times = summarise(rounds, "before")
    steps = {name: training_step(model, inputs, labels) for name, model in models.items()}
    step_times = summarise(run(steps), "before")
    sides = {}
    for name, model in models.items():
        tensors = named_tensors(model).values()
        assert isinstance(model.adapter.gate, PrefixGate)
        sides[name] = SliceSide(
            columns=model.adapter.gate.columns,
            macs=count_macs(model, inputs) // len(inputs),
            parameters=sum(tensor.numel() for tensor in tensors),
            bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
            cpu_ms=times[name].cpu_ms,
            wall_ms=times[name].wall_ms,
        )
    assert sides["after"]["columns"] == len(open_columns(before))
    return SliceRecord(
        tokens=tokens,
        latents=latents,
        batch=len(inputs),
        rounds=len(rounds),
        before=sides["before"],
        after=sides["after"],
        ratio=times["after"].ratio,
        step_ratio=step_times["after"].ratio,
        logit_change=change,
    )


def processor(device: torch.device) -> str:
    """Name of the processor's model."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def assemble(cells: Sequence[CellRecord], slices: Sequence[SliceRecord], sizes: Sizes, device: torch.device) -> Results:
    """Put together all that was measured."""
    on_cpu = device.type == "cpu"
    packages = ("torch", BASELINE, "transformers")
    return Results(
        device=processor(device),
        setting="one thread, float32, process CPU time" if on_cpu else "bf16 autocast, CUDA events",
        note=NO_CUDA if on_cpu else "",
        versions={"python": platform.python_version()} | {name: version(name) for name in packages},
        settings=asdict(sizes),
        cells=list(cells),
        slices=list(slices),
        requirements=requirements(cells, slices),
    )


def write_json(results: Results, path: Path) -> None:
    """Write results with sorted keys; floats keep six digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    short = json.loads(json.dumps(results), parse_float=lambda text: float(f"{float(text):.6g}"))
    path.write_text(json.dumps(short, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def main(
    quick: Annotated[bool, typer.Option(help="Three lengths, three contestants; writes nothing but --output.")] = False,
    output: Annotated[Path | None, typer.Option(help="Write the JSON file here, and leave the page as it is.")] = None,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where to measure.")] = "cpu",
    rounds: Annotated[int, typer.Option(min=2, help="Rounds per cell, at least.")] = 5,
    seconds_per_cell: Annotated[float, typer.Option(help="Go on with rounds for so long; default 20, with --quick 6.")] = 0.0,
    check: Annotated[bool, typer.Option(help="Exit with 1 if a required ratio is missed.")] = False,
) -> None:
    """Measure, show the tables, and write them to the page."""
    console, log = Console(), Console(stderr=True)
    if device == "cuda" and not torch.cuda.is_available():
        log.print("no CUDA device was found: leave --device out to measure on the CPU")
        raise typer.Exit(2)
    section = f"benchmark-{device}"
    if not quick and output is None:
        replace_section(PAGE.read_text(encoding="utf-8"), section, "")  # fails before minutes of measuring, not after
    torch.set_num_threads(1)
    plan = Plan(torch.device(device), rounds, seconds_per_cell or (6.0 if quick else 20.0))
    sizes = Sizes()
    cells, slices = [], []
    for tokens in QUICK_LENGTHS if quick else LENGTHS:
        for latents in QUICK_LATENTS if quick else LATENTS:
            log.print(f"N = {tokens}, M = {latents}")
            cells.append(measure_cell(tokens, latents, contestants(sizes, latents, tokens, few=quick), sizes, plan))
    for tokens in QUICK_SLICE_LENGTHS if quick else SLICE_LENGTHS:
        log.print(f"closed columns, N = {tokens}")
        slices.append(measure_slice(tokens, SLICE_LATENTS, COLUMNS, OPEN_COLUMNS, sizes, plan))
    results = assemble(cells, slices, sizes, plan.device)
    text = render(results)
    console.print(Markdown(text) if console.is_terminal else text, soft_wrap=not console.is_terminal, markup=False)
    if output is not None:
        write_json(results, output)
    elif not quick:
        write_json(results, RESULTS / f"linceiver-{device}.json")
        update_page(PAGE, section, text)
    missed = misses(results["requirements"]) if check else []
    for line in missed:
        log.print(f"missed: {line}", markup=False)
    if missed:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
