"""Images as pixels and texts as token ids, made once for a machine: a client maps the files, and decodes nothing.

The files are written and named as data_partition/store.py says.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from config import Data
from data_partition import pictures
from data_partition.cache import write_once
from data_partition.files import DataError
from data_partition.readers import Pictures, find_reader
from data_partition.rows import Fault, Row
from data_partition.store import Store, relative
from data_partition.text import PAD_ID, encode
from data_partition.vocabulary import tokenizer_of, vocabulary_of

LOG = logging.getLogger("backpack")

Writer = Callable[[int, pictures.Pixels | Fault], None]


@dataclass(frozen=True)
class Pixels:
    """Decoded images, uint8 (n, 3, S, S), in a file that all processes share, and those that could not be decoded."""

    images: NDArray[np.uint8]
    faults: tuple[Fault, ...]
    bad: frozenset[int]


@dataclass(frozen=True)
class Tokens:
    """Token ids of all texts one after the other, int32, in a file; text i is ``ids[ends[i] : ends[i + 1]]``."""

    ids: NDArray[np.int32]
    ends: NDArray[np.int64]

    def read(self, places: Sequence[int], max_tokens: int) -> NDArray[np.int64]:
        """Return some texts, int64 (n, max_tokens), cut to that length or padded with 0."""
        found = np.full((len(places), max_tokens), PAD_ID, dtype=np.int64)
        for row, place in zip(found, places, strict=True):
            ids = self.ids[self.ends[place] : self.ends[place + 1]][:max_tokens]
            row[: len(ids)] = ids
        return found


def open_pixels(data: Data, store: Store) -> Pixels:
    """Return the pixels of all images, decoded by the first process that asks.

    Raises:
        DataError: the disk has no room for them.
    """
    side = data.image_side
    folder = store.folder.with_name(f"{store.folder.name}-{side}")
    decoder = find_reader(data.dataset).pictures
    found = _read_pixels(write_once(folder, lambda part: _write_pixels(part, store, side, decoder)), side)
    if len(found.images) != store.first["image"][-1]:
        raise DataError(f"{folder} was changed after it was written: delete it.")
    return found


def open_tokens(data: Data, store: Store) -> Tokens:
    """Return the token ids of all texts, encoded by the first process that asks.

    Raises:
        DataError: the vocabulary is missing or is another one.
    """
    path = vocabulary_of(data)
    key = hashlib.sha256(path.read_bytes()).hexdigest()[:16]

    def write(part: Path) -> None:
        tokenizer = tokenizer_of(data)
        ends = [0]
        with (part / "ids").open("wb") as file:
            for label in store.classes:
                texts = [row.text for row in store.rows(label) if row.modality == "text"]
                for ids in encode(texts, tokenizer):
                    length = np.count_nonzero(ids)  # padding is 0 and on the right
                    file.write(ids[:length].astype(np.int32).tobytes())
                    ends.append(ends[-1] + int(length))
        np.array(ends, dtype=np.int64).tofile(part / "ends")

    return _read_tokens(write_once(store.folder.with_name(f"{store.folder.name}-words-{key}"), write))


def _write_pixels(part: Path, store: Store, side: int, decoder: Pictures | None) -> None:
    rows = list(store.all_rows("image"))
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
        return Fault(row.item, "image", f"{relative(row.path, root)} is not there")
    except pictures.BadPictureError as error:
        return Fault(row.item, "image", f"{relative(row.path, root)}: {error}")


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
def _read_pixels(folder: Path, side: int) -> Pixels:
    told = json.loads((folder / "faults.json").read_text(encoding="utf-8"))
    path, each = folder / "pixels", 3 * side * side
    empty = path.stat().st_size == 0
    images = np.zeros(0, np.uint8) if empty else np.memmap(path, dtype=np.uint8, mode="r")
    faults = tuple(Fault(*fields) for _, *fields in told)
    return Pixels(
        images[: images.size // each * each].reshape(-1, 3, side, side), faults, frozenset(place for place, *_ in told)
    )


@lru_cache(maxsize=8)
def _read_tokens(folder: Path) -> Tokens:
    ends = np.fromfile(folder / "ends", dtype=np.int64)
    return Tokens(np.memmap(folder / "ids", dtype=np.int32, mode="r") if ends[-1] else np.zeros(0, np.int32), ends)
