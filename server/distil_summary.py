"""What teachers, students and their controls came to: test accuracy of each arm, and paired differences."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

TEACHER, SCRATCH, STUDENT = "teacher", "scratch", "student"


def results(events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the entry ``distillation`` of ``results.json``; empty for runs that taught no student.

    ``clients``: of each student its ``teachers`` (clients), its accuracy, ``scratch``, that of its control, ``teacher``, the
    mean of its teachers on their own test examples, and how many teachers its loss was of in effect. ``student_over_scratch``
    and ``student_over_teacher``: the mean difference, its deviation, and how many are better, of the clients that have both.
    """
    events = list(events)
    taught = {event["client"]: list(event["teachers"]) for event in events if event["event"] == "taught"}
    if not taught:
        return {}
    found: dict[str, dict[int, float]] = {TEACHER: {}, SCRATCH: {}, STUDENT: {}}
    for event in events:
        if event["event"] == "evaluate" and event["split"] == "test" and event["arm"] in found:
            found[event["arm"]][event["client"]] = event["balanced_accuracy"]
    effective = {e["client"]: e["effective_teachers"] for e in events if e["event"] == "packed" and e["arm"] == STUDENT}
    rows = []
    for client, teachers in sorted(taught.items()):
        own = [found[TEACHER][one] for one in teachers if one in found[TEACHER]]
        rows.append(
            {
                "client": client,
                "teachers": teachers,
                "student": found[STUDENT].get(client),
                "scratch": found[SCRATCH].get(client),
                "teacher": statistics.fmean(own) if own else None,
                "effective_teachers": effective.get(client),
            }
        )
    means = {arm: statistics.fmean(values.values()) for arm, values in found.items() if values}
    over = {f"student_over_{arm}": _paired(rows, arm) for arm in (SCRATCH, TEACHER)}
    return {"distillation": {"clients": rows, "means": means, **{name: one for name, one in over.items() if one}}}


def lines(summary: Mapping[str, Any]) -> list[str]:
    """Say what the arms came to, and the paired differences; nothing for other runs."""
    if "distillation" not in summary:
        return []
    found = summary["distillation"]
    told = [", ".join(f"{arm} {value:.3f}" for arm, value in found["means"].items())]
    for arm in (SCRATCH, TEACHER):
        if one := found.get(f"student_over_{arm}"):
            spread = "" if one["deviation"] is None else f" ± {one['deviation']:.3f}"
            what = "its control" if arm == SCRATCH else "its teachers"
            told.append(f"student over {what}: {one['mean']:+.3f}{spread}, {one['better']} of {one['clients']} better")
    return told


def _paired(rows: list[dict[str, Any]], arm: str) -> dict[str, Any] | None:
    gains = [row[STUDENT] - row[arm] for row in rows if row[STUDENT] is not None and row[arm] is not None]
    if not gains:
        return None
    return {
        "mean": statistics.fmean(gains),
        "deviation": statistics.stdev(gains) if len(gains) > 1 else None,
        "better": sum(gain > 0 for gain in gains),
        "clients": len(gains),
    }
