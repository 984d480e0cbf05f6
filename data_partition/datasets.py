"""The data sets: the one place that knows what serves which ``data.dataset``.

Importing this reads no file and none of the libraries that decode images or texts: a reader is imported when rows are wanted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from config import Data
from data_partition import cifar100
from data_partition.emojipairs import groupings
from data_partition.splits import Examples
from data_partition.subgroups import Subgroup


@dataclass(frozen=True)
class DataSet:
    """What a data set offers.

    Attributes:
        subgroups: what each client owns, in the order of partition ids; needs no file.
        check_files: raises DataError unless the files that the settings name are there and whole.
        load_examples: training, validation and test rows of a subgroup, with a share of its training rows.
        load_twins: places of training rows and, of the same concepts, inputs of the other modality; None: there are none.
    """

    subgroups: Callable[[Data], list[Subgroup]]
    check_files: Callable[[Data], None]
    load_examples: Callable[[Data, Subgroup, float], tuple[Examples, Examples, Examples]]
    load_twins: Callable[[Data, Subgroup, float], tuple[NDArray[np.int64], NDArray[Any]]] | None = None


def _check_emojipairs(data: Data) -> None:
    from data_partition.emojipairs.dataset import locate

    locate(data.data_dir, data.vocab_file)


def _load_emojipairs(data: Data, subgroup: Subgroup, train_fraction: float) -> tuple[Examples, Examples, Examples]:
    from data_partition.emojipairs.clients import load_examples

    return load_examples(data, subgroup, train_fraction)


def _load_emojipairs_twins(data: Data, subgroup: Subgroup, train_fraction: float) -> tuple[NDArray[np.int64], NDArray[Any]]:
    from data_partition.emojipairs.clients import load_twins

    return load_twins(data, subgroup, train_fraction)


DATASETS: Final = {
    "emojipairs": DataSet(groupings.subgroups, _check_emojipairs, _load_emojipairs, _load_emojipairs_twins),
    "cifar100": DataSet(cifar100.subgroups, cifar100.check_files, cifar100.load_examples),
}
