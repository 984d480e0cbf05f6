"""Recordings of body-worn sensors: what readers yield, what a machine keeps of them, and how they are cut into windows.

::

    CACHE/NAME-series-KEY/values            float32 (samples, channels) of all recordings, one after the other
    CACHE/NAME-series-KEY/recordings.json   item, subject, class, first and last sample of each

A reader of a data set is a module of its name with

    missing(data)    the expected tree of files with a mark at what is not there; empty: all of it is
    inputs(data)     the files that are read
    subjects(data)   names of the subjects
    tested(data)     subjects that everybody is tested on, unless ``data.test-subjects`` names others
    classes(data)    names of the classes
    read(data)       the recordings
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from config import CHANNELS, Data
from data_partition.cache import write_once
from data_partition.cache_folder import cache_folder
from data_partition.files import DataError
from data_partition.tree_keys import tree_key

VERSION: Final = "1"
"""Raised with the format of the files, or when a reader reads in another way."""


@dataclass(frozen=True)
class Recording:
    """One class of one subject without a break.

    Attributes:
        item: its name; splits go by it.
        subject: who wore the sensor.
        label: class name.
        values: float32 (samples, channels), in the order of ``config.CHANNELS``; not scaled.
    """

    item: str
    subject: str
    label: str
    values: NDArray[np.float32]


@dataclass(frozen=True)
class Reader:
    """The functions of a reader, as the module's docstring says."""

    missing: Callable[[Data], str]
    inputs: Callable[[Data], Sequence[Path]]
    subjects: Callable[[Data], tuple[str, ...]]
    tested: Callable[[Data], tuple[str, ...]]
    classes: Callable[[Data], tuple[str, ...]]
    read: Callable[[Data], Iterator[Recording]]


def find_reader(name: str) -> Reader:
    """Return the reader of a data set of series."""
    module = import_module(f"data_partition.{name}")
    return Reader(module.missing, module.inputs, module.subjects, module.tested, module.classes, module.read)


def open_recordings(data: Data) -> tuple[Recording, ...]:
    """Return the recordings of ``data.series``, read by the first process of the machine that asks; values stay in a file.

    Raises:
        DataError: the files are missing or damaged.
    """
    reader = find_reader(data.series)
    if told := reader.missing(data):
        raise DataError(told)
    files = reader.inputs(data)
    root = Path(os.path.commonpath([path.parent for path in files]))
    folder = cache_folder() / f"{data.series}-series-{tree_key(root, files, VERSION, data.series)}"
    return _open(write_once(folder, lambda part: _write(part, reader.read(data))), len(CHANNELS[data.series]))


def pieces(recording: Recording, samples: int) -> Iterator[Recording]:
    """Cut a long recording into equal parts of about so many samples, so that its parts may be split.

    Parts have no sample in common, but they follow one another: of a person who does a thing once, this is all there is.
    """
    number = max(1, round(len(recording.values) / samples))
    for index, values in enumerate(np.array_split(recording.values, number)):
        yield Recording(f"{recording.item}/{index:03d}", recording.subject, recording.label, values)


def windows(values: NDArray[np.float32], window: int, step: int) -> NDArray[np.float32]:
    """Return the windows (n, channels, window) of a recording, a view; n is 0 if it is too short.

    Args:
        values: (samples, channels).
        window: samples of each.
        step: from the start of one to that of the next.

    >>> windows(np.arange(5, dtype=np.float32)[:, None], 2, 2)[:, 0].tolist()
    [[0.0, 1.0], [2.0, 3.0]]
    """
    if len(values) < window:
        return np.zeros((0, values.shape[1], window), np.float32)
    return np.lib.stride_tricks.sliding_window_view(values, window, axis=0)[::step]


def _write(part: Path, recordings: Iterator[Recording]) -> None:
    told: list[tuple[str, str, str, int, int]] = []
    start = 0
    with (part / "values").open("wb") as file:
        for one in recordings:
            if not np.isfinite(one.values).all():
                raise DataError(f"recording {one.item} has values that are no finite numbers: get the files again.")
            file.write(np.ascontiguousarray(one.values, dtype=np.float32).tobytes())
            told.append((one.item, one.subject, one.label, start, start + len(one.values)))
            start += len(one.values)
    (part / "recordings.json").write_text(json.dumps(told), encoding="utf-8")


@lru_cache(maxsize=8)
def _open(folder: Path, channels: int) -> tuple[Recording, ...]:
    told = json.loads((folder / "recordings.json").read_text(encoding="utf-8"))
    if not told:
        return ()
    values = np.memmap(folder / "values", dtype=np.float32, mode="r").reshape(-1, channels)
    return tuple(Recording(item, subject, label, values[start:end]) for item, subject, label, start, end in told)
