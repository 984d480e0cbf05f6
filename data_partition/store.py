"""What a machine keeps of a data set: its rows, class by class, and what data_partition/decoded.py makes of them.

::

    CACHE/NAME-ROOT.note           the key of the files in a folder, and the times of its folders
    CACHE/NAME-KEY/listing.json    classes, rows that cannot be used, and rows that are left out
    CACHE/NAME-KEY/rows-0.json     rows of the first class, and so on
    CACHE/NAME-KEY-64/pixels       uint8 (images, 3, 64, 64), class by class, in the order of the rows
    CACHE/NAME-KEY-64/faults.json  images that could not be decoded: black in that file
    CACHE/NAME-KEY-words-KEY/ids   int32, the token ids of all texts one after the other, and beside it where each one ends
    CACHE/NAME-KEY-deal-KEY/       which device has which training item of a class group

KEY stands for the files as they are (data_partition/tree_keys.py) and for the settings that say how they are read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from config import Data
from data_partition.cache import write_once
from data_partition.cache_folder import cache_folder
from data_partition.files import DataError
from data_partition.readers import find_reader, require, root_of
from data_partition.rows import Fault, Listing, Row
from data_partition.subgroups import Modality
from data_partition.text import clean
from data_partition.tree_keys import noted_key, stamp_of

LOG = logging.getLogger("backpack")

VERSION: Final = "2"
"""Raised with the format of the files, or when an image is decoded in another way."""


@dataclass(frozen=True)
class Store:
    """The rows of a data set on this machine.

    Attributes:
        folder: of the listing.
        root: the folder of the data files, which the paths of rows start with.
        classes: in the order of their names.
        faults: rows that the reader could not use.
        num_rows: rows that it could.
        left_out: sound rows that a rule of the reader leaves out.
        first: place of the first image and text of each class among all images and all texts; one more, for the end.
    """

    folder: Path
    root: Path
    classes: tuple[str, ...]
    faults: tuple[Fault, ...]
    num_rows: int
    first: dict[Modality, tuple[int, ...]]
    left_out: tuple[Fault, ...] = ()

    def rows(self, label: str) -> list[Row]:
        """Return the rows of a class, sorted by item; none if there is no such class."""
        return list(self._read(label)[0])

    def changed(self, label: str) -> bool:
        """Say whether a file of a class is no longer as it was when it was listed."""
        return any(stamp_of(path) != stamp for path, stamp in self._read(label)[1])

    def _read(self, label: str) -> tuple[tuple[Row, ...], tuple[tuple[str, str], ...]]:
        if label not in self.classes:
            return (), ()
        return _read_rows(self.folder / f"rows-{self.classes.index(label)}.json", self.root)

    def all_rows(self, modality: Modality) -> Iterator[Row]:
        """Yield all rows of a modality, in the order of the files of pixels and token ids."""
        return (row for label in self.classes for row in self.rows(label) if row.modality == modality)


def open_store(data: Data, again: bool = False) -> Store:
    """Return the rows of a data set, listed by the first process that asks.

    Args:
        data: the data section of the run config.
        again: look at every file for changes, not at every folder alone.

    Raises:
        DataError: files are missing or damaged, or rows contradict one another.
    """
    require(data)
    reader, root = find_reader(data.dataset), root_of(data)
    facts = (VERSION, data.dataset, data.label_rule, data.columns)
    note = hashlib.sha256("\0".join((*facts, str(root))).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    path = cache_folder() / f"{data.dataset}-{note}.note"
    key = noted_key(path, root, reader.inputs(data), *facts, again=again)
    folder = cache_folder() / f"{data.dataset}-{key}"
    return _read_store(write_once(folder, lambda part: _write_listing(part, root, reader.read(data))), root)


def kept_array(store: Store, name: str, make: Callable[[], NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return integers that follow from the rows and from the settings in ``name``, made by the first process that asks."""

    def write(part: Path) -> None:
        (part / "array.json").write_text(json.dumps(make().tolist()), encoding="utf-8")

    folder = write_once(store.folder.with_name(f"{store.folder.name}-{name}"), write)
    return np.array(json.loads((folder / "array.json").read_text(encoding="utf-8")), dtype=np.int64)


def check_faults(data: Data, num_rows: int, faults: Sequence[Fault]) -> None:
    """Refuse a data set of which too many rows cannot be used.

    Raises:
        DataError: counts them, and names the first ones.
    """
    total = num_rows + len(faults)
    if len(faults) > data.max_bad_fraction * total:
        shown = "\n".join(f"  - {fault.item} ({fault.modality}): {fault.reason}" for fault in faults[:10])
        raise DataError(
            f"data.dataset = '{data.dataset}': {len(faults):,} of {total:,} rows cannot be used ({len(faults) / total:.2%}), "
            f"and data.max-bad-fraction = {data.max_bad_fraction} allows {int(data.max_bad_fraction * total):,}:\n{shown}\n"
            "What to do: get these files again, or raise data.max-bad-fraction to leave them out."
        )


def _write_listing(part: Path, root: Path, listing: Listing) -> None:
    blank = [row for row in listing.rows if row.modality == "text" and not clean(row.text).strip()]
    told, left_out = (
        [(fault.item, fault.modality, fault.reason.replace(f"{root}{os.sep}", "")) for fault in faults]
        for faults in (listing.faults, listing.left_out)
    )
    told += [(row.item, "text", "the text has no words") for row in blank]
    rows = sorted(
        set(listing.rows).difference(blank), key=lambda row: (row.label, row.item, row.modality, row.index, row.text)
    )
    _check_items(rows)
    classes: list[str] = []
    first: dict[Modality, list[int]] = {"image": [0], "text": [0]}
    for label, group in groupby(rows, key=lambda row: row.label):
        members = list(group)
        lines = [[*astuple(row)[:5], relative(row.path, root), row.text, row.index] for row in members]
        stamps = {line[5]: stamp_of(row.path) for line, row in zip(lines, members, strict=True) if row.path}
        (part / f"rows-{len(classes)}.json").write_text(json.dumps({"rows": lines, "stamps": stamps}), encoding="utf-8")
        classes.append(label)
        for modality, places in first.items():
            places.append(places[-1] + sum(row.modality == modality for row in members))
    found = {"classes": classes, "rows": len(rows), "first": first, "faults": told, "left_out": left_out}
    (part / "listing.json").write_text(json.dumps(found), encoding="utf-8")


def relative(path: Path | None, root: Path) -> str:
    """Return a path as it is kept: a data set that is moved to another folder keeps its cache."""
    if path is None:
        return ""
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _check_items(rows: Sequence[Row]) -> None:
    """Refuse an item with two classes or in two splits: what one client tests, another one could train on."""
    labels: dict[str, str] = {}
    splits: dict[str, str] = {}
    for row in rows:
        for found, value, what in ((labels, row.label, "class"), (splits, row.split, "split")):
            if found.setdefault(row.item, value) != value:
                raise DataError(
                    f"item {row.item!r} has the {what} {found[row.item]!r} and {value!r}, expected one: the files of the data "
                    "set contradict one another."
                )


@lru_cache(maxsize=8)
def _read_store(folder: Path, root: Path) -> Store:
    told: dict[str, Any] = json.loads((folder / "listing.json").read_text(encoding="utf-8"))
    faults, left_out = (tuple(Fault(*fields) for fields in told[name]) for name in ("faults", "left_out"))
    first = {modality: tuple(places) for modality, places in told["first"].items()}
    return Store(folder, root, tuple(told["classes"]), faults, told["rows"], first, left_out)


@lru_cache(maxsize=256)
def _read_rows(path: Path, root: Path) -> tuple[tuple[Row, ...], tuple[tuple[str, str], ...]]:
    """Return the rows of a class, and path and stamp of each of their files."""
    found = json.loads(path.read_text(encoding="utf-8"))
    rows = tuple(
        Row(item, modality, label, split, domain, root / file if file else None, text, index)
        for item, modality, label, split, domain, file, text, index in found["rows"]
    )
    return rows, tuple((os.path.join(root, file), stamp) for file, stamp in found["stamps"].items())  # noqa: PTH118
