"""Keys of folder trees: whether files are still as they were when they were read.

A key is made of path, size and time of last change of every file, not of bytes: those of a data set are gigabytes, and every
start of a client asks. Even so a tree of 24,000 files takes a tenth of a second. So a note is kept of the folders and their
times: a file that was added, removed or replaced changes the time of its folder. A file that was written over in place does
not. Of files that are named one by one the note has the stamps too; whoever uses single files of a folder compares theirs.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Final

SETTLED_NS: Final = 2_000_000_000
"""A folder that changed in the last 2 s may change again within one tick of its clock: no note is taken of it."""


def stamp_of(path: str | Path) -> str:
    """Return size and time of last change of a file, or the time of a folder; both in one text."""
    try:
        status = os.stat(path)  # noqa: PTH116  # thousands of files: to make a Path takes longer than to look
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    return f"{status.st_mtime_ns}" if stat.S_ISDIR(status.st_mode) else _file_stamp(status)


def tree_key(root: Path, places: Sequence[Path], *facts: str) -> str:
    """Return the key of files, 16 hexadecimal digits.

    Args:
        root: what paths are relative to: a copy of the files with the same times has the same key.
        places: files, and folders with all that is below them; what is missing counts as such.
        facts: whatever else belongs to the key.
    """
    return _look(root, places, facts)[0]


def noted_key(note: Path, root: Path, places: Sequence[Path], *facts: str, again: bool = False) -> str:
    """Return :func:`tree_key`, from a note where no folder has changed since it was taken.

    Args:
        note: file of the note, for this ``root`` and these ``facts`` alone; it is written as a whole or not at all.
        root: see there.
        places: see there.
        facts: see there.
        again: look at every file, whatever the note says.
    """
    told = None if again else _read_note(note)
    if told and all(stamp_of(path) == stamp for path, stamp in told["stamps"].items()):
        return str(told["key"])
    start = time.time_ns()
    key, stamps = _look(root, places, facts)
    note.unlink(missing_ok=True)
    if all(int(stamp.rpartition(" ")[2]) < start - SETTLED_NS for stamp in stamps.values() if stamp != "missing"):
        part = note.with_name(f"{note.name}.part-{uuid.uuid4().hex[:12]}")
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps({"key": key, "stamps": stamps}), encoding="utf-8")
        part.replace(note)
    return key


def _look(root: Path, places: Sequence[Path], facts: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Return the key, and the stamps of all folders and of the places that are files."""
    prefix = len(str(root)) + 1
    lines = [*facts]
    stamps: dict[str, str] = {}
    for place in places:
        found: list[str] = []
        left = [str(place)]
        while left:
            path = left.pop()
            stamps[path] = stamp_of(path)  # before its files: a change in between is seen the next time
            if stamps[path] == "missing" or " " in stamps[path]:
                found.append(f"{path[prefix:]}\0{stamps[path]}")
                continue
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.is_dir():
                        left.append(entry.path)
                    else:
                        found.append(f"{entry.path[prefix:]}\0{_entry_stamp(entry)}")
        lines += sorted(found)
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16], stamps


def _entry_stamp(entry: os.DirEntry[str]) -> str:
    try:
        return _file_stamp(entry.stat())
    except FileNotFoundError:  # a link to nowhere
        return "missing"


def _file_stamp(status: os.stat_result) -> str:
    return f"{status.st_size} {status.st_mtime_ns}"


def _read_note(note: Path) -> dict[str, dict[str, str]] | None:
    try:
        found: dict[str, dict[str, str]] = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found
