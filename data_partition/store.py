"""What a machine keeps of a data set: its rows, class by class, and the pixels of all its images, decoded once.

::

    CACHE/NAME-KEY/listing.json    classes, and rows that cannot be used
    CACHE/NAME-KEY/rows-0.json     rows of the first class, and so on
    CACHE/NAME-KEY-64/pixels       uint8 (images, 3, 64, 64), class by class, in the order of the rows
    CACHE/NAME-KEY-64/faults.json  images that could not be decoded: black in that file
    CACHE/NAME-KEY-deal-KEY/       which device has which training item of a class group

KEY stands for the files as they are (:func:`data_partition.cache.tree_key`) and for the settings that say how they are read.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from config import Data
from data_partition import pictures
from data_partition.cache import tree_key, write_once
from data_partition.cache_folder import cache_folder
from data_partition.files import DataError
from data_partition.readers import Pictures, find_reader, require, root_of
from data_partition.rows import Fault, Listing, Row
from data_partition.text import clean

LOG = logging.getLogger("backpack")

VERSION: Final = "1"
"""Raised with the format of the files, or when an image is decoded in another way."""

Writer = Callable[[int, "pictures.Pixels | Fault"], None]


@dataclass(frozen=True)
class Store:
    """The rows of a data set on this machine.

    Attributes:
        folder: of the listing.
        root: the folder of the data files, which the paths of rows start with.
        classes: in the order of their names.
        faults: rows that the reader could not use.
        num_rows: rows that it could.
        first_image: place of the first image of each class in the file of pixels; one more, for the end.
    """

    folder: Path
    root: Path
    classes: tuple[str, ...]
    faults: tuple[Fault, ...]
    num_rows: int
    first_image: tuple[int, ...]

    def rows(self, label: str) -> list[Row]:
        """Return the rows of a class, sorted by item; none if there is no such class."""
        if label not in self.classes:
            return []
        return list(_read_rows(self.folder / f"rows-{self.classes.index(label)}.json", self.root))

    def image_rows(self) -> Iterator[Row]:
        """Yield all images in the order of the file of pixels."""
        return (row for label in self.classes for row in self.rows(label) if row.modality == "image")


@dataclass(frozen=True)
class Pixels:
    """Decoded images, uint8 (n, 3, S, S), in a file that all processes share, and those that could not be decoded."""

    images: NDArray[np.uint8]
    faults: tuple[Fault, ...]
    bad: frozenset[int]


def open_store(data: Data) -> Store:
    """Return the rows of a data set, listed by the first process that asks.

    Raises:
        DataError: files are missing or damaged, or rows contradict one another.
    """
    require(data)
    reader, root = find_reader(data.dataset), root_of(data)
    key = tree_key(root, reader.inputs(data), VERSION, data.dataset, data.label_rule, data.columns)
    folder = cache_folder() / f"{data.dataset}-{key}"
    return _read_store(write_once(folder, lambda part: _write_listing(part, root, reader.read(data))), root)


def open_pixels(data: Data, store: Store) -> Pixels:
    """Return the pixels of all images, decoded by the first process that asks.

    Raises:
        DataError: the disk has no room for them.
    """
    side = data.image_side
    folder = store.folder.with_name(f"{store.folder.name}-{side}")
    decoder = find_reader(data.dataset).pictures
    found = _read_pixels(write_once(folder, lambda part: _write_pixels(part, store, side, decoder)), side)
    if len(found.images) != store.first_image[-1]:
        raise DataError(f"{folder} was changed after it was written: delete it.")
    return found


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
    told = [(fault.item, fault.modality, fault.reason.replace(f"{root}{os.sep}", "")) for fault in listing.faults]
    told += [(row.item, "text", "the text has no words") for row in blank]
    rows = sorted(
        set(listing.rows).difference(blank), key=lambda row: (row.label, row.item, row.modality, row.index, row.text)
    )
    _check_items(rows)
    classes: list[str] = []
    images = [0]
    for label, group in groupby(rows, key=lambda row: row.label):
        members = list(group)
        lines = [[*astuple(row)[:5], _relative(row.path, root), row.text, row.index] for row in members]
        (part / f"rows-{len(classes)}.json").write_text(json.dumps(lines), encoding="utf-8")
        classes.append(label)
        images.append(images[-1] + sum(row.modality == "image" for row in members))
    found = {"classes": classes, "rows": len(rows), "images": images, "faults": told}
    (part / "listing.json").write_text(json.dumps(found), encoding="utf-8")


def _relative(path: Path | None, root: Path) -> str:
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


def _write_pixels(part: Path, store: Store, side: int, decoder: Pictures | None) -> None:
    rows = list(store.image_rows())
    each = 3 * side * side
    if (free := shutil.disk_usage(part).free) < len(rows) * each:
        raise DataError(
            f"{len(rows):,} decoded images need {len(rows) * each / 2**30:.1f} GiB in {part.parent}, found {free / 2**30:.1f} "
            "GiB free: set the environment variable BACKPACK_CACHE to a folder on another disk."
        )
    if rows:
        LOG.info("decoding %d images to %d x %d pixels, once for this machine", len(rows), side, side)
    faults: dict[int, Fault] = {}
    handle = os.open(part / "pixels", os.O_RDWR | os.O_CREAT)
    try:
        os.ftruncate(handle, len(rows) * each)

        def put(place: int, found: pictures.Pixels | Fault) -> None:
            if isinstance(found, Fault):
                faults[place] = found
            else:
                os.pwrite(handle, found.tobytes(), place * each)

        places = sorted(range(len(rows)), key=lambda place: (rows[place].index >= 0, str(rows[place].path), rows[place].index))
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            for one_file, members in groupby(places, key=lambda place: rows[place].index >= 0 and rows[place].path):
                if one_file:
                    assert decoder is not None, "rows with an index need the reader's function pictures()"
                    _decode_array_file(Path(one_file), list(members), rows, side, decoder, put)
                else:
                    list(pool.map(lambda place: put(place, _decode_file(rows[place], store.root, side)), members))
    finally:
        os.close(handle)
    told = [[place, *astuple(faults[place])] for place in sorted(faults)]  # without the folder: it may be told to a server
    (part / "faults.json").write_text(json.dumps(told), encoding="utf-8")


def _decode_file(row: Row, root: Path, side: int) -> pictures.Pixels | Fault:
    try:
        return pictures.decode((row.path or Path()).read_bytes(), side)
    except FileNotFoundError:
        return Fault(row.item, "image", f"{_relative(row.path, root)} is not there")
    except pictures.BadPictureError as error:
        return Fault(row.item, "image", f"{_relative(row.path, root)}: {error}")


def _decode_array_file(
    path: Path, places: Sequence[int], rows: Sequence[Row], side: int, decoder: Pictures, put: Writer
) -> None:
    found = decoder(path, [rows[place].index for place in places])
    for place, picture in zip(places, found, strict=True):
        try:
            put(place, pictures.decode(picture, side) if isinstance(picture, bytes) else pictures.scale(picture, side))
        except pictures.BadPictureError as error:
            put(place, Fault(rows[place].item, "image", f"{path.name}, image {rows[place].index}: {error}"))


@lru_cache(maxsize=8)
def _read_store(folder: Path, root: Path) -> Store:
    told: dict[str, Any] = json.loads((folder / "listing.json").read_text(encoding="utf-8"))
    faults = tuple(Fault(*fields) for fields in told["faults"])
    return Store(folder, root, tuple(told["classes"]), faults, told["rows"], tuple(told["images"]))


@lru_cache(maxsize=256)
def _read_rows(path: Path, root: Path) -> tuple[Row, ...]:
    found = json.loads(path.read_text(encoding="utf-8"))
    return tuple(
        Row(item, modality, label, split, domain, root / file if file else None, text, index)
        for item, modality, label, split, domain, file, text, index in found
    )


@lru_cache(maxsize=8)
def _read_pixels(folder: Path, side: int) -> Pixels:
    told = json.loads((folder / "faults.json").read_text(encoding="utf-8"))
    path, each = folder / "pixels", 3 * side * side
    empty = path.stat().st_size == 0
    images = np.zeros(0, np.uint8) if empty else np.memmap(path, dtype=np.uint8, mode="r")
    faults = tuple(Fault(*fields) for _, *fields in told)
    return Pixels(
        images[: images.size // each * each].reshape(-1, 3, side, side), faults, frozenset(place for place, *_ in told)
    )
