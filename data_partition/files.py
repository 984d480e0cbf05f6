"""Finding the data files from wherever the code runs.

A Flower app bundle leaves ``.parquet`` and ``.txt`` files out, so a client may run from a folder that has the code and not the
data. The files are then looked for in the project the bundle was made from.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

DISTRIBUTION: Final = "backpack-fl"
ENVIRONMENT: Final = "BACKPACK_DATA"
MODULE_FOLDER: Final = Path(__file__).resolve().parent / "emojipairs"


class DataError(FileNotFoundError):
    """Data that is missing, damaged or asked for wrongly; the message says where it was looked for and what to do."""


def project_folders() -> list[Path]:
    """Return the folder of every ``backpack-fl`` that was installed from a local folder, in the order of ``sys.path``."""
    folders: list[Path] = []
    for distribution in importlib.metadata.distributions(name=DISTRIBUTION):
        try:
            url = urlsplit(json.loads(distribution.read_text("direct_url.json") or "{}").get("url", ""))
        except json.JSONDecodeError:
            continue
        if url.scheme == "file":
            folder = Path(url2pathname(url.path))
            if folder.is_dir() and folder not in folders:
                folders.append(folder)
    return folders


def find_data_file(name: str, data_dir: str | Path = "") -> Path:
    """Find a data file.

    Args:
        name: file name without folder.
        data_dir: folder to look in, and nowhere else; empty: the folder of this package, the project folders of the
            installed distribution, then the folder named by the environment variable BACKPACK_DATA.

    Raises:
        DataError: the file is in none of the places; all of them are listed.
    """
    if str(data_dir):
        places = [Path(data_dir).expanduser()]
    else:
        places = [MODULE_FOLDER, *(folder / "data_partition" / "emojipairs" for folder in project_folders())]
        if os.environ.get(ENVIRONMENT):
            places.append(Path(os.environ[ENVIRONMENT]).expanduser())
    for place in places:
        if (place / name).is_file():
            return (place / name).resolve()
    looked_at = "\n".join(f"  - {place.absolute()}" for place in dict.fromkeys(places))
    advice = (
        "correct data.data-dir, or leave it empty to use the shipped files"
        if str(data_dir)
        else f"install the project where this client runs (pip install -e PROJECT), or set {ENVIRONMENT} or data.data-dir "
        "to a folder with the files; they are in data_partition/emojipairs of the repository"
    )
    raise DataError(f"{name} was not found in\n{looked_at}\nWhat to do: {advice}.")


def stamp(*paths: str | Path) -> tuple[tuple[int, int], ...]:
    """Return (bytes, time of last change in ns) of files, for the key of a cache: a file that was replaced is read again.

    Args:
        paths: files; one that is missing gives (-1, -1), the empty path (0, 0).
    """
    found = []
    for path in paths:
        try:
            status = Path(path).expanduser().stat() if str(path) else None
            found.append((status.st_size, status.st_mtime_ns) if status else (0, 0))
        except OSError:
            found.append((-1, -1))
    return tuple(found)


@lru_cache(maxsize=8)
def check_sha256(path: Path, expected: str) -> None:
    """Refuse a file that is not the one the code was written for; a good one is not read again in this process.

    Raises:
        DataError: the sha256 differs, as after an interrupted copy or when Git LFS left a pointer.
    """
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        hint = (
            "it is a Git LFS pointer: run git lfs pull"
            if content.startswith(b"version https://git-lfs")
            else ("it was cut short or changed: fetch it again from the repository")
        )
        raise DataError(f"{path} ({len(content)} bytes) has sha256 {found}, expected {expected}; {hint}.")
