"""The tree of files that a data set is expected in, drawn with a mark at what is not there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from data_partition.files import DataError

NOT_FOUND: Final = "   <- not found"


@dataclass(frozen=True)
class Place:
    """A file or folder of a data set.

    Attributes:
        names: paths inside the data folder; any one of them will do, the first is the official one.
        note: what is in it, for the drawing.
    """

    names: tuple[str, ...]
    note: str = ""


def find(root: Path, place: Place) -> Path | None:
    """Return the first name of a place that exists; None: there is none."""
    return next((root / name for name in place.names if (root / name).exists()), None)


def get(root: Path, place: Place) -> Path:
    """Return the first name of a place that exists, after :func:`require` found that one does."""
    return find(root, place) or root / place.names[0]


def expected_tree(data_dir: str, places: Sequence[Place], advice: str, dataset: str) -> str:
    """Draw the expected tree; empty: all of it is there.

    Args:
        data_dir: ``data.data-dir``; empty: nothing is there.
        places: what is expected.
        advice: what to do about it.
        dataset: ``data.dataset``.
    """
    root = Path(data_dir).expanduser().absolute()
    found = [bool(data_dir) and find(root, place) is not None for place in places]
    if all(found):
        return ""
    start = (
        f"data.dataset = '{dataset}' was not found in data.data-dir = '{data_dir}'."
        if data_dir
        else f"data.dataset = '{dataset}' needs data.data-dir, which is empty."
    )
    width = max(len(" or ".join(place.names)) for place in places)
    lines = [
        f"    {' or '.join(place.names):{width}}   {place.note}".rstrip() + ("" if there else NOT_FOUND)
        for place, there in zip(places, found, strict=True)
    ]
    return "\n".join((f"{start} Expected:", f"  {root if data_dir else 'DATA-DIR'}/", *lines, f"What to do: {advice}"))


def require(tree: str) -> None:
    """Raise the drawing of a tree, if there is one.

    Raises:
        DataError: something is not there.
    """
    if tree:
        raise DataError(tree)


def names_in(folder: Path) -> frozenset[str]:
    """Return the names in a folder, read in one go: quicker than to ask for one file after the other."""
    return frozenset(entry.name for entry in os.scandir(folder))
