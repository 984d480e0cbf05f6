"""``backpack report``: one run folder as one HTML file, ``RUN/report.html``, that needs nothing else to be read.

A run that failed, or is still running, gets a report of what there is. What a run folder holds is data: every text of it is
escaped, and a field that is missing or of another type is shown as such.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console

import config as settings
from config import ConfigError
from models.storage import write_atomic
from server import summary, transfer
from server.run_folder import read_events
from simulations import report_continual, report_curves, report_ledger, report_transfer
from simulations.report_html import Html, details, join, number, page, section, table, tag, word

NOT_TOLD = ("run.name", "run.output-dir", "run.resume")
"""Settings that say where a run is, not what it does."""
FACTS = ("strategy", "status", "seed", "started", "host", "platform", "python", "source_hash")


@dataclass(frozen=True)
class RecordedRun:
    """A run folder as it is found.

    Attributes:
        path: the folder.
        manifest: content of ``manifest.json``.
        config: the settings it was run with, flat; empty if they cannot be read.
        events: all whole events.
        written: content of ``results.json``; None before the run has ended.
    """

    path: Path
    manifest: Mapping[str, Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    events: Sequence[Mapping[str, Any]] = ()
    written: Mapping[str, Any] | None = None

    @cached_property
    def outcome(self) -> Mapping[str, Any] | None:
        """The results as written; of a run without, those that its events give; None: they give none."""
        if self.written is not None:
            return self.written
        scorer = str(self.config.get("selection.scorer", ""))
        found = summary.results(self.events, number(self.manifest.get("seconds")) or 0.0, scorer)
        return found if found["clients"] or "streams" in found or "transfer" in found else None


def main(paths: Sequence[Path]) -> None:
    """Write the report of each run and print where it is.

    Raises:
        ConfigError: a folder holds no run; nothing is written then.
    """
    for path in paths:
        check(path)
    screen = Console()
    for path in paths:
        screen.print(str(write(path)), markup=False, highlight=False, soft_wrap=True)


def check(path: Path) -> None:
    """Fail if a path is no run folder.

    Raises:
        ConfigError: says so.
    """
    if not (path / "manifest.json").is_file():
        raise ConfigError(f"{path} holds no manifest.json (not a run folder); expected the folder of a run")


def write(path: Path) -> Path:
    """Write the report of one run and return its path."""
    target = path / "report.html"
    write_atomic(target, render(read(path)).encode())
    return target


def read(path: Path) -> RecordedRun:
    """Read a run folder; only ``manifest.json`` must be there.

    Raises:
        ConfigError: it is no run folder.
        ValueError: a file is not JSON.
    """
    check(path)
    try:
        config = dict(settings.read_toml(path / "config.toml"))
    except ConfigError:
        config = {}
    events_path, results_path = path / "events.jsonl", path / "results.json"
    events = read_events(events_path) if events_path.exists() else []
    return RecordedRun(
        path,
        _object(path / "manifest.json"),
        config,
        [event for event in events if isinstance(event, dict) and isinstance(event.get("event"), str)],
        _object(results_path) if results_path.exists() else None,
    )


def render(run: RecordedRun) -> str:
    """Return the page of a run; a section without anything to show is left out.

    A section that cannot be made of what another version, or another hand, has written says so in its place.
    """
    sections: dict[str, Callable[[RecordedRun], Sequence[Html]]] = {
        "Run": head,
        "Settings": changed_settings,
        "Result": result,
        "Transfer": lambda run: report_transfer.section(run.outcome or {}),
        "Curves": lambda run: report_curves.curves([one for one in run.events if not transfer.is_repeat(one.get("arm"))]),
        "Streams of tasks": lambda run: report_continual.streams((run.outcome or {}).get("streams")),
        "Continual learning": lambda run: report_continual.timeline(run.events),
        "Byte ledger": lambda run: report_ledger.ledger(run.events),
        "Warnings and refused replies": lambda run: report_ledger.faults(run.events),
    }
    shown = {title: content for title, make in sections.items() if (content := _made(make, run))}
    title = str(run.manifest.get("name") or run.path.resolve().name)
    return page(title, *(section(heading, *content) for heading, content in shown.items()))


def _made(make: Callable[[RecordedRun], Sequence[Html]], run: RecordedRun) -> Sequence[Html]:
    try:
        return make(run)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        told = f"The files of this run do not give this section: {type(error).__name__}: {error}"
        return [tag("div", told, class_="fault")]


def head(run: RecordedRun) -> list[Html]:
    """What ran where, and how it ended."""
    facts = {name.replace("_", " "): run.manifest[name] for name in FACTS if name in run.manifest}
    seconds = number(run.manifest.get("seconds"))
    if seconds is not None:
        facts["seconds"] = f"{seconds:.1f}"
    elif run.events:
        facts["last event"] = run.events[-1].get("time")
    versions = run.manifest.get("versions")
    if isinstance(versions, Mapping):
        facts["versions"] = ", ".join(f"{name} {value}" for name, value in versions.items())
    parts = [tag("dl", join([part for name, value in facts.items() for part in (tag("dt", name), tag("dd", word(value)))]))]
    if run.manifest.get("error"):
        parts.append(tag("div", run.manifest["error"], class_="fault"))
    return parts


def changed_settings(run: RecordedRun) -> list[Html]:
    """The settings that differ from the defaults, and all of them."""
    if not run.config:
        return [tag("p", "config.toml is missing or cannot be read.")]
    defaults = settings.flatten(settings.parse({}))
    changed = [
        [key, _toml(value), _toml(defaults[key]) if key in defaults else "no such setting in this version"]
        for key, value in run.config.items()
        if key not in NOT_TOLD and (key not in defaults or value != defaults[key])
    ]
    headings = ("setting", "value", "default")
    shown = table(headings, changed, words=headings) if changed else tag("p", "All settings have their defaults.")
    every = [[key, _toml(value)] for key, value in run.config.items()]
    return [shown, details("all settings", table(headings[:2], every, words=headings[:2]))]


def result(run: RecordedRun) -> list[Html]:
    """The table by client, as the run prints it."""
    if run.outcome is None or not run.outcome.get("clients"):
        return []
    header, *body = summary.cells(run.outcome)
    parts = [table(header, body, words=("modality",), classes={len(body) - 1: "mean"})]
    if run.written is None:
        parts.insert(0, tag("p", "The run wrote no results.json: this is what its events give."))
    parts.append(tag("p", f"{run.outcome.get('metric', '')}. {'. '.join(summary.remarks(run.outcome))}.", class_="soft"))
    return parts


def _toml(value: settings.Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value) or "(empty)"


def _object(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): the run folder is damaged") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds {type(found).__name__}, expected an object: the run folder is damaged")
    return found
