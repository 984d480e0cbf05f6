"""CIFAR-10 from its official version for Python: 10 classes, 5,000 training and 1,000 test images each, 32 x 32 pixels.

A batch is a pickle with ``data``, uint8 (10,000, 3,072), each row the red, the green and the blue plane from left to right and
from top to bottom, and ``labels``, a list of as many numbers from 0 to 9. Pickles are read by data_partition/pickles.py, which
runs nothing. The test batch is the test split; the client groups are pairs of consecutive classes, in groups/cifar10.toml.

Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from config import Data
from data_partition.expected_files import Place, expected_tree, get, require
from data_partition.files import DataError
from data_partition.pickles import read_pickle
from data_partition.rows import Listing, Row

FOLDER: Final = "cifar-10-batches-py"
META: Final = Place((f"{FOLDER}/batches.meta",), "names of the classes")
BATCHES: Final = {
    **{Place((f"{FOLDER}/data_batch_{number}",), "10,000 training images"): "train" for number in range(1, 6)},
    Place((f"{FOLDER}/test_batch",), "10,000 test images"): "test",
}
CLASSES: Final = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def missing(data: Data) -> str:
    """Draw the expected tree with a mark at what is not there; empty: all of it is."""
    advice = (
        "unpack cifar-10-python.tar.gz in that folder, the version for Python of CIFAR-10 from "
        "https://www.cs.toronto.edu/~kriz/cifar.html."
    )
    return expected_tree(data.data_dir, [META, *BATCHES], advice, "cifar10")


def inputs(data: Data) -> list[Path]:
    """Return the files that are read."""
    return [_root(data) / place.names[0] for place in (META, *BATCHES)]


def read(data: Data) -> Listing:
    """List the images of all batches.

    Raises:
        DataError: a file is missing or damaged, or names other classes.
    """
    require(missing(data))
    path = get(_root(data), META)
    names = read_pickle(path).get(b"label_names")
    if names not in ([name.encode() for name in CLASSES], list(CLASSES)):
        raise DataError(f"{path} names the classes {str(names)[:200]}; expected {', '.join(CLASSES)}.")
    rows: list[Row] = []
    for place, split in BATCHES.items():
        path = get(_root(data), place)
        _, labels = batch(path)
        rows += [
            Row(f"{path.name}/{index}", "image", CLASSES[label], split, path=path, index=index)
            for index, label in enumerate(labels)
        ]
    return Listing(tuple(rows), ())


def pictures(path: Path, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
    """Yield images of a batch, uint8 (3, 32, 32)."""
    images, _ = batch(path)
    for index in indices:
        yield images[index]


def batch(path: Path) -> tuple[NDArray[np.uint8], list[int]]:
    """Return the images of a batch, uint8 (n, 3, 32, 32), and their labels.

    Raises:
        DataError: the pickle is damaged, or does not hold as many labels from 0 to 9 as images.
    """
    found = read_pickle(path)
    images, labels = found.get(b"data"), found.get(b"labels")
    if not isinstance(images, np.ndarray) or images.ndim != 2 or images.shape[1] != 3 * 32 * 32:
        raise DataError(f"{path}: 'data' is no array of rows of 3,072 bytes; unpack the official archive again.")
    if not isinstance(labels, list) or len(labels) != len(images):
        count = len(labels) if isinstance(labels, list) else "no"
        raise DataError(f"{path} has {count} labels for {len(images):,} images; unpack the official archive again.")
    if wrong := [label for label in labels if type(label) is not int or not 0 <= label < len(CLASSES)]:
        raise DataError(f"{path} has the label {wrong[0]!r}, expected 0 to 9; unpack the official archive again.")
    return images.reshape(-1, 3, 32, 32), labels


def _root(data: Data) -> Path:
    return Path(data.data_dir).expanduser().absolute()
