"""Bytes on the wire until every target of Back-Pack has its donor: two stages by sketches, against scoring everyone.

    .venv/bin/python benchmarks/routing.py            # 12, 48 and 192 clients: three minutes
    .venv/bin/python benchmarks/routing.py --quick    # 12 and 48: half a minute

The whole app runs in one process, server and clients, with a tiny model and a few rows a client: half of the clients have
images, half have texts. Each tells a sketch as donor and one as target, scores the m = 3 donors of its modality with the most
similar ones, and learns on top of the best. Bytes are those of the ``message`` events: arrays and framing of sketches, donors'
backbones, scores, and the task that is learned on top. With 12 clients everyone is also scored, which shows that the bytes of
scoring everyone, which are computed for the others, are right.

With C clients the two stages take 2 C sketches and at most C + C m backbones, the first up, the others down; scoring everyone
takes C + C (C / 2 - 1).
"""

from __future__ import annotations

import sys
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # run as a script: the folder of the script is not where packages are
    sys.path[0] = str(ROOT)

import typer  # noqa: E402
from flwr.app import ArrayRecord, Message  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from config import Data, parse  # noqa: E402
from data_partition.datasets import DATASETS  # noqa: E402
from data_partition.emojipairs import groupings  # noqa: E402
from data_partition.subgroups import Subgroup  # noqa: E402
from server.run_folder import read_events  # noqa: E402
from simulations import inprocess  # noqa: E402
from strategies import broker  # noqa: E402
from strategies.protocol import BACKBONE, CONFIG, DONORS, SCORE, SKETCH, TARGET, TRAIN_TASK  # noqa: E402

M, CLIENTS, FEWER, LIMIT = 3, (12, 48, 192), (12, 48), 1.05
SETTINGS = {
    "strategy.name": "backpack",
    "strategy.share": "backbone+adapter",
    "strategy.scope": "modality",
    "data.grouping": "mixed",
    "data.concepts": "shared",
    "data.train-fraction": 0.05,
    "selection.donor-fraction": 0.05,
    "model.dim": 32,
    "model.latents": 4,
    "model.heads": 2,
    "model.cross-heads": 2,
    "model.layers": 1,
    "run.evaluate-every": 0,
    "train.batch-size": 64,
    "continual.goal": "none",
    "continual.growth-step": 0.0,
    "continual.epochs": 1,
    "continual.ratios": "0.5",
    "continual.prune-epochs": 1,
    "continual.retrain-epochs": 1,
    "selection.donor-epochs": 1,
    "selection.own-epochs": 1,
    "selection.probes": 8,
    "selection.pairs": 10,
    "selection.abstain": False,
}


@dataclass(frozen=True)
class Traffic:
    """What crossed in one run of selection.

    Attributes:
        clients: C.
        sketches: bytes of requests for sketches and of what came.
        up: bytes that donors sent when they were asked for their backbones, and of the requests.
        down: bytes of scoring: backbones to targets, and scores.
        learning: bytes of learning on top, for which each target has its donor already.
        backbones_up: backbones that donors sent.
        backbones_down: backbones that targets were sent.
        twice: how often a backbone went to a target that had been sent it before.
        peak: most backbones that the server held at a time.
    """

    clients: int
    sketches: int
    up: int
    down: int
    learning: int
    backbones_up: int
    backbones_down: int
    twice: int
    peak: int

    @property
    def total(self) -> int:
        """Bytes of everything."""
        return self.sketches + self.up + self.down + self.learning


class Watcher:
    """Counts the backbones that reach targets, and those that the server holds."""

    def __init__(self) -> None:
        self.sent: Counter[tuple[int, str]] = Counter()
        self.held = self.peak = 0
        self._pull, self._handle = broker.pull, inprocess.InProcessGrid._handle

    def pull(self, *args: Any) -> Any:
        """Do what the broker does, and count what came until it is forgotten."""
        if (came := self._pull(*args)) is not None:
            self.held += 1
            self.peak = max(self.peak, self.held)
            weakref.finalize(came[1], self.forget)
        return came

    def forget(self) -> None:
        """One backbone is gone."""
        self.held -= 1

    def handle(self, grid: inprocess.InProcessGrid, message: Message) -> Message:
        """Do what the engine does, and count the backbones in a message."""
        client = int(message.content[CONFIG].get("partition_id", -1))  # type: ignore[arg-type]
        for name, record in message.content.items():
            if name.startswith(f"{DONORS}-") and isinstance(record, ArrayRecord):
                self.sent[client, name] += 1
        return self._handle(grid, message)


def subgroups(count: int) -> list[Subgroup]:
    """Return as many clients as are wanted: those of the grouping ``mixed``, again and again."""
    own = groupings.subgroups(Data(grouping="mixed"))
    return [replace(own[number % len(own)], partition_id=number) for number in range(count)]


def traffic(count: int, events: Iterable[Mapping[str, Any]], watcher: Watcher) -> Traffic:
    """Add up the ledger of a run."""
    found: Counter[str] = Counter()
    backbones = 0
    for event in events:
        if event["event"] == "backbone":
            backbones += 1
        if event["event"] == "message" and (event["type"] != TRAIN_TASK or event["arm"] == TARGET):
            bytes_ = sum(event[f"{what}_{way}"] for what in ("bytes", "framing") for way in ("up", "down"))
            found[event["type"]] += bytes_
    sent = watcher.sent.total()
    return Traffic(
        count,
        found[SKETCH],
        found[BACKBONE],
        found[SCORE],
        found[TRAIN_TASK],
        backbones,
        sent,
        sent - len(watcher.sent),
        watcher.peak,
    )


def run(count: int, shortlist: int) -> Traffic:
    """Run the whole app with some clients; a shortlist of 0: everyone is scored."""
    watcher, known = Watcher(), DATASETS["emojipairs"]
    clients = subgroups(count)
    data = replace(known, subgroups=lambda settings: clients)
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.dict(DATASETS, {"emojipairs": data}),
        patch.object(broker, "pull", watcher.pull),
        patch.object(inprocess.InProcessGrid, "_handle", lambda grid, message: watcher.handle(grid, message)),
    ):
        where = {"run.output-dir": folder, "run.name": "run", "selection.shortlist": shortlist}
        inprocess.run(parse({**SETTINGS, **where}))
        return traffic(count, read_events(Path(folder) / "run" / "events.jsonl"), watcher)


def everyone(found: Traffic, count: int) -> float:
    """Return the bytes of scoring everyone among a number of clients, computed from a run of two stages.

    Each target scores the C / 2 - 1 others of its modality, at as many bytes a donor as in the run; each donor sends once.
    """
    sends, learns = found.up / found.backbones_up, found.learning / found.clients
    return count * (sends + learns + (count / 2 - 1) * found.down / found.backbones_down)


def growth(found: Sequence[Traffic]) -> list[float]:
    """Return how much more bytes a client takes with each larger number of clients; 1: the bytes grow linearly."""
    return [(more.total / more.clients) / (fewer.total / fewer.clients) for fewer, more in pairwise(found)]


def main(
    quick: Annotated[bool, typer.Option(help="12 and 48 clients")] = False,
    check: Annotated[
        bool, typer.Option(help="exit 1 if bytes a client grow by more than 5 %, or a backbone comes twice")
    ] = False,
) -> None:
    """Measure and print."""
    console, found = Console(), [run(count, M) for count in (FEWER if quick else CLIENTS)]
    table = Table(
        "clients", "sketches MB", "donors up MB", "targets MB", "total MB", "kB a client", "backbones up, down", "peak"
    )
    for one in found:
        kilobytes = f"{one.total / one.clients / 1e3:.1f}"
        megabytes = [f"{value / 1e6:.2f}" for value in (one.sketches, one.up, one.down + one.learning, one.total)]
        table.add_row(str(one.clients), *megabytes, kilobytes, f"{one.backbones_up}, {one.backbones_down}", str(one.peak))
    console.print(table)
    measured = run(found[0].clients, 0)
    for one in found:
        told = f" (measured {measured.total / 1e6:.2f})" if one is found[0] else ""
        computed = everyone(one, one.clients)
        times = f"{computed / one.total:.2f} times as many"
        console.print(f"{one.clients} clients, everyone scored: {computed / 1e6:.2f} MB{told}, {times}")
    factors, twice = growth(found), sum(one.twice for one in (*found, measured))
    shown = ", ".join(f"{factor:.3f}" for factor in factors)
    console.print(f"bytes a client, from C to 4 C: {shown}, required at most {LIMIT:.2f}; backbones sent twice: {twice}")
    if check and (max(factors) > LIMIT or twice):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
