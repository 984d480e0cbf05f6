"""What packing gives beside everything it could be mistaken for: all arms on the donors of finished runs, in equal steps.

    .venv/bin/backpack run simulations/pack_3.toml --engine inprocess --seeds 0,1,2
    .venv/bin/python benchmarks/packing_arms.py runs/pack-3-s0 runs/pack-3-s1 runs/pack-3-s2      # on validation
    .venv/bin/python benchmarks/packing_arms.py runs/pack-3-s* --test --output arms.json          # on the test split
    .venv/bin/python benchmarks/packing_arms.py runs/pack-3-s0 --arms start,weighted --set packing.temperature=4.0
    .venv/bin/python benchmarks/packing_arms.py runs/pack-3-s0 --arms start,weighted --set packing.student-size=0.5

A run of ``selection.combine = "pack"`` leaves its donors in its folder. Each target packs those that it ranked first in that
run, by the run's settings. Every trained arm has as many steps, the same labelled batches, and a student of the same size:

    scratch    no donor: labels alone            start     the best donor's model, and labels alone
    random     as start, of a donor by chance    self      as start, and the result of start teaches
    kd random  start; a donor by chance teaches  kd best   start; the best donor teaches
    uniform    start; N donors, equal weights    weighted  start; N donors, weights of the run
    fresh      a new model; N donors teach it    ensemble  mean of the N teachers' logits, at N times the cost
    average    mean of the N teachers' weights   teacher   the best donor's model, trained as a teacher is

Accuracies are balanced over classes, and differences are paired by target. Settings are to be chosen on validation alone.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # run as a script: the folder of the script is not where packages are
    sys.path[0] = str(ROOT)

import torch  # noqa: E402
import typer  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from torch import nn  # noqa: E402

from client.continual.methods import Work, optimisation  # noqa: E402
from client.donors import Donor, publish, receive  # noqa: E402
from client.pack_teachers import fresh_model, student_start, teacher_of  # noqa: E402
from client.packing.data import PackData  # noqa: E402
from client.packing.ensemble import ensemble_logits  # noqa: E402
from client.packing.merge import average  # noqa: E402
from client.packing.packer import pack  # noqa: E402
from client.packing.teachers import Teacher  # noqa: E402
from client.stream import open_stream, task_data  # noqa: E402
from config import RunConfig, parse, parse_override, read_toml  # noqa: E402
from data_partition.client_data import Split, load_unlabelled  # noqa: E402
from data_partition.metrics import balanced_accuracy  # noqa: E402
from models.arrays import get_arrays, set_arrays  # noqa: E402
from models.groups import copy_model, stored_names  # noqa: E402
from simulations.significance import t_test_p  # noqa: E402
from strategies.broker import DONOR  # noqa: E402
from strategies.protocol import DONORS, SOURCE_HASH, TARGET, Instruction  # noqa: E402

ARMS = (
    "scratch", "start", "random", "self", "kd random", "kd best", "uniform", "weighted", "fresh", "ensemble", "average",
    "teacher",
)  # fmt: skip
REFERENCES = ("start", "self")
Scores = dict[str, float]
"""Balanced accuracy by arm."""


@dataclass(frozen=True)
class Finished:
    """A run that is over.

    Attributes:
        folder: of the run.
        config: its settings, some of them changed.
        token: names the state of its clients.
        ranked: donors of each target, the best first.
    """

    folder: Path
    config: RunConfig
    token: str
    ranked: dict[int, list[int]]

    def told(self, client: int, arm: str, **more: float | str) -> Instruction:
        """Return what the run would tell a client."""
        return Instruction(client, self.folder.name, self.token, arm, SOURCE_HASH, **more)  # type: ignore[arg-type]


def read_run(folder: Path, changes: Sequence[str] = ()) -> Finished:
    """Read a run folder.

    Args:
        folder: of a run with ``selection.combine = "pack"``, with the state of its clients.
        changes: ``key=value`` of what students depend on, such as section ``packing`` and ``selection.top``.

    Raises:
        ValueError: it is no such folder.
    """
    if not (folder / "results.json").exists() or not (folder / "clients").is_dir():
        raise ValueError(f"{folder} has no results.json and clients/: expected the folder of a finished in-process run")
    config = parse(read_toml(folder / "config.toml") | dict(parse_override(change) for change in changes))
    if config.selection.combine != "pack":
        raise ValueError(f"{folder}: selection.combine = '{config.selection.combine}', expected 'pack'")
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    ranked = {one["client"]: [donor for donor, _ in one["ranking"]] for one in events if one["event"] == "routing"}
    return Finished(folder, config, json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["token"], ranked)


class Target:
    """One target of a run, with what its arms have in common."""

    def __init__(self, run: Finished, client: int) -> None:
        folder = run.folder / "clients" / f"{client:03d}" / "benchmark"
        self.run, self.stream = run, open_stream(run.config, run.told(client, TARGET), folder, 1, blank=True)
        self.parents = open_stream(run.config, run.told(client, DONORS), folder, 1, blank=True)  # has the donors' size
        self.settings, self.how, data = run.config.packing, optimisation(run.config), task_data(self.stream)
        self.work = Work(run.config, 1, data, self.settings.epochs, self.stream.seed)
        self.labelled = PackData(data, self.stream.data.subgroup.classes)
        self.unlabelled = load_unlabelled(run.config.data, self.stream.data.subgroup)
        self.order = run.ranked[client]
        self.chance = random.Random(f"{run.config.run.seed} {client}").choice(self.order)
        self._donors: dict[int, Donor] = {}
        self._alone: dict[int | None, nn.Module] = {}
        self._teachers: dict[int, Teacher] = {}

    def donor(self, client: int) -> Donor:
        """Return what a donor gives."""
        if client not in self._donors:
            config = self.run.config
            share, fraction = config.strategy.share, config.selection.donor_fraction
            told = self.run.told(client, DONOR, share=share, train_fraction=fraction)
            manifest, arrays = publish(config, told, self.run.folder / "clients" / f"{client:03d}" / DONOR)
            self._donors[client] = receive(self.parents, manifest, arrays, share)
        return self._donors[client]

    def teacher(self, client: int) -> Teacher:
        """Return a donor, trained to teach."""
        if client not in self._teachers:
            self._teachers[client] = teacher_of(self.parents, self.donor(client), None, self.how, self.work, self.settings)
        return self._teachers[client]

    def first(self) -> list[Teacher]:
        """Return the donors that the run packs, as teachers."""
        return [self.teacher(donor) for donor in self.order[: self.run.config.selection.top]]

    def student(self, start: int | None, teachers: Sequence[Teacher] = (), **changes: str) -> nn.Module:
        """Return a trained student.

        Args:
            start: the donor whose model it begins as; None: a model as initialised.
            teachers: who see the inputs without labels too.
            changes: of section ``packing``.
        """
        model = fresh_model(self.stream) if start is None else student_start(self.stream, self.parents, self.donor(start))
        data = replace(self.labelled, unlabelled=self.unlabelled) if teachers else self.labelled
        settings = self.settings.model_copy(update=changes)
        pack(model, teachers, data, settings, self.how, seed=self.stream.seed)
        return model

    def alone(self, start: int | None) -> nn.Module:
        """Return a student that labels alone have trained, once for all arms."""
        if start not in self._alone:
            self._alone[start] = self.student(start)
        return self._alone[start]

    def models(self, arm: str) -> list[nn.Module]:
        """Return what an arm comes to: one model, or those of the ensemble."""
        best, classes = self.order[0], self.labelled.label_ids
        if arm == "ensemble":
            return [teacher.model for teacher in self.first()]
        if arm == "average":
            merged = copy_model(self.first()[0].model)
            names = stored_names(merged)
            set_arrays(merged, average([get_arrays(teacher.model, names) for teacher in self.first()]))
            return [merged]
        if arm == "teacher":
            return [self.teacher(best).model]
        makers = {
            "scratch": lambda: self.alone(None),
            "start": lambda: self.alone(best),
            "random": lambda: self.alone(self.chance),
            "self": lambda: self.student(best, [Teacher("self", self.alone(best), classes)]),
            "kd random": lambda: self.student(best, [self.teacher(self.chance)]),
            "kd best": lambda: self.student(best, [self.teacher(best)]),
            "uniform": lambda: self.student(best, self.first(), weights="uniform"),
            "weighted": lambda: self.student(best, self.first()),
            "fresh": lambda: self.student(None, self.first()),
        }
        return [makers[arm]()]

    def score(self, arm: str, split: str) -> float:
        """Return the balanced accuracy of an arm on ``val`` or ``test``."""
        part: Split = getattr(self.stream.data, split)
        logits = ensemble_logits(self.models(arm), part.inputs, self.stream.device)
        return balanced_accuracy(logits.argmax(dim=1), part.labels, len(self.labelled.label_ids))


def differences(scores: Sequence[dict[int, Scores]], arm: str, reference: str, clients: Sequence[int]) -> list[float]:
    """Return by how much an arm is above another, in points, for each target the mean over runs.

    >>> differences([{0: {"a": 0.5, "b": 0.25}}, {0: {"a": 0.5, "b": 0.5}}], "a", "b", [0])
    [12.5]
    """
    return [statistics.fmean(100 * (run[c][arm] - run[c][reference]) for run in scores) for c in clients]


def table(scores: Sequence[dict[int, Scores]], modality: dict[int, str], title: str) -> Table:
    """Return the mean of each arm over targets and runs, also by modality, and how far it is above the references."""
    clients = sorted(scores[0])
    arms = list(scores[0][clients[0]])
    kinds = sorted(set(modality.values()))
    references = [arm for arm in REFERENCES if arm in arms]
    found = Table(title=title)
    for heading in ("arm", "all", *kinds, *(f"over {arm} (targets better, p)" for arm in references)):
        found.add_column(heading, justify="left" if heading == "arm" else "right")
    for arm in arms:
        groups = [clients, *([c for c in clients if modality[c] == kind] for kind in kinds)]
        means = [f"{statistics.fmean(100 * run[c][arm] for run in scores for c in group):.1f}" for group in groups]
        more = []
        for reference in references:
            above = differences(scores, arm, reference, clients)
            p = t_test_p(above)
            told = f"{sum(a > 0 for a in above)}/{len(above)}, " + ("–" if p is None else f"{p:.3f}")
            more.append("" if arm == reference else f"{statistics.fmean(above):+.1f} ({told})")
        found.add_row(arm, *means, *more)
    return found


def main(
    folders: Annotated[list[Path], typer.Argument(help="folders of finished runs with selection.combine = 'pack'")],
    test: Annotated[bool, typer.Option(help="score on the test split, not on validation")] = False,
    arms: Annotated[str, typer.Option(help="comma-separated; empty: all")] = "",
    clients: Annotated[str, typer.Option(help="targets, comma-separated; empty: all")] = "",
    set_: Annotated[list[str] | None, typer.Option("--set", help="such as packing.epochs=20 or selection.top=5")] = None,
    output: Annotated[Path | None, typer.Option(help="write all scores to this JSON file")] = None,
) -> None:
    """Run the benchmark."""
    torch.set_num_threads(1)
    console, split = Console(), "test" if test else "val"
    wanted = [arm.strip() for arm in arms.split(",")] if arms else list(ARMS)
    if unknown := sorted(set(wanted) - set(ARMS)):
        raise typer.BadParameter(f"{', '.join(unknown)}: expected some of {', '.join(ARMS)}")
    scores: list[dict[int, Scores]] = []
    modality: dict[int, str] = {}
    for folder in folders:
        try:
            run = read_run(folder, set_ or [])
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        chosen = [int(part) for part in clients.split(",")] if clients else sorted(run.ranked)
        scores.append({})
        for client in chosen:
            target = Target(run, client)
            modality[client] = target.stream.data.subgroup.modality
            scores[-1][client] = {arm: target.score(arm, split) for arm in wanted}
            told = ", ".join(f"{arm} {100 * value:.1f}" for arm, value in scores[-1][client].items())
            console.print(f"{folder.name}, client {client}: {told}")
    console.print(table(scores, modality, f"balanced accuracy in % on {split}, {len(scores)} runs; differences are paired"))
    if output is not None:
        output.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
