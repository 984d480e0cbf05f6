"""What a run says of its streams of tasks: accuracy matrix and scores of each client, made from the run's events.

An ``evaluate`` event belongs to a stream if it carries ``task`` (index in the order the client meets its tasks) and ``after``
(number of tasks learned; 0: the model as initialised). Only the test split counts. Arms are told apart by their first word:
``control`` is the matched control, walking the same stream; ``scratch`` learns every task alone, from a fresh model;
``without`` is preparation and does not count; any other is the strategy. Of several arms of one kind, a client's last counts.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from data_partition import continual_metrics as metrics

Measured = dict[tuple[int, int], float]
"""Accuracy by (number of tasks learned, task)."""

SCORES = {
    "average_accuracy": "ACC",
    "backward_transfer": "BWT",
    "forgetting": "FGT",
    "transfer_gain": "FWT",
    "forward_transfer": "zero-shot",
    "capacity": "capacity",
}
"""Scores of a stream and their headings in tables.

``FWT`` is the gain over training each task from scratch at equal size; the forward transfer of Lopez-Paz and Ranzato (NeurIPS
2017), measured before a task is learned, is ``zero-shot``.
"""
MATRIX_TITLE = "accuracy on task j after learning i tasks, mean over clients"


@dataclass(frozen=True)
class Stream:
    """One client's stream in one arm; a score that needs what nobody measured is None.

    Attributes:
        client: partition id.
        arm: part of the run.
        matrix: R, row i after learning i + 1 tasks; None where not measured.
        average_accuracy: ACC.
        backward_transfer: BWT.
        forgetting: FGT.
        forward_transfer: accuracy on a task not learned yet (zero-shot) above that of the model as initialised.
        transfer_gain: FWT, the accuracy on a task just learned above that of the ``scratch`` arm.
        capacity: ``capacity`` of the arm's last event that has it.
    """

    client: int
    arm: str
    matrix: list[list[float | None]]
    average_accuracy: float | None
    backward_transfer: float | None
    forgetting: float | None
    forward_transfer: float | None
    transfer_gain: float | None
    capacity: float | None


def streams(events: Iterable[Mapping[str, Any]], kind: str = "strategy") -> list[Stream]:
    """Return the streams of one kind of arm, by ascending partition id.

    Args:
        events: all events of a run.
        kind: ``strategy`` or ``control``.

    Raises:
        ValueError: a client was evaluated on tasks that it did not describe.
    """
    events = list(events)
    tasks = tasks_per_client(events)
    found = _measured(events, kind)
    scratch = scratch_accuracies(events)
    table = []
    for client, (arm, entries, capacity) in sorted(found.items()):
        if client not in tasks:
            raise ValueError(f"client {client} was evaluated on a stream, but its 'client' event has no 'tasks'")
        number = len(tasks[client])
        untrained = [entries.get((0, task), math.nan) for task in range(number)]
        alone = [scratch.get(client, {}).get(task, math.nan) for task in range(number)]
        matrix = metrics.accuracy_matrix({at: value for at, value in entries.items() if at[0] > 0}, number)
        table.append(
            Stream(
                client=client,
                arm=arm,
                matrix=[[None if math.isnan(value) else value for value in row] for row in matrix.tolist()],
                average_accuracy=_if_measured(metrics.average_accuracy, matrix),
                backward_transfer=_if_measured(metrics.backward_transfer, matrix),
                forgetting=_if_measured(metrics.forgetting, matrix),
                forward_transfer=_if_measured(metrics.forward_transfer, matrix, untrained),
                transfer_gain=_if_measured(metrics.transfer_gain, matrix, alone),
                capacity=capacity,
            )
        )
    return table


def tasks_per_client(events: Iterable[Mapping[str, Any]]) -> dict[int, list[list[str]]]:
    """Return the classes of each task of the clients that have streams."""
    return {event["client"]: event["tasks"] for event in events if event["event"] == "client" and "tasks" in event}


def scratch_accuracies(events: Iterable[Mapping[str, Any]]) -> dict[int, dict[int, float]]:
    """Return each client's accuracy by task in the ``scratch`` arms; the newest counts."""
    found: dict[int, dict[int, float]] = {}
    for event in events:
        if in_stream(event) and _kind(event["arm"]) == "scratch":
            found.setdefault(event["client"], {})[event["task"]] = event["balanced_accuracy"]
    return found


def average_accuracies(events: Iterable[Mapping[str, Any]], kind: str) -> dict[int, float]:
    """Return ACC of each client that has it; for ``control`` without such an arm, the mean accuracy from scratch."""
    events = list(events)
    found = {one.client: one.average_accuracy for one in streams(events, kind) if one.average_accuracy is not None}
    if kind == "control":
        tasks = tasks_per_client(events)
        for client, alone in scratch_accuracies(events).items():
            if len(alone) == len(tasks.get(client, ())):
                found.setdefault(client, statistics.fmean(alone.values()))
    return found


def in_stream(event: Mapping[str, Any]) -> bool:
    """Say whether an event is an evaluation of a stream on the test split."""
    return event["event"] == "evaluate" and event["split"] == "test" and "after" in event


def results(events: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the entry ``streams`` of ``results.json``; None: the run has no streams.

    A mean is over the clients that have the score.
    """
    events = list(events)
    own, control = streams(events), streams(events, "control")
    if not own and not control:
        return None
    return {
        "clients": [asdict(one) for one in own],
        "control": [asdict(one) for one in control],
        "means": means(own),
        "control_means": means(control),
    }


def means(table: Sequence[Stream]) -> dict[str, float | None]:
    """Return the mean of each score over the clients that have it."""
    known = {name: [value for one in table if (value := getattr(one, name)) is not None] for name in SCORES}
    return {name: statistics.fmean(values) if values else None for name, values in known.items()}


def mean_matrix(table: Sequence[Mapping[str, Any]]) -> list[list[float | None]]:
    """Return the mean of each entry of R over the clients that have it; None: nobody has.

    >>> mean_matrix([{"matrix": [[0.5, None], [0.25, 1.0]]}, {"matrix": [[1.0, None], [None, 0.5]]}])
    [[0.75, None], [0.25, 0.75]]

    Args:
        table: ``clients`` or ``control`` of the entry ``streams``; a stream may have fewer tasks than another.
    """
    matrices = [one["matrix"] for one in table]
    tasks = range(max(map(len, matrices), default=0))
    found = [[[m[i][j] for m in matrices if max(i, j) < len(m) and m[i][j] is not None] for j in tasks] for i in tasks]
    return [[statistics.fmean(values) if values else None for values in row] for row in found]


def matrix_cells(table: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return :func:`mean_matrix` as a table, heading first: a row for each number of tasks learned; empty without streams."""
    matrix = mean_matrix(table)
    body = [[str(row + 1), *("" if one is None else f"{one:.3f}" for one in values)] for row, values in enumerate(matrix)]
    return [["learned", *(f"task {task}" for task in range(len(matrix)))], *body] if matrix else []


def cells(summary: Mapping[str, Any]) -> list[list[str]]:
    """Return a table of the entry ``streams``, heading first: its scores by client, then the means of strategy and control."""
    rows = [(str(one["client"]), one) for one in summary["clients"]]
    rows.append(("mean", summary["means"]))
    if summary["control"]:
        rows.append(("control", summary["control_means"]))
    shown = [name for name in SCORES if any(row[name] is not None for _, row in rows)]
    head = ["stream", *(SCORES[name] for name in shown)]
    return [head, *([name, *(score(row, one) for one in shown)] for name, row in rows)]


def score(row: Mapping[str, Any], name: str) -> str:
    """Write one score: with its sign, unless it is ACC or the capacity; a dash if there is none."""
    value = row[name]
    sign = "" if name in ("average_accuracy", "capacity") else "+"
    return "–" if value is None else f"{value:{sign}.3f}"


def lines(summary: Mapping[str, Any]) -> list[str]:
    """Return :func:`cells` and the mean accuracy matrix as lines of plain text, for a log."""
    matrix = matrix_cells(summary["clients"])
    scores = [" ".join(f"{cell:>9}" for cell in row) for row in cells(summary)]
    return [*scores, *([MATRIX_TITLE] if matrix else []), *(" ".join(f"{cell:>9}" for cell in row) for row in matrix)]


def _measured(events: Iterable[Mapping[str, Any]], kind: str) -> dict[int, tuple[str, Measured, float | None]]:
    """Return each client's last arm of a kind, what was measured in it, and its capacity."""
    found: dict[int, tuple[str, Measured, float | None]] = {}
    for event in events:
        if not in_stream(event) or _kind(event["arm"]) != kind:
            continue
        arm, entries, capacity = found.get(event["client"], ("", {}, None))
        if arm != event["arm"]:
            entries, capacity = {}, None
        entries[event["after"], event["task"]] = event["balanced_accuracy"]
        found[event["client"]] = (event["arm"], entries, event.get("capacity", capacity))
    return found


def _kind(arm: str) -> str:
    first = arm.split("-")[0]
    return first if first in ("control", "scratch", "without") else "strategy"


def _if_measured(score_of: Callable[..., float], *given: object) -> float | None:
    try:
        return score_of(*given)
    except metrics.NotMeasuredError:
        return None
