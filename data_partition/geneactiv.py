"""GENEActiv: recordings of a wrist-worn accelerometer, as its software exports them, in folders by subject and activity.

::

    DATA-DIR/geneactiv/SUBJECT/ACTIVITY/NAME.csv

An export (comma-separated) begins with about a hundred lines about the device, of which the one with ``Measurement
Frequency`` is looked at. Each further line is a sample: time, x, y and z in g, light, button, temperature. Lines are samples
from the first that begins with a time such as ``2012-05-23 16:47:50:000``. Acceleration alone is read, at the rate of the
device, which is to be the same for all: 100 Hz in the data that this layout is made for, with windows of 500 samples.

The names of activity folders are the classes, in the order of their names; a subject need not have all of them. Recordings
are cut into parts of about half a minute, as most subjects do an activity once, and training and validation both need some of
it. The last fifth of the subjects, in the order of their names, are the default test subjects.

The recordings of 14 activities that Jeon et al. (IEEE Internet of Things Journal 2022) distil on are not public: this reads
the format of the device, and was not tried on them.

Source: the format that the software of the device (Activinsights) writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from config import CHANNELS, Data
from data_partition.expected_files import Place, expected_tree
from data_partition.files import DataError
from data_partition.recordings import Recording, pieces

TREE: Final = Place(("geneactiv/SUBJECT/ACTIVITY/NAME.csv",), "exports of the device's software")
TIME: Final = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[:.]\d{3},")
FREQUENCY: Final = re.compile(r"Measurement Frequency\s*[,:]\s*([\d.]+)")
HEADER: Final = 200
"""Lines in which the first sample has to be."""
SECONDS: Final = 30
"""Length of a part of a recording."""
RATE: Final = 100.0
"""Samples a second where an export does not name them."""


def missing(data: Data) -> str:
    """Draw the expected tree with a mark at what is not there; empty: there are recordings."""
    advice = (
        "export the recordings as CSV with the software of the device, one file or more for each subject and activity, and "
        "put them into folders as above."
    )
    return "" if _files(data) else expected_tree(data.data_dir, [TREE], advice, "geneactiv")


def inputs(data: Data) -> list[Path]:
    """Return the exports, sorted."""
    return _files(data)


def subjects(data: Data) -> tuple[str, ...]:
    """Return the names of the folders of subjects.

    Raises:
        DataError: there are none.
    """
    return tuple(sorted({path.parent.parent.name for path in _required(data)}))


def tested(data: Data) -> tuple[str, ...]:
    """Return the subjects that everybody is tested on, unless the settings name others."""
    known = subjects(data)
    return known[-max(1, len(known) // 5) :]


def classes(data: Data) -> tuple[str, ...]:
    """Return the names of the folders of activities.

    Raises:
        DataError: there are none.
    """
    return tuple(sorted({path.parent.name for path in _required(data)}))


def read(data: Data) -> Iterator[Recording]:
    """Yield the recordings of all subjects.

    Raises:
        DataError: a file is no export of the device, or they differ in their rate.
    """
    rates: dict[float, Path] = {}
    for path in _required(data):
        rate, values = load(path)
        rates.setdefault(rate, path)
        if len(rates) > 1:
            (one, first), (other, second) = list(rates.items())[:2]
            raise DataError(f"{first} has {one:g} samples a second and {second} has {other:g}: expected one rate for all.")
        subject, label = path.parent.parent.name, path.parent.name
        yield from pieces(Recording(f"{subject}/{label}/{path.stem}", subject, label, values), round(SECONDS * rate))


def load(path: Path) -> tuple[float, NDArray[np.float32]]:
    """Return the samples a second of an export, and its acceleration in g, float32 (n, 3).

    Raises:
        DataError: no line of the first 200 begins with a time, or a line has no three numbers behind it.
    """
    rate, first = RATE, -1
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in zip(range(HEADER), file, strict=False):
            if TIME.match(line):
                first = number
                break
            if found := FREQUENCY.search(line):
                rate = float(found[1])
    if first < 0:
        raise DataError(
            f"{path}: none of its first {HEADER} lines begins with a time such as 2012-05-23 16:47:50:000; expected an export "
            "of the GENEActiv software (comma-separated, raw data)."
        )
    columns = list(range(1, 1 + len(CHANNELS["geneactiv"])))
    try:
        table = pd.read_csv(path, header=None, skiprows=first, usecols=columns, dtype=np.float32)
    except ValueError as error:
        raise DataError(f"{path} has a line without time, x, y and z ({error}): export it again.") from None
    return rate, table.to_numpy()


def _required(data: Data) -> list[Path]:
    if told := missing(data):
        raise DataError(told)
    return _files(data)


def _files(data: Data) -> list[Path]:
    if not data.data_dir:
        return []
    return sorted((Path(data.data_dir).expanduser().absolute() / "geneactiv").glob("*/*/*.csv"))
