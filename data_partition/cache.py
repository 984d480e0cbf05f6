"""Folders that are written once and then read by every process of a machine.

A folder is written under another name and renamed when it is complete, so that what has the right name can be trusted: a
writer that is killed leaves a folder that nobody reads, and the next writer removes it. A lock file lets one process write
while the others wait; the system gives it back when its owner dies.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from filelock import FileLock

LARGE_FOLDER: Final = 20_000
"""Files in a folder above which the folder stands for them: to look at each of the 118,287 of COCO takes most of a second."""


def tree_key(root: Path, places: Sequence[Path], *facts: str) -> str:
    """Return a hash of path, size and time of last change of files, 16 hexadecimal digits.

    Not of their bytes: those of a data set are gigabytes, and every start of a client asks. Paths are relative, so that a copy
    of a data set with the same times has the same key.

    Of a folder with more than ``LARGE_FOLDER`` files, its own time of last change and their number are taken. That time follows
    when a file comes, goes or is replaced by another one, as unpacking and moving do, and does not when bytes are written into
    a file that stays: after that, ``touch`` the folder.

    Args:
        root: what paths are relative to.
        places: files, and folders with all that is below them; what is missing counts as such.
        facts: whatever else the content of the cache depends on.
    """
    lines = [*facts, *(line for place in places for line in _stamps(root, place))]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def write_once(folder: Path, write: Callable[[Path], None]) -> Path:
    """Return a folder, written by ``write`` if it is not there yet.

    Args:
        folder: its final name.
        write: fills the empty folder that it is given; if it raises, nothing is left.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if folder.is_dir():
            return folder
        for left_over in folder.parent.glob(f"{folder.name}.part-*"):
            shutil.rmtree(left_over, ignore_errors=True)
        part = folder.with_name(f"{folder.name}.part-{uuid.uuid4().hex[:12]}")
        part.mkdir()
        try:
            write(part)
            _flush(part)
            part.rename(folder)
        except BaseException as error:
            shutil.rmtree(part, ignore_errors=True)
            if not (isinstance(error, OSError) and folder.is_dir()):
                raise
    return folder


def _stamps(root: Path, place: Path) -> list[str]:
    """Return path, size and time of last change of a file, or of all files below a folder, one a line."""
    prefix = len(str(root)) + 1
    if not place.is_dir():
        status = place.stat() if place.exists() else None
        return [_stamp(str(place)[prefix:], status)]
    found: list[str] = []
    folders = [str(place)]
    while folders:
        folder = folders.pop()
        files: list[os.DirEntry[str]] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    folders.append(entry.path)
                else:
                    files.append(entry)
        if len(files) > LARGE_FOLDER:
            found.append(f"{folder[prefix:]}\0{len(files)} files\0{Path(folder).stat().st_mtime_ns}")
            continue
        for entry in files:
            try:
                found.append(_stamp(entry.path[prefix:], entry.stat()))
            except FileNotFoundError:  # a link to nowhere
                found.append(_stamp(entry.path[prefix:], None))
    return sorted(found)


def _stamp(path: str, status: os.stat_result | None) -> str:
    return f"{path}\0{status.st_size}\0{status.st_mtime_ns}" if status else f"{path}\0missing"


def _flush(folder: Path) -> None:
    """Bring the files of a folder to the disk, so that a power cut after the rename finds them whole."""
    for path in (*folder.iterdir(), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
