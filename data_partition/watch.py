"""Shoulder exercises by smart watch: 140 recordings of 10 subjects, 7 exercises, each with the left and the right arm.

Acceleration (ax, ay, az) and rotation (wx, wy, wz) at 50 Hz, 947 to 2,618 samples a recording. The data are a file of the
package seglearn, which is read where the package is installed, without importing it, or from ``data.data-dir``. It is an array
of numpy that holds a pickle, and reading a pickle may run code: its sha256 is checked first, so that nothing is read but the
file that seglearn 1.2.5 published.

Subjects 9 and 10 are the default test subjects: our choice, as the data have no split of their own.

Source: Burns et al., Shoulder physiotherapy exercise recognition: machine learning the inertial signals from a smartwatch
(Physiological Measurement 2018, arXiv:1802.01489); seglearn (Burns & Whyne, JMLR 2018), BSD 3-clause.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np

from config import CHANNELS, Data
from data_partition.expected_files import Place, expected_tree
from data_partition.files import DataError, check_sha256
from data_partition.recordings import Recording

FILE: Final = "watch_dataset.npy"
IN_PACKAGE: Final = f"seglearn/data/{FILE}"
SHA256: Final = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
CLASSES: Final = ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")
"""Pendulum, abduction, forward elevation, internal and external rotation, trapezius extension, upright row."""
SUBJECTS: Final = tuple(str(number) for number in range(1, 11))
TESTED: Final = ("9", "10")


def missing(data: Data) -> str:
    """Say where the file is looked for; empty: it is there."""
    advice = "pip install --no-deps seglearn==1.2.5 (or the extra: pip install -e '.[series]')"
    if data.dataset == "watch" and data.data_dir:
        return expected_tree(data.data_dir, [Place((FILE,), "140 recordings")], f"{advice}, and empty data.data-dir.", "watch")
    if _installed():
        return ""
    return (
        f"the data set 'watch' is the file {IN_PACKAGE} of the package seglearn, which is not installed. What to do: "
        f"{advice}, or put that file into a folder and set data.data-dir to it."
    )


def inputs(data: Data) -> list[Path]:
    """Return the one file."""
    return [_path(data)]


def subjects(data: Data) -> tuple[str, ...]:
    """Return the names of the ten subjects."""
    return SUBJECTS


def tested(data: Data) -> tuple[str, ...]:
    """Return the subjects that everybody is tested on, unless the settings name others."""
    return TESTED


def classes(data: Data) -> tuple[str, ...]:
    """Return the names of the seven exercises."""
    return CLASSES


def read(data: Data) -> Iterator[Recording]:
    """Yield the recordings in the order of subjects.

    Raises:
        DataError: the file is not the one that seglearn 1.2.5 published, or holds something else than is known of it.
    """
    path = _path(data)
    try:
        check_sha256(path, SHA256)
    except DataError as error:
        raise DataError(f"{error} The data set 'watch' is that of seglearn 1.2.5, and no other file is opened.") from None
    found: dict[str, Any] = np.load(path, allow_pickle=True).item()  # of a known sha256
    if tuple(found["y_labels"]) != CLASSES or tuple(found["X_labels"]) != CHANNELS["watch"]:
        raise DataError(f"{path} names the classes {found['y_labels']} and channels {found['X_labels']}; expected {CLASSES}.")
    order = sorted(range(len(found["X"])), key=lambda index: (int(found["subject"][index]), index))
    for index in order:
        subject, label = str(int(found["subject"][index])), CLASSES[int(found["y"][index])]
        values = np.asarray(found["X"][index], dtype=np.float32)
        yield Recording(f"{int(subject):02d}/{label}/{index:03d}", subject, label, values)


def _path(data: Data) -> Path:
    if data.dataset == "watch" and data.data_dir:
        return Path(data.data_dir).expanduser().absolute() / FILE
    return _installed() or Path(IN_PACKAGE)


def _installed() -> Path | None:
    """Return the file of the installed package, which is not imported: it would need packages that this project does not."""
    try:
        path = Path(str(metadata.distribution("seglearn").locate_file(IN_PACKAGE)))
    except metadata.PackageNotFoundError:
        return None
    return path if path.is_file() else None
