"""Checkpoints of one task in training: numbered records, of which the newest complete one counts.

A record is written under a new number before the one before it is removed, so a crash at any time leaves one to go on from.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.arrays import Arrays
from models.storage import load_record, remove_record, save_record


def save(folder: Path, task: int, step: int, arrays: Arrays, facts: Mapping[str, Any]) -> None:
    """Write a checkpoint and remove all others of the task.

    Args:
        folder: of one client; it may hold other tasks.
        task: id.
        step: number of the checkpoint, above those written before.
        arrays: tensors.
        facts: JSON.
    """
    save_record(folder / _name(task, step), arrays, facts)
    for other in steps(folder, task):
        if other != step:
            remove_record(folder / _name(task, other))


def load(folder: Path, task: int) -> tuple[Arrays, dict[str, Any]] | None:
    """Return the newest checkpoint of a task; None: there is none.

    Raises:
        StorageError: it is damaged.
    """
    found = steps(folder, task)
    return load_record(folder / _name(task, found[-1])) if found else None


def steps(folder: Path, task: int) -> list[int]:
    """Return the numbers of the complete checkpoints of a task, ascending."""
    prefix = f"task-{task}-"
    return sorted(int(path.stem.removeprefix(prefix)) for path in folder.glob(f"{prefix}*.json"))


def clear(folder: Path, task: int) -> None:
    """Remove all checkpoints of a task."""
    for step in steps(folder, task):
        remove_record(folder / _name(task, step))


def _name(task: int, step: int) -> str:
    return f"task-{task}-{step:04d}"
