"""Follow a run by its ``events.jsonl``: a progress bar for each arm in a terminal, one line a round elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Follower:
    """Shows what has been added to an events file since the last look."""

    def __init__(self, path: Path, console: Console) -> None:
        self.path = path
        self.console = console
        self.position = 0
        self.validation: dict[str, list[float]] = {}
        self.tasks: dict[str, TaskID] = {}
        columns = (TextColumn("{task.description:>12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.bars = Progress(*columns, TextColumn("{task.fields[note]}"), console=console) if console.is_terminal else None
        if self.bars:
            self.bars.start()

    def step(self) -> None:
        """Read the new events and show them."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self.position)
            added = file.read()
        whole = added[: added.rfind(b"\n") + 1]
        self.position += len(whole)
        for line in whole.splitlines():
            self._show(json.loads(line))

    def close(self) -> None:
        """Show the rest and leave the screen in order."""
        self.step()
        if self.bars:
            self.bars.stop()

    def _show(self, event: dict[str, Any]) -> None:
        if event["event"] == "evaluate" and event["split"] == "val":
            self.validation.setdefault(event["arm"], []).append(event["balanced_accuracy"])
        elif event["event"] == "refused":
            self.console.print(f"client {event['client']} refused in round {event['round']}: {event['reason']}")
        elif event["event"] == "round":
            self._round(event)

    def _round(self, event: dict[str, Any]) -> None:
        arm, latest = event["arm"], self.validation.pop(event["arm"], [])
        note = f"loss {event['loss']:.3f}" + (f"  validation {sum(latest) / len(latest):.3f}" if latest else "")
        if not self.bars:
            self.console.print(f"{arm:>12} round {event['round']}/{event['rounds']}  {note}")
            return
        if arm not in self.tasks:
            self.tasks[arm] = self.bars.add_task(arm, total=event["rounds"], note="")
        self.bars.update(self.tasks[arm], completed=event["round"], note=note)
