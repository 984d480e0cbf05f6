"""Folders that are written once and then read by every process of a machine.

A folder is written under another name and renamed when it is complete, so that what has the right name can be trusted: a
writer that is killed leaves a folder that nobody reads, and the next writer removes it. A lock file lets one process write
while the others wait; the system gives it back when its owner dies.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock


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


def _flush(folder: Path) -> None:
    """Bring the files of a folder to the disk, so that a power cut after the rename finds them whole."""
    for path in (*folder.iterdir(), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
