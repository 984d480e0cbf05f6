"""What a run of ComKD-CLIP says by the base-to-novel protocol: Base, Novel and HM of its teacher and its students.

Each is a mean over clients on the test split; HM is that of the two means, as papers have it for the mean over data sets.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from data_partition.base_novel import harmonic_mean

MODELS = {
    "clip-teacher": "teacher, on its own images",
    "without-student": "teacher, on the students' images",
    "comkd": "students",
    "without-teacher": "students before training",
}
"""Arms of strategy comkd and what is said of them, in the order of the table."""
SCORES = {"base": "Base", "novel": "Novel", "harmonic_mean": "HM"}
"""Scores and their headings."""


def results(events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the entry ``base_to_novel`` of ``results.json``; empty: the run has no base and novel classes.

    ``base`` and ``novel`` are the classes, and ``models`` the lines of the table: ``arm``, ``clients`` with their scores, and
    the means.
    """
    events = list(events)
    taught = next((event for event in events if event["event"] == "teacher"), None)
    found: dict[str, dict[int, Mapping[str, Any]]] = {}
    for event in events:
        if event["event"] == "evaluate" and event["split"] == "test" and "harmonic_mean" in event:
            found.setdefault(event["arm"], {})[event["client"]] = event
    if taught is None or not found:
        return {}
    models = [_line(arm, found[arm]) for arm in MODELS if arm in found]
    return {"base_to_novel": {"base": taught["base"], "novel": taught["novel"], "models": models}}


def lines(summary: Mapping[str, Any]) -> list[str]:
    """Say what teacher and students came to; nothing where there is none."""
    entry = summary.get("base_to_novel")
    if not entry:
        return []
    chance = ", ".join(f"{name} {1 / len(entry[name]):.3f}" for name in ("base", "novel"))
    told = [f"base: {', '.join(entry['base'])}; novel: {', '.join(entry['novel'])}; chance: {chance}"]
    for one in entry["models"]:
        scores = ", ".join(f"{heading} {one[name]:.3f}" for name, heading in SCORES.items())
        told.append(f"{MODELS[one['arm']]}: {scores}")
    return told


def students(summary: Mapping[str, Any]) -> dict[str, float]:
    """Return the scores of the students of a run, by name; empty: it has none."""
    entry = summary.get("base_to_novel", {})
    return next(({name: one[name] for name in SCORES} for one in entry.get("models", ()) if one["arm"] == "comkd"), {})


def _line(arm: str, clients: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    base, novel = (statistics.fmean(event[name] for event in clients.values()) for name in ("base", "novel"))
    rows = [{"client": client, **{name: event[name] for name in SCORES}} for client, event in sorted(clients.items())]
    return {"arm": arm, "clients": rows, "base": base, "novel": novel, "harmonic_mean": harmonic_mean(base, novel)}
