"""PAMAP2: 9 subjects with a heart rate monitor and sensors on hand, chest and ankle, 12 activities of the protocol.

A file of the protocol has one line per sample at 100 Hz, 54 numbers with blanks between them: time, activity, heart rate, and
17 columns for each of the three places: temperature, acceleration (16 g and 6 g), rotation and magnetic field along x, y and
z, and four columns of orientation, which the authors call invalid and which are left out; 40 channels are read. The heart
rate comes about every eleventh line and others are lost now and then (NaN): values in between lie on a straight line between
their neighbours in time. Every third sample is kept, 33 a second, as in the distillation of wearables by Jeon et al.; activity
0 is what is in between activities, and is left out.

A recording is a stretch of one activity, cut into parts of about half a minute: most subjects do an activity once, and
training and validation both need some of it. The folder Optional, with six more activities of some subjects, is not read.

Subjects 105 and 106 are the default test subjects, as in many uses of the data; leave one subject out by
``data.test-subjects = "101"``, and so on.

Source: Reiss & Stricker, Introducing a New Benchmarked Dataset for Activity Monitoring (ISWC 2012), and its readme.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from config import CHANNELS, Data
from data_partition.expected_files import Place, expected_tree, get
from data_partition.files import DataError
from data_partition.recordings import Recording, pieces

ACTIVITIES: Final = {
    1: "lying",
    2: "sitting",
    3: "standing",
    4: "walking",
    5: "running",
    6: "cycling",
    7: "nordic-walking",
    12: "ascending-stairs",
    13: "descending-stairs",
    16: "vacuum-cleaning",
    17: "ironing",
    24: "rope-jumping",
}
"""Numbers of the activities of the protocol."""
SUBJECTS: Final = tuple(str(number) for number in range(101, 110))
TESTED: Final = ("105", "106")
FILES: Final = {
    name: Place(
        (f"PAMAP2_Dataset/Protocol/subject{name}.dat", f"Protocol/subject{name}.dat"), "54 columns, 100 lines a second"
    )
    for name in SUBJECTS
}
COLUMNS: Final = 54
ACTIVITY, HEART_RATE, FIRST_OF_SENSORS, OF_A_SENSOR, USED = 1, 2, 3, 17, 13
KEPT: Final = (HEART_RATE, *(FIRST_OF_SENSORS + OF_A_SENSOR * place + i for place in range(3) for i in range(USED)))
"""Columns that are read."""
EVERY: Final = 3
"""One sample of so many is kept."""
PIECE: Final = 1000
"""Samples of a part of a recording, half a minute."""


def missing(data: Data) -> str:
    """Draw the expected tree with a mark at what is not there; empty: all of it is."""
    advice = "unpack PAMAP2_Dataset.zip in that folder, from https://archive.ics.uci.edu/dataset/231/pamap2+physical+activity+monitoring."
    return expected_tree(data.data_dir, list(FILES.values()), advice, "pamap2")


def inputs(data: Data) -> list[Path]:
    """Return the nine files of the protocol."""
    return [get(Path(data.data_dir).expanduser().absolute(), place) for place in FILES.values()]


def subjects(data: Data) -> tuple[str, ...]:
    """Return the numbers of the nine subjects."""
    return SUBJECTS


def tested(data: Data) -> tuple[str, ...]:
    """Return the subjects that everybody is tested on, unless the settings name others."""
    return TESTED


def classes(data: Data) -> tuple[str, ...]:
    """Return the names of the twelve activities, in the order of their numbers."""
    return tuple(ACTIVITIES.values())


def read(data: Data) -> Iterator[Recording]:
    """Yield the recordings of all subjects.

    Raises:
        DataError: a file is damaged.
    """
    for subject, path in zip(SUBJECTS, inputs(data), strict=True):
        activities, values = load(path)
        edges = np.flatnonzero(np.diff(activities)) + 1
        for number, (start, end) in enumerate(zip((0, *edges), (*edges, len(activities)), strict=True)):
            if label := ACTIVITIES.get(int(activities[start])):
                bout = Recording(f"{subject}/{number:03d}", subject, label, values[start:end:EVERY])
                yield from pieces(bout, PIECE)


def load(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the activity of each line, int64 (n,), and its channels, float32 (n, 40), without gaps.

    Raises:
        DataError: the file has other columns, an activity that is no number, or a channel without any value.
    """
    try:
        table = pd.read_csv(path, sep=r"\s+", header=None, dtype=np.float32).to_numpy()
    except ValueError as error:  # pandas raises its own kinds of it
        raise DataError(f"{path} is no table of numbers with blanks between them ({error}): unpack it again.") from None
    if table.shape[1] != COLUMNS or np.isnan(table[:, ACTIVITY]).any():
        raise DataError(
            f"{path} has {table.shape[1]} columns; expected {COLUMNS}, and an activity in each line: it was cut short, or is "
            "another file; unpack the official archive again."
        )
    values = np.stack([_without_gaps(table[:, column], name, path) for column, name in _channels()], axis=1)
    return table[:, ACTIVITY].astype(np.int64), values


def _channels() -> list[tuple[int, str]]:
    return list(zip(KEPT, CHANNELS["pamap2"], strict=True))


def _without_gaps(values: NDArray[np.float32], name: str, path: Path) -> NDArray[np.float32]:
    there = np.flatnonzero(np.isfinite(values))
    if not len(there):
        raise DataError(f"{path}: channel {name} has no value at all; unpack the official archive again.")
    return np.interp(np.arange(len(values)), there, values[there]).astype(np.float32)
