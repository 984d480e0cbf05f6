"""What a student of the watch data gains from three teachers, over one: 1:3 packing against 1:1.

    .venv/bin/python benchmarks/watch_packing.py            # 3 seeds: four minutes of one core
    .venv/bin/python benchmarks/watch_packing.py --quick    # one seed, fewer epochs: half a minute, and says little
    .venv/bin/python benchmarks/watch_packing.py --check    # exit 1 unless 1:3 is 3 points above 1:1, the mean over seeds
    .venv/bin/python benchmarks/watch_packing.py --everyone # each of the four clients is the target once

Three clients of the smart-watch data, who have the subjects 1 and 2, 3 and 4, 5 and 6, train a teacher each, WRN-16-1 from one
common start, on all their windows. A fourth, who has the subjects 7 and 8, has labels for a tenth of its windows. Its student,
the same network from the same start, learns by cross-entropy on these, and by distillation on all. It is tested on the
subjects 9 and 10, whom nobody has met. Every student has the same number of steps and the same labelled batches.

    scratch      labels alone                        all labels   the labels of the other windows too
    self         what scratch became is the teacher  1:1          one teacher; the mean over the three of them
    best of 1:1  the teacher with the least cross-entropy on the target's labels
    1:3          three teachers with equal weights   ensemble     mean of the teachers' logits, at three times the cost

Accuracies are shares of the windows of the test subjects. The settings were chosen on validation: recordings of the target's
own subjects, held out. What came of it, which is below the limit of ``--check``: docs/wearable.md.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
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

SEEDS, TARGET, LIMIT = (0, 1, 2), 3, 3.0
TEACHER_EPOCHS, EPOCHS, AUGMENT = 15, 48, "mix1"
HOW = Optimisation(
    batch_size=64, learning_rate=0.05, weight_decay=5e-4, clip_norm=0.0, optimizer="sgd", momentum=0.9, schedule="cosine"
)
STUDENT = replace(HOW, batch_size=16)
"""Batches of labelled windows; unlabelled ones come 64 at a time."""
PACKING = Packing(temperature=4.0, unlabelled_batch=64)
DATA = Data(dataset="watch", grouping="subjects", subjects_per_client=2, train_fraction=0.1, unlabelled_fraction=1.0)
"""Where labels are for all windows, the share of 1.0 is passed."""
CPU = torch.device("cpu")
GROUPS = (Group.BACKBONE, Group.ADAPTER, Group.HEAD)
ARMS = ("scratch", "all labels", "self", "1:1", "best of 1:1", "1:3", "ensemble")
Scores = dict[str, tuple[float, float]]
"""Accuracy on validation and on test, in percent, by arm."""


def fresh(seed: int) -> nn.Module:
    """Return the network that everybody begins with."""
    return build_model(Model(name="wrn-16-1", dropout=0.0), "series", 7, **input_sizes(DATA), seed=seed)


def task(client: ClientData, augment: str = AUGMENT) -> TaskData:
    """Return a client's examples as they are trained on."""
    return TaskData(client.train, client.val, lambda inputs, generator: change(inputs, augment, generator))


def train_teachers(seed: int, epochs: int = TEACHER_EPOCHS, augment: str = AUGMENT) -> list[nn.Module]:
    """Let the four clients train a teacher each, with all their labels."""
    found = []
    for client in range(4):
        budget = Budget(epochs, HOW, seed * 10 + client)
        found.append(train_teacher(fresh(seed), task(load_client(DATA, client, 1.0), augment), budget, GROUPS))
    return found


def accuracy(logits: torch.Tensor, split: Split) -> float:
    """Return the share of right answers in percent."""
    return 100 * float((logits.argmax(dim=1) == split.labels).float().mean())


def score(models: Sequence[nn.Module], client: ClientData) -> tuple[float, float]:
    """Return the accuracy of a model, or of the ensemble of several, on validation and test."""
    first, second = (accuracy(ensemble_logits(models, split.inputs, CPU), split) for split in (client.val, client.test))
    return first, second


def measure(
    target: int,
    models: Sequence[nn.Module],
    seed: int,
    settings: Packing,
    how: Optimisation = STUDENT,
    augment: str = AUGMENT,
    arms: Sequence[str] = ARMS,
) -> Scores:
    """Return the scores of all arms for one target and seed.

    Args:
        target: client.
        models: what the four clients trained.
        seed: of batches and augmentation; the start is that of the teachers.
        settings: of distillation; its epochs are those over the labelled windows.
        how: the students are trained.
        augment: of students, and of what teachers are asked about.
        arms: that are wanted.
    """
    client = load_client(DATA, target)
    more = load_unlabelled(DATA, client.subgroup)
    classes, others = client.subgroup.classes, [model for number, model in enumerate(models) if number != target]
    named = [Teacher(f"teacher {number}", model, classes) for number, model in enumerate(others)]

    def student(teachers: Sequence[Teacher], data: ClientData = client) -> nn.Module:
        model, steps = fresh(seed), settings
        if data is not client:  # as many steps on more labels
            share = -(-len(client.train) // how.batch_size) / -(-len(data.train) // how.batch_size)
            steps = settings.model_copy(update={"epochs": max(1, round(settings.epochs * share))})
        pack(model, teachers, PackData(task(data, augment), classes, more), steps, how, seed=seed)
        return model

    found: Scores = {}
    if {"scratch", "self"} & {*arms}:
        alone = student([])
        found["scratch"] = score([alone], client)
    if "self" in arms:
        found["self"] = score([student([Teacher("self", copy_model(alone), classes)])], client)
    if "all labels" in arms:
        found["all labels"] = score([student([], load_client(DATA, target, 1.0))], client)
    if "1:1" in arms:
        single = [score([student([one])], client) for one in named]
        found["1:1"] = statistics.fmean(val for val, _ in single), statistics.fmean(test for _, test in single)
        losses = [F.cross_entropy(ask_all(m, client.train.inputs, (), CPU).logits, client.train.labels) for m in others]
        found["best of 1:1"] = single[min(range(len(losses)), key=lambda place: float(losses[place]))]
    if "1:3" in arms:
        found["1:3"] = score([student(named)], client)
    if "ensemble" in arms:
        found["ensemble"] = score(others, client)
    return found


def gain(scores: Sequence[Scores], over: str, place: int = 1) -> float:
    """Return by how many points 1:3 is above an arm, the mean over runs; ``place`` 0: on validation.

    >>> gain([{"1:3": (0.0, 72.0), "1:1": (0.0, 66.0)}, {"1:3": (0.0, 70.0), "1:1": (0.0, 68.0)}], "1:1")
    4.0
    """
    return statistics.fmean(one["1:3"][place] - one[over][place] for one in scores)


def table(scores: Sequence[Scores]) -> Table:
    """Return mean and deviation of each arm over runs, and by how much 1:3 is above it."""
    found = Table(title=f"test accuracy in % over {len(scores)} runs; the last column is paired")
    for heading in ("arm", "validation", "test", "deviation", "1:3 is above it by"):
        found.add_column(heading, justify="left" if heading == "arm" else "right")
    for arm in scores[0]:
        vals, tests = ([one[arm][place] for one in scores] for place in (0, 1))
        spread = f"{statistics.stdev(tests):.2f}" if len(tests) > 1 else "–"
        above = [one["1:3"][1] - one[arm][1] for one in scores]
        more = "" if arm == "1:3" else f"{statistics.fmean(above):+.2f} ({sum(a > 0 for a in above)} of {len(above)})"
        found.add_row(arm, f"{statistics.fmean(vals):.2f}", f"{statistics.fmean(tests):.2f}", spread, more)
    return found


def main(
    quick: Annotated[bool, typer.Option(help="one seed and few epochs: does it run?")] = False,
    check: Annotated[bool, typer.Option(help="exit 1 unless 1:3 is far enough above 1:1")] = False,
    everyone: Annotated[bool, typer.Option(help="each client is the target once, not the last alone")] = False,
    seeds: Annotated[int, typer.Option(help="number of seeds")] = len(SEEDS),
    output: Annotated[Path | None, typer.Option(help="write all scores to this JSON file")] = None,
) -> None:
    """Run the benchmark."""
    torch.set_num_threads(1)
    console, scores = Console(), []
    settings = PACKING.model_copy(update={"epochs": 4 if quick else EPOCHS})
    for seed in range(1 if quick else seeds):
        models = train_teachers(seed, 3 if quick else TEACHER_EPOCHS)
        for target in range(4) if everyone else (TARGET,):
            scores.append(measure(target, models, seed, settings))
            told = ", ".join(f"{arm} {test:.1f}" for arm, (_, test) in scores[-1].items())
            console.print(f"seed {seed}, client {target}: {told}")
    console.print(table(scores))
    if output is not None:
        output.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    found = gain(scores, "1:1"), gain(scores, "best of 1:1")
    console.print(
        f"1:3 is {found[0]:+.2f} points above 1:1, and {found[1]:+.2f} above the best of 1:1; limit {LIMIT:+.1f} each"
    )
    if check and min(found) < LIMIT:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
