"""What the starts of clients that join late are worth, and how often each way to pick found a model of siblings.

Of several starts, the first is the result of the run (server/summary.py); all of them are compared here with scratch.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SCRATCH = "scratch"
Event = Mapping[str, Any]


def arms_beside(events: Iterable[Event]) -> set[str]:
    """Return the arms of all starts but the first and scratch; their accuracies are not the run's result."""
    joins = _joins(events)
    first = _first(joins)
    return {event["arm"] for event in joins if event["start"] not in (first, SCRATCH)}


def arms_counted(events: Iterable[Event]) -> set[str]:
    """Return the arms whose bytes the first start needs; empty: nobody joined late, or only from scratch."""
    joins = _joins(events)
    return _arms(joins, _first(joins))


def results(events: Iterable[Event]) -> dict[str, Any]:
    """Return what goes into ``results.json`` of a run with several starts or with picks; empty for others.

    ``starts``: of each its ``clients`` with their accuracy, the means of accuracy and of the difference to scratch over the
    clients that have both, how many are better, and the bytes that it needs. ``picks``: of each way to pick, among the
    clusters or the donors, how many joiners with siblings picked a model of theirs, and how many would by chance.
    """
    events = list(events)
    joins = _joins(events)
    names = list(dict.fromkeys(event["start"] for event in joins))
    picks = _picks(events)
    if len(names) < 3 and not picks:
        return {}
    start_of = {event["arm"]: event["start"] for event in joins}
    accuracy: dict[str, dict[int, float]] = {name: {} for name in names}
    for event in events:
        if event["event"] == "evaluate" and event["split"] == "test" and event["arm"] in start_of:
            accuracy[start_of[event["arm"]]][event["client"]] = event["balanced_accuracy"]
    starts = [_start(name, accuracy, _bytes(events, _arms(joins, name))) for name in names if accuracy[name]]
    return {"starts": starts, **({"picks": picks} if picks else {})}


def lines(summary: Mapping[str, Any]) -> list[str]:
    """Say what each start and each way to pick came to; nothing where there is none."""
    told = []
    for one in summary.get("starts", ()):
        gain = one["mean_difference"]
        against = (
            "" if gain is None else f", {gain:+.3f} against scratch, {one['clients_better']} of {len(one['clients'])} better"
        )
        told.append(f"start {one['start']}: {one['mean_accuracy']:.3f}{against}, {one['bytes'] / 1e6:.2f} MB")
    for one in summary.get("picks", ()):
        decides = ", decides" if one["decides"] else ""
        told.append(
            f"{one['kind']} by {one['by']}{decides}: siblings found for {one['right']} of {one['joiners']} joiners, "
            f"by chance {one['chance']:.1f}"
        )
    return told


def _start(name: str, accuracy: Mapping[str, Mapping[int, float]], moved: int) -> dict[str, Any]:
    own, scratch = accuracy[name], accuracy.get(SCRATCH, {})
    gains = [value - scratch[client] for client, value in own.items() if client in scratch and name != SCRATCH]
    return {
        "start": name,
        "clients": [{"client": client, "accuracy": value} for client, value in sorted(own.items())],
        "mean_accuracy": statistics.fmean(own.values()),
        "mean_difference": statistics.fmean(gains) if gains else None,
        "clients_better": sum(gain > 0 for gain in gains),
        "bytes": moved,
    }


def _picks(events: Iterable[Event]) -> list[dict[str, Any]]:
    """Count, by kind and way to pick, over the joiners of whose classes there was a model."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for event in events:
        if event["event"] != "pick" or event["chance"] is None:
            continue
        for by, right in event["right"].items():
            new = {"kind": event["kind"], "by": by, "decides": by == event["by"], "right": 0, "joiners": 0, "chance": 0.0}
            one = found.setdefault((event["kind"], by), new)
            one["right"] += right
            one["joiners"] += 1
            one["chance"] += event["chance"]
    return list(found.values())


def _joins(events: Iterable[Event]) -> list[Event]:
    return [event for event in events if event["event"] == "join"]


def _first(joins: Sequence[Event]) -> str:
    return next((event["start"] for event in joins if event["start"] != SCRATCH), "")


def _arms(joins: Sequence[Event], start: str) -> set[str]:
    own = [event for event in joins if event["start"] == start]
    return {arm for event in own for arm in (event["arm"], *event["uses"])}


def _bytes(events: Iterable[Event], arms: set[str]) -> int:
    return sum(e["bytes_down"] + e["bytes_up"] for e in events if e["event"] == "message" and e["arm"] in arms)
