"""What a student of the watch data gains from three teachers, over one: 1:3 packing against 1:1.

    .venv/bin/python benchmarks/watch_packing.py            # 3 seeds, the last client is the target
    .venv/bin/python benchmarks/watch_packing.py --everyone # each of the four clients is the target once
    .venv/bin/python benchmarks/watch_packing.py --check    # exit 1 unless 1:3 is 3 points above both forms of 1:1
    .venv/bin/python benchmarks/watch_packing.py --quick    # one seed, few steps: does it run?
    .venv/bin/python benchmarks/watch_packing.py --protocol validated

Three clients of the smart-watch data, of two subjects each, train a teacher each, WRN-16-1 from one common start, on all
their windows. A fourth has labels for a tenth of its windows. Its student, the same network, learns by cross-entropy on these,
and by distillation on all. It is tested on the subjects 9 and 10, whom nobody has met. All students take as many steps.

    scratch      labels alone                        all labels   the labels of the other windows too
    self         what scratch became is the teacher  1:1          one teacher; the mean over the three of them
    best of 1:1  the teacher with the least cross-entropy on the target's labels
    1:3          three teachers with equal weights   ensemble     mean of the teachers' logits, at three times the cost

The protocol ``whole`` is the default. All recordings of a client are trained on, so no setting can be chosen by its results,
and none was: they are :data:`WHOLE`. In ``validated`` some recordings of the target's own subjects are held out, and by these
its settings were chosen, see :data:`VALIDATED`. Accuracies are shares of the windows of the test subjects. What came of it:
docs/wearable.md.
"""

from __future__ import annotations

import json
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
from torch.nn import functional as F  # noqa: E402

from client.continual.train import Optimisation, TaskData  # noqa: E402
from client.modeldiff.tune import Budget  # noqa: E402
from client.packing.data import PackData  # noqa: E402
from client.packing.ensemble import ensemble_logits  # noqa: E402
from client.packing.packer import pack  # noqa: E402
from client.packing.teachers import Teacher, ask_all, train_teacher  # noqa: E402
from config import Data, Model, Packing  # noqa: E402
from data_partition.client_data import ClientData, Split, load_client, load_unlabelled  # noqa: E402
from data_partition.series_augment import change  # noqa: E402
from data_partition.sizes import input_sizes  # noqa: E402
from models.factory import build_model  # noqa: E402
from models.groups import Group, copy_model  # noqa: E402

SEEDS, TARGET, LIMIT = 3, 3, 3.0


@dataclass(frozen=True)
class Protocol:
    """Everything that is settled before a run.

    Attributes:
        data: what clients have; where labels are for all windows, the share of 1.0 is passed.
        how: teachers are trained, and students, whose batches are the next three.
        alone: labelled windows of a step of a student without a teacher.
        labelled: those of a step with teachers.
        unlabelled: windows without labels of a step with teachers.
        augment: what is done to the windows of teachers and students, and to what teachers are asked about.
        common_start: students begin as the teachers did; else from a start of their own, the same for all arms.
        drawn_labels: which windows have labels is drawn anew for each seed.
        teacher_epochs: of a teacher over its windows.
        steps: of a student.
    """

    data: Data
    how: Optimisation
    alone: int
    labelled: int
    unlabelled: int
    augment: str
    common_start: bool
    drawn_labels: bool
    teacher_epochs: int = 15
    steps: int = 240

    def of_seed(self, seed: int) -> Data:
        """Return the data of a seed."""
        return self.data.model_copy(update={"seed": seed}) if self.drawn_labels else self.data


HOW = Optimisation(
    batch_size=64, learning_rate=0.05, weight_decay=5e-4, clip_norm=0.0, optimizer="sgd", momentum=0.9, schedule="cosine"
)
DATA = Data(dataset="watch", grouping="subjects", subjects_per_client=2, train_fraction=0.1, unlabelled_fraction=1.0)
VALIDATED = Protocol(DATA, HOW, alone=16, labelled=16, unlabelled=64, augment="mix1", common_start=True, drawn_labels=False)
"""Batches of labelled windows and the augmentation were chosen on validation, see docs/wearable.md."""
WHOLE = Protocol(
    DATA.model_copy(update={"train_on_validation": True}),
    replace(HOW, schedule="one-cycle"),
    alone=64,
    labelled=7,
    unlabelled=57,
    augment="none",
    common_start=False,
    drawn_labels=True,
)
"""Set down before the first run: 15 epochs of the target's 1,006 windows in batches of 64, a tenth of them with labels."""
PROTOCOLS = {"whole": WHOLE, "validated": VALIDATED}
PACKING = Packing(losses="kd", cross_entropy=1.0, temperature=4.0, weights="uniform")
CPU = torch.device("cpu")
GROUPS = (Group.BACKBONE, Group.ADAPTER, Group.HEAD)
OWN_START = 1000
"""Added to a seed for the start of students."""
Scores = dict[str, tuple[float, float]]
"""Accuracy on validation and on test, in percent, by arm."""


def fresh(seed: int) -> nn.Module:
    """Return a network as it begins."""
    return build_model(Model(name="wrn-16-1", dropout=0.0), "series", 7, **input_sizes(DATA), seed=seed)


def task(client: ClientData, augment: str) -> TaskData:
    """Return a client's examples as they are trained on; nothing is looked at on the way."""
    nothing = Split(client.val.inputs[:0], client.val.labels[:0])
    return TaskData(client.train, nothing, lambda inputs, generator: change(inputs, augment, generator))


def train_teachers(protocol: Protocol, seed: int) -> list[nn.Module]:
    """Let the four clients train a teacher each, with all their labels."""
    found = []
    for client in range(4):
        own = task(load_client(protocol.of_seed(seed), client, 1.0), protocol.augment)
        budget = Budget(protocol.teacher_epochs, protocol.how, seed * 10 + client)
        found.append(train_teacher(fresh(seed), own, budget, GROUPS))
    return found


def accuracy(logits: torch.Tensor, split: Split) -> float:
    """Return the share of right answers in percent."""
    return 100 * float((logits.argmax(dim=1) == split.labels).float().mean())


def score(models: Sequence[nn.Module], client: ClientData) -> tuple[float, float]:
    """Return the accuracy of a model, or of the ensemble of several, on validation and test."""
    first, second = (accuracy(ensemble_logits(models, split.inputs, CPU), split) for split in (client.val, client.test))
    return first, second


def epochs_of(steps: int, examples: int, batch: int) -> int:
    """Return how many epochs have as many steps, or as near as can be.

    >>> epochs_of(240, 101, 7), epochs_of(240, 101, 64)
    (16, 120)
    """
    return max(1, round(steps / -(-examples // batch)))


def measure(protocol: Protocol, target: int, models: Sequence[nn.Module], seed: int) -> Scores:
    """Return the scores of all arms for one target and seed.

    Args:
        protocol: what is done.
        target: client.
        models: what the four clients trained.
        seed: of starts, labels, batches and augmentation.
    """
    data = protocol.of_seed(seed)
    client, everything = load_client(data, target), load_client(data, target, 1.0)
    more = load_unlabelled(data, client.subgroup)
    classes, others = client.subgroup.classes, [model for number, model in enumerate(models) if number != target]
    named = [Teacher(f"teacher {number}", model, classes) for number, model in enumerate(others)]

    def student(teachers: Sequence[Teacher], labels: ClientData = client) -> nn.Module:
        model = fresh(seed if protocol.common_start else seed + OWN_START)
        how = replace(protocol.how, batch_size=protocol.labelled if teachers else protocol.alone)
        epochs = epochs_of(protocol.steps, len(labels.train), how.batch_size)
        views = "clean" if protocol.augment == "none" else "same"  # teachers see the same in both, and are asked once
        steps = PACKING.model_copy(update={"epochs": epochs, "unlabelled_batch": protocol.unlabelled, "views": views})
        pack(model, teachers, PackData(task(labels, protocol.augment), classes, more), steps, how, seed=seed)
        return model

    alone, single = student([]), [score([student([one])], client) for one in named]
    losses = [F.cross_entropy(ask_all(m, client.train.inputs, (), CPU).logits, client.train.labels) for m in others]
    return {
        "scratch": score([alone], client),
        "all labels": score([student([], everything)], client),
        "self": score([student([Teacher("self", copy_model(alone), classes)])], client),
        "1:1": (statistics.fmean(val for val, _ in single), statistics.fmean(test for _, test in single)),
        "best of 1:1": single[min(range(len(losses)), key=lambda place: float(losses[place]))],
        "1:3": score([student(named)], client),
        "ensemble": score(others, client),
    }


def gain(scores: Sequence[Scores], over: str, place: int = 1) -> float:
    """Return by how many points 1:3 is above an arm, the mean over runs; ``place`` 0: on validation.

    >>> gain([{"1:3": (0.0, 72.0), "1:1": (0.0, 66.0)}, {"1:3": (0.0, 70.0), "1:1": (0.0, 68.0)}], "1:1")
    4.0
    """
    return statistics.fmean(one["1:3"][place] - one[over][place] for one in scores)


def table(scores: Sequence[Scores], validated: bool = True) -> Table:
    """Return mean and deviation of each arm over runs, and by how much 1:3 is above it.

    Args:
        scores: of the runs.
        validated: whether validation tells anything; if not, it is left out.
    """
    found = Table(title=f"accuracy in % over {len(scores)} runs; the last column is paired")
    for heading in ("arm", *(["validation"] if validated else []), "test", "deviation", "1:3 is above it by"):
        found.add_column(heading, justify="left" if heading == "arm" else "right")
    for arm in scores[0]:
        vals, tests = ([one[arm][place] for one in scores] for place in (0, 1))
        spread = f"{statistics.stdev(tests):.2f}" if len(tests) > 1 else "–"
        above = [one["1:3"][1] - one[arm][1] for one in scores]
        more = "" if arm == "1:3" else f"{statistics.fmean(above):+.2f} ({sum(a > 0 for a in above)} of {len(above)})"
        shown = [f"{statistics.fmean(values):.2f}" for values in ([vals, tests] if validated else [tests])]
        found.add_row(arm, *shown, spread, more)
    return found


def main(
    protocol: Annotated[str, typer.Option(help=f"one of {', '.join(PROTOCOLS)}")] = "whole",
    quick: Annotated[bool, typer.Option(help="one seed and few steps: does it run?")] = False,
    check: Annotated[bool, typer.Option(help="exit 1 unless 1:3 is far enough above 1:1")] = False,
    everyone: Annotated[bool, typer.Option(help="each client is the target once, not the last alone")] = False,
    seeds: Annotated[int, typer.Option(min=1, help="number of seeds")] = SEEDS,
    first: Annotated[int, typer.Option(min=0, help="the first of them")] = 0,
    output: Annotated[Path | None, typer.Option(help="write all scores to this JSON file")] = None,
) -> None:
    """Run the benchmark."""
    if protocol not in PROTOCOLS:
        raise typer.BadParameter(f"found {protocol!r}, expected one of {', '.join(PROTOCOLS)}", param_hint="--protocol")
    torch.set_num_threads(1)
    console, runs = Console(), list[dict[str, object]]()
    chosen, scores = PROTOCOLS[protocol], list[Scores]()
    if quick:
        chosen, seeds = replace(chosen, teacher_epochs=3, steps=20), 1
    models = {seed: train_teachers(chosen, seed) for seed in range(first, first + seeds)}
    for target in (TARGET, 0, 1, 2) if everyone else (TARGET,):
        for seed, trained in models.items():
            scores.append(measure(chosen, target, trained, seed))
            runs.append({"seed": seed, "target": target, "scores": scores[-1]})
            told = ", ".join(f"{arm} {test:.1f}" for arm, (_, test) in scores[-1].items())
            console.print(f"seed {seed}, client {target}: {told}", soft_wrap=True)
    console.print(table(scores, validated=not chosen.data.train_on_validation))
    if output is not None:
        output.write_text(json.dumps({"protocol": protocol, "runs": runs}, indent=1) + "\n", encoding="utf-8")
    found = gain(scores, "1:1"), gain(scores, "best of 1:1")
    console.print(
        f"1:3 is {found[0]:+.2f} points above 1:1, and {found[1]:+.2f} above the best of 1:1; limit {LIMIT:+.1f} each"
    )
    if check and min(found) < LIMIT:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
