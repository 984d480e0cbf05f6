"""``backpack compare``: one table from several run folders.

Runs whose settings differ only in ``run.seed``, name and folder are the seeds of one setting. The first setting is the
reference of the others. The paired test is Wilcoxon's signed-rank test over clients, each client's accuracy averaged over the
seeds first: seeds of one client are not independent clients.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from config import ConfigError, read_toml
from server import clip_summary
from server.continual_summary import SCORES, score
from server.start_summary import SCRATCH
from simulations import tables
from simulations.significance import wilcoxon_p
from strategies.protocol import PACK

PACK_CONTROLS = ("start", "self")
"""Arms of packing that it is compared with; the others learn by other losses, and are compared with it."""
NOT_A_SETTING = ("run.seed", "run.name", "run.output-dir", "run.resume")
HEADINGS = {
    "setting": "setting",
    "seeds": "seeds",
    "accuracy": "accuracy",
    "sd": "sd",
    "against": "against",
    "difference": "Δ points",
    "better": "clients better",
    "p": "p (Wilcoxon)",
    "megabytes": "MB",
    "seconds": "seconds",
}
STREAM_HEADINGS = {name: heading for name, heading in SCORES.items() if name != "average_accuracy"}
"""Columns for runs with streams of tasks, whose ``accuracy`` is ACC; a column is there if a run has its score."""
NOVEL_HEADINGS = clip_summary.SCORES
"""Columns for runs with base and novel classes: those of the students; a column is there if a run has its score."""


@dataclass(frozen=True)
class Finished:
    """One completed run as its folder tells it."""

    path: Path
    settings: dict[str, Any]
    results: dict[str, Any]

    def accuracies(self, which: str = "accuracy") -> dict[int, float]:
        """Return each client's accuracy, or its control's."""
        return {row["client"]: row[which] for row in self.results["clients"] if row[which] is not None}

    def packed(self) -> dict[str, dict[int, float]]:
        """Return the accuracies of the arms of packing, by arm and client; empty: the run packed nothing."""
        arms = self.results.get("packing", {}).get("arms", ())
        return {one["arm"]: {row["client"]: row["accuracy"] for row in one["clients"]} for one in arms}

    def starts(self) -> dict[str, Mapping[str, Any]]:
        """Return the starts of clients that join late, by name: the first is the result of the run, scratch its control."""
        return {one["start"]: one for one in self.results.get("starts", ()) if one["start"] != SCRATCH}


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes:
        setting: what sets it apart from the other settings.
        seeds: number of runs.
        accuracy: mean over seeds of the mean over clients.
        sd: standard deviation over seeds of the mean over clients; None with one seed.
        against: what ``difference`` is taken from.
        difference: mean paired difference over clients, in points.
        better: clients with a positive difference, of all.
        p: Wilcoxon's p; None if it cannot be had (fewer than 2 clients, or all equal).
        megabytes: mean payload of a run.
        seconds: mean time of a run.
        scores: means over seeds of the scores of :data:`STREAM_HEADINGS` or :data:`NOVEL_HEADINGS`; empty without either.
    """

    setting: str
    seeds: int
    accuracy: float
    sd: float | None
    against: str
    difference: float | None
    better: str
    p: float | None
    megabytes: float
    seconds: float
    scores: Mapping[str, float | None] = field(default_factory=dict)


def main(paths: Sequence[Path], format_: str) -> None:
    """Read the runs and print the table.

    Raises:
        ConfigError: a folder holds no finished run, or the format is unknown.
    """
    tables.check(format_)
    table = lines([read_run(path) for path in paths])
    headings = _headings(table)
    tables.show(headings, *_rows(table, headings), format_, words=("setting", "against"))


def read_run(path: Path) -> Finished:
    """Read one run folder.

    Raises:
        ConfigError: it is not the folder of a completed run.
    """
    if not (path / "results.json").exists():
        manifest = path / "manifest.json"
        status = json.loads(manifest.read_text(encoding="utf-8"))["status"] if manifest.exists() else "not a run folder"
        raise ConfigError(f"{path} holds no results.json ({status}); expected the folder of a completed run")
    results = json.loads((path / "results.json").read_text(encoding="utf-8"))
    return Finished(path, read_toml(path / "config.toml"), results)


def lines(runs: Sequence[Finished]) -> list[Line]:
    """Return the table: for each setting a line against its own control, and one against the first setting.

    Below come the other starts of clients that join late, each against scratch and against the first start of its setting, and
    packed models against the controls of packing.
    """
    groups = group_by_setting(runs)
    table: list[Line] = []
    reference: tuple[str, dict[int, float]] | None = None
    for name, members in groups.items():
        own = mean_per_client([run.accuracies() for run in members])
        control = mean_per_client([run.accuracies("control") for run in members])
        if control:
            table.append(_line(name, members, "matched control", own, control))
        if reference:
            table.append(_line(name, members, reference[0], own, reference[1]))
        elif not control:
            table.append(_line(name, members, "", own, {}))
        table += _starts(name, members, own, control)
        table += _packings(name, members)
        reference = reference or (name, own)
    return table


def _starts(name: str, members: list[Finished], own: dict[int, float], scratch: dict[int, float]) -> list[Line]:
    found = [run.starts() for run in members]
    first, *others = [start for start in found[0] if all(start in one for one in found)] or [""]
    table: list[Line] = []
    for start in others:
        ones = [one[start] for one in found]
        seeds = [{row["client"]: row["accuracy"] for row in one["clients"]} for one in ones]
        mean = mean_per_client(seeds)
        for against, other in (("matched control", scratch), (f"start {first}", own)):
            line = _line(f"{name} start {start}", members, against, mean, other, seeds)
            table.append(replace(line, megabytes=statistics.fmean(one["bytes"] for one in ones) / 1e6))
    return table


def _packings(name: str, members: list[Finished]) -> list[Line]:
    """Compare packing with its controls of equal steps, and other losses with those of the run."""
    found = [run.packed() for run in members]
    if not all(PACK in one for one in found):
        return []
    seeds = [one[PACK] for one in found]
    own = mean_per_client(seeds)
    others = [arm for arm in found[0] if arm != PACK and all(arm in one for one in found)]
    table = []
    for arm in others:
        ones = [one[arm] for one in found]
        if arm in PACK_CONTROLS:
            table.append(_line(f"{name} packed", members, f"packing {arm}", own, mean_per_client(ones), seeds))
        else:
            table.append(_line(f"{name} packed by {arm}", members, f"{name} packed", mean_per_client(ones), own, ones))
    return table


def group_by_setting(runs: Sequence[Finished]) -> dict[str, list[Finished]]:
    """Group runs by their settings; the name of a group tells what differs between groups."""
    keys = [{key: value for key, value in run.settings.items() if key not in NOT_A_SETTING} for run in runs]
    varying = sorted({key for one in keys for key in one if any(other.get(key) != one[key] for other in keys)})
    groups: dict[str, list[Finished]] = {}
    for run, one in zip(runs, keys, strict=True):
        rest = [f"{key}={one.get(key)}" for key in varying if key != "strategy.name"]
        groups.setdefault(" ".join([str(one["strategy.name"]), *rest]), []).append(run)
    for name, members in groups.items():
        seeds = [run.settings["run.seed"] for run in members]
        if len(set(seeds)) < len(seeds):
            raise ConfigError(f"{name}: seeds {seeds} repeat; give each run once")
    return groups


def mean_per_client(seeds: Sequence[dict[int, float]]) -> dict[int, float]:
    """Average each client over the seeds; a client must be in all of them."""
    clients = set.intersection(*(set(one) for one in seeds)) if seeds else set()
    return {client: statistics.fmean(one[client] for one in seeds) for client in sorted(clients)}


def _line(
    name: str,
    members: list[Finished],
    against: str,
    own: dict[int, float],
    other: dict[int, float],
    seeds: Sequence[Mapping[int, float]] = (),
) -> Line:
    means = [statistics.fmean(one.values()) for one in seeds or [run.accuracies() for run in members]]
    differences = [own[client] - other[client] for client in own if client in other]
    return Line(
        setting=name,
        seeds=len(members),
        accuracy=statistics.fmean(means),
        sd=statistics.stdev(means) if len(means) > 1 else None,
        against=against,
        difference=100 * statistics.fmean(differences) if differences else None,
        better=f"{sum(value > 0 for value in differences)}/{len(differences)}" if differences else "",
        p=wilcoxon_p(differences),
        megabytes=statistics.fmean(run.results["bytes"] for run in members) / 1e6,
        seconds=statistics.fmean(run.results["seconds"] for run in members),
        scores=stream_scores(members) | novel_scores(members),
    )


def stream_scores(members: Sequence[Finished]) -> dict[str, float | None]:
    """Average each score of the streams over the seeds that have it; empty: no run has streams."""
    found = [run.results["streams"]["means"] for run in members if "streams" in run.results]
    known = {name: [one[name] for one in found if one[name] is not None] for name in STREAM_HEADINGS}
    return {name: statistics.fmean(values) if values else None for name, values in known.items()} if found else {}


def novel_scores(members: Sequence[Finished]) -> dict[str, float]:
    """Average the scores of students on base and novel classes over the seeds; empty: no run has them."""
    found = [scores for run in members if (scores := clip_summary.students(run.results))]
    return {name: statistics.fmean(one[name] for one in found) for name in NOVEL_HEADINGS} if found else {}


def _headings(table: Sequence[Line]) -> dict[str, str]:
    measured = {name for line in table for name, value in line.scores.items() if value is not None}
    return HEADINGS | {name: heading for name, heading in (STREAM_HEADINGS | NOVEL_HEADINGS).items() if name in measured}


def _values(line: Line, headings: Mapping[str, str]) -> dict[str, Any]:
    found = asdict(line)
    return {name: found[name] if name in HEADINGS else line.scores.get(name) for name in headings}


def render(table: Sequence[Line], format_: str) -> str:
    """Return the table as md, csv, json or latex."""
    headings = _headings(table)
    return tables.render(headings, *_rows(table, headings), format_)


def _rows(table: Sequence[Line], headings: Mapping[str, str]) -> tuple[list[dict[str, Any]], list[list[str]]]:
    return [_values(line, headings) for line in table], [_cells(line, headings) for line in table]


def _cells(line: Line, headings: Mapping[str, str]) -> list[str]:
    return [
        line.setting,
        str(line.seeds),
        f"{line.accuracy:.3f}",
        "" if line.sd is None else f"{line.sd:.3f}",
        line.against,
        "" if line.difference is None else f"{line.difference:+.1f}",
        line.better,
        "" if line.p is None else f"{line.p:.3f}",
        f"{line.megabytes:.1f}",
        f"{line.seconds:.0f}",
        *(score(_values(line, headings), name) for name in headings if name in STREAM_HEADINGS),
        *(_share(line.scores.get(name)) for name in headings if name in NOVEL_HEADINGS),
    ]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
