"""Continual learning in the report: accuracy matrices and scores of streams, and what happened inside each client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from server import continual_summary
from simulations.report_figures import Matrix, Part, heat_map, legend, stacked_bars
from simulations.report_html import NONE, Html, count, decimals, details, join, number, table, tag, word

Event = Mapping[str, Any]
MEANINGS = {
    "average_accuracy": "mean accuracy over all tasks at the end of the stream.",
    "backward_transfer": "what later tasks did to a task since it was learned; below 0 is forgetting.",
    "forgetting": "how far a task fell from its best earlier accuracy; 0 is none.",
    "transfer_gain": "accuracy on a task just learned above that of a fresh model of equal size that learned it alone.",
    "forward_transfer": "accuracy on the next task before it is learned, above that of the model as initialised.",
    "capacity": "parameters stored for all tasks, as a multiple of those of one model for one task.",
}
"""What each score of :data:`server.continual_summary.SCORES` says."""
FACT, NOTE = "continual", "continual-note"
ALWAYS = ("task", "state", "stage", "ratio", "validation", "owned", "free")
SOMETIMES = ("goal", "loss", "growths", "picked", "width")
"""Columns of a client's facts that are there if one of them has a value."""
FRACTIONS, COUNTS = ("ratio", "validation", "goal", "loss"), ("owned", "free", "picked")


def streams(summary: Mapping[str, Any] | None) -> list[Html]:
    """Return matrices and scores of the entry ``streams`` of the results; nothing without it."""
    if not summary:
        return []
    arms = {"strategy": summary["clients"], "matched control": summary["control"]}
    means = [
        tag("figure", tag("figcaption", name), _matrix(continual_summary.mean_matrix(one), f"{name}, mean over clients"))
        for name, one in arms.items()
        if one
    ]
    each = [
        tag(
            "figure",
            tag("figcaption", f"client {row['client']}, {row['arm']}"),
            _matrix(row["matrix"], f"client {row['client']}"),
        )
        for one in arms.values()
        for row in one
    ]
    head, *body = continual_summary.cells(summary)
    shown = [name for name, heading in continual_summary.SCORES.items() if heading in head]
    told = [part for name in shown for part in (tag("dt", continual_summary.SCORES[name]), tag("dd", MEANINGS[name]))]
    last = {number_: "mean" for number_, row in enumerate(body) if not row[0].isdigit()}
    what = (
        "Test balanced accuracy on each task (column, from 0) after learning so many tasks (row), mean over clients. Framed: "
    )
    return [
        tag("p", f"{what}the task just learned. Blank: not measured."),
        tag("div", join(means), class_="side"),
        details("each client", tag("div", join(each), class_="side")),
        table(head, body, classes=last),
        tag("dl", join(told)),
    ]


def _matrix(matrix: Matrix, label: str) -> Html:
    tasks = range(len(matrix))
    rows = [f"{learned + 1} learned" for learned in tasks]
    return heat_map(
        matrix, rows, [f"task {task}" for task in tasks], f"accuracy matrix, {label}", {(task, task) for task in tasks}
    )


def timeline(events: Iterable[Event]) -> list[Html]:
    """Return who owns the weights of each client, and a table of facts for each; nothing without such events."""
    clients = facts_by_client(events)
    if not clients:
        return []
    names = {where: _name(where, clients) for where in clients}
    owned = {names[where]: bar for where, facts in clients.items() if (bar := owned_weights(facts))}
    parts: list[Html] = []
    if owned:
        tasks = {part.name: part.colour for one in owned.values() for part in one}
        ordered = sorted(tasks.items(), key=lambda item: (item[1] is None, item[1] or 0))
        caption = tag("figcaption", "Weights that each task owns, and free ones, after the last fact of each client")
        parts.append(tag("figure", caption, legend(ordered), stacked_bars(list(owned.items()), "owned weights by client")))
    return [*parts, *(details(_heading(names[where], facts), facts_table(facts)) for where, facts in clients.items())]


def facts_by_client(events: Iterable[Event]) -> dict[tuple[object, object], list[Event]]:
    """Return facts and notes in order, by (client, arm)."""
    found: dict[tuple[object, object], list[Event]] = {}
    for event in events:
        if event["event"] in (FACT, NOTE):
            found.setdefault((event.get("client"), event.get("arm")), []).append(event)
    return dict(sorted(found.items(), key=lambda item: (number(item[0][0]) or 0.0, str(item[0]))))


def owned_weights(facts: Iterable[Event]) -> list[Part]:
    """Return the weights of each task as its last fact tells them, and the free ones of the last fact that counts them."""
    owned: dict[int, float] = {}
    free = None
    for fact in facts:
        task, value, left = (number(fact.get(name)) for name in ("task", "owned", "free"))
        if task is not None and value is not None:
            owned[int(task)] = max(value, 0.0)
        free = free if left is None else max(left, 0.0)
    parts = [Part(f"task {task}", value, max(task, 0)) for task, value in sorted(owned.items())]
    return [*parts, *([Part("free", free, None)] if free is not None else [])]


def facts_table(facts: Sequence[Event]) -> Html:
    """Return the facts of one client in order; notes are marked."""
    columns = [*ALWAYS, *(name for name in SOMETIMES if any(fact.get(name) is not None for fact in facts))]
    rows = [[_cell(fact, name) for name in columns] for fact in facts]
    notes = {index: "note" for index, fact in enumerate(facts) if fact["event"] == NOTE}
    return table(columns, rows, words=("state", "width"), classes=notes)


def _cell(fact: Event, name: str) -> str:
    value = fact.get(name)
    if name == "state" and fact["event"] == NOTE:
        return f"note: {word(fact.get('note'))}"
    if name == "width" and isinstance(value, Mapping):
        return ", ".join(f"{seam} {units}" for seam, units in value.items()) or NONE
    if number(value) is None:
        return word(value)
    return decimals(value) if name in FRACTIONS else count(value) if name in COUNTS else word(value)


def _name(where: tuple[object, object], every: Iterable[tuple[object, object]]) -> str:
    client, arm = where
    several = sum(other == client for other, _ in every) > 1
    return f"client {word(client)}{f', {arm}' if several else ''}"


def _heading(name: str, facts: Sequence[Event]) -> str:
    methods = dict.fromkeys(str(fact["method"]) for fact in facts if fact.get("method") is not None)
    notes = sum(fact["event"] == NOTE for fact in facts)
    told = [name, *methods, f"facts: {len(facts) - notes}", *([f"notes: {notes}"] if notes else [])]
    return ", ".join(told)
