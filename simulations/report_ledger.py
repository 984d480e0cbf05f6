"""What crossed in a run, and what went wrong: byte ledger, warnings and refused replies of the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from simulations.report_html import Html, count, megabytes, number, table, tag, word

Event = Mapping[str, Any]


@dataclass
class Crossed:
    """Sum over messages; bytes are payload of shared tensors down and up, framing is all else."""

    messages: int = 0
    down: float = 0.0
    up: float = 0.0
    framing: float = 0.0
    seconds: float = 0.0

    def add(self, event: Event) -> None:
        """Count one message; its seconds are added by the caller."""
        self.messages += 1
        self.down += _bytes(event, "bytes_down")
        self.up += _bytes(event, "bytes_up")
        self.framing += _bytes(event, "framing_down") + _bytes(event, "framing_up")

    def cells(self) -> list[str]:
        """Return messages, MB down, MB up and framing MB."""
        return [count(self.messages), *map(megabytes, (self.down, self.up, self.framing))]


def ledger(events: Sequence[Event]) -> list[Html]:
    """Return the table by arm and type of message, and that by client; nothing without messages."""
    kinds, clients = by_kind(events), by_client(events)
    if not kinds:
        return []
    head = ["messages", "MB down", "MB up", "framing MB"]
    rows = [[arm, kind, *one.cells(), f"{one.seconds:,.1f}"] for (arm, kind), one in kinds.items()]
    whole = Crossed(*(sum(values) for values in zip(*map(astuple, kinds.values()), strict=True)))
    rows.append(["all", "", *whole.cells(), f"{whole.seconds:,.1f}"])
    told = "Down: from server to client. Seconds: how long the server waited; of messages sent together the slowest counts."
    return [
        table(["arm", "type", *head, "seconds"], rows, words=("arm", "type"), classes={len(rows) - 1: "mean"}),
        tag("p", told, class_="soft"),
        tag("h3", "By client, all arms"),
        table(["client", *head], [[str(client), *one.cells()] for client, one in clients.items()]),
    ]


def by_kind(events: Iterable[Event]) -> dict[tuple[str, str], Crossed]:
    """Sum the messages by arm and type.

    Messages that follow one another with the same arm, type and round, each to another client, were sent together, and the
    server waited for the slowest.
    """
    found: dict[tuple[str, str], Crossed] = {}
    request: tuple[object, ...] | None = None
    asked: set[object] = set()
    slowest = 0.0
    for event in events:
        if event["event"] == "refused":
            continue
        if event["event"] != "message":
            request = None
            continue
        kind = (str(event.get("arm")), str(event.get("type")))
        one = found.setdefault(kind, Crossed())
        one.add(event)
        if request != (*kind, event.get("round")) or event.get("client") in asked:
            request, asked, slowest = (*kind, event.get("round")), set(), 0.0
        asked.add(event.get("client"))
        seconds = max(slowest, _bytes(event, "seconds"))
        one.seconds += seconds - slowest
        slowest = seconds
    return found


def by_client(events: Iterable[Event]) -> dict[object, Crossed]:
    """Sum the messages of each client, by ascending partition id."""
    found: dict[object, Crossed] = {}
    for event in events:
        if event["event"] == "message":
            found.setdefault(event.get("client"), Crossed()).add(event)
    return dict(sorted(found.items(), key=lambda item: (number(item[0]) or 0.0, str(item[0]))))


def faults(events: Sequence[Event]) -> list[Html]:
    """Return the warnings and the refused replies, in order; with the targets that refused a donor."""
    parts = []
    for event_name, title, columns in (
        ("warning", "Warnings", ("client", "text")),
        ("refused", "Refused replies", ("arm", "round", "client", "type", "target", "reason")),
    ):
        found = [event for event in events if event["event"] == event_name]
        shown = [name for name in columns if name != "target" or any("target" in event for event in found)]
        if found:
            rows = [[word(event.get(name)) for name in shown] for event in found]
            parts += [tag("h3", title), table(shown, rows, words=("arm", "type", "text", "reason"))]
    return parts


def _bytes(event: Event, name: str) -> float:
    return number(event.get(name)) or 0.0
