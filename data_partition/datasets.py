"""The data sets: the one place that knows what serves which ``data.dataset``.

Importing this reads no file and none of the libraries that decode images or texts: a reader is imported when rows are wanted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from config import LISTED, SERIES, WITHOUT_TEXTS, Data
from data_partition import cifar100
from data_partition.emojipairs import groupings
from data_partition.rows import Fault, Sample
from data_partition.splits import Examples, MappedRows
from data_partition.subgroups import Modality, Subgroup


@dataclass(frozen=True)
class DataSet:
    """What a data set offers.

    Attributes:
        subgroups: what each client owns, in the order of partition ids; needs no file.
        check_files: raises DataError unless the files that the settings name are there and whole.
        load_examples: training, validation and test rows of a subgroup, with a share of its training rows.
        group_names: what the class groups are called, in the order of ``Subgroup.group``.
        samples: some training items of a class, to look at; as many as are asked for and there are.
        bad_rows: rows that are left out because they cannot be used, as far as clients of a modality know.
        load_twins: places of training rows and, of the same concepts, inputs of the other modality; None: there are none.
        load_unlabelled: inputs that ``data.unlabelled_fraction`` adds; None: it adds none.
        load_unlabelled_twins: places of these inputs and their twins, as ``load_twins``; None: there are none.
    """

    subgroups: Callable[[Data], list[Subgroup]]
    check_files: Callable[[Data], None]
    load_examples: Callable[[Data, Subgroup, float], tuple[Examples, Examples, Examples]]
    group_names: Callable[[Data], tuple[str, ...]]
    samples: Callable[[Data, str, int], list[Sample]]
    bad_rows: Callable[[Data, Modality], tuple[Fault, ...]] = lambda data, modality: ()
    load_twins: Callable[[Data, Subgroup, float], tuple[NDArray[np.int64], NDArray[Any] | MappedRows]] | None = None
    load_unlabelled: Callable[[Data, Subgroup, float], NDArray[Any] | MappedRows] | None = None
    load_unlabelled_twins: Callable[[Data, Subgroup, float], tuple[NDArray[np.int64], NDArray[Any]]] | None = None


def _check_emojipairs(data: Data) -> None:
    from data_partition.emojipairs.dataset import locate

    locate(data.data_dir, data.vocab_file)


def _load_emojipairs(data: Data, subgroup: Subgroup, train_fraction: float) -> tuple[Examples, Examples, Examples]:
    from data_partition.emojipairs.clients import load_examples

    return load_examples(data, subgroup, train_fraction)


def _emojipairs_samples(data: Data, label: str, number: int) -> list[Sample]:
    from data_partition.emojipairs.clients import samples

    return samples(data, label, number)


def _listed_subgroups(data: Data) -> list[Subgroup]:
    from data_partition import listed

    return listed.subgroups(data)


def _check_listed(data: Data) -> None:
    from data_partition import listed

    listed.check_files(data)


def _load_listed(data: Data, subgroup: Subgroup, train_fraction: float) -> tuple[Examples, Examples, Examples]:
    from data_partition import listed

    return listed.load_examples(data, subgroup, train_fraction)


def _listed_group_names(data: Data) -> tuple[str, ...]:
    from data_partition import listed

    return listed.group_names(data)


def _listed_samples(data: Data, label: str, number: int) -> list[Sample]:
    from data_partition import listed

    return listed.samples(data, label, number)


def _bad_rows(data: Data, modality: Modality) -> tuple[Fault, ...]:
    from data_partition import listed

    return listed.bad_rows(data, modality)


def _listed_twins(
    data: Data, subgroup: Subgroup, train_fraction: float
) -> tuple[NDArray[np.int64], NDArray[Any] | MappedRows]:
    from data_partition import listed

    return listed.load_twins(data, subgroup, train_fraction)


def _load_emojipairs_twins(data: Data, subgroup: Subgroup, train_fraction: float) -> tuple[NDArray[np.int64], NDArray[Any]]:
    from data_partition.emojipairs.clients import load_twins

    return load_twins(data, subgroup, train_fraction)


def _load_emojipairs_unlabelled(data: Data, subgroup: Subgroup, train_fraction: float) -> NDArray[Any]:
    from data_partition.emojipairs.clients import load_unlabelled

    return load_unlabelled(data, subgroup, train_fraction)


def _load_emojipairs_unlabelled_twins(
    data: Data, subgroup: Subgroup, train_fraction: float
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    from data_partition.emojipairs.clients import load_unlabelled_twins

    return load_unlabelled_twins(data, subgroup, train_fraction)


def _series_subgroups(data: Data) -> list[Subgroup]:
    from data_partition import series

    return series.subgroups(data)


def _check_series(data: Data) -> None:
    from data_partition import series

    series.check_files(data)


def _load_series(data: Data, subgroup: Subgroup, train_fraction: float) -> tuple[Examples, Examples, Examples]:
    from data_partition import series

    return series.load_examples(data, subgroup, train_fraction)


def _load_series_unlabelled(data: Data, subgroup: Subgroup, train_fraction: float) -> NDArray[Any]:
    from data_partition import series

    return series.load_unlabelled(data, subgroup, train_fraction)


def _series_samples(data: Data, label: str, number: int) -> list[Sample]:
    from data_partition import series

    return series.samples(data, label, number)


DATASETS: Final = {
    "emojipairs": DataSet(
        groupings.subgroups,
        _check_emojipairs,
        _load_emojipairs,
        groupings.group_names,
        _emojipairs_samples,
        load_twins=_load_emojipairs_twins,
        load_unlabelled=_load_emojipairs_unlabelled,
        load_unlabelled_twins=_load_emojipairs_unlabelled_twins,
    ),
    "cifar100": DataSet(
        cifar100.subgroups, cifar100.check_files, cifar100.load_examples, cifar100.group_names, cifar100.samples
    ),
    **{
        name: DataSet(
            _listed_subgroups,
            _check_listed,
            _load_listed,
            _listed_group_names,
            _listed_samples,
            _bad_rows,
            None if name in WITHOUT_TEXTS else _listed_twins,
        )
        for name in LISTED
    },
    **{
        name: DataSet(
            _series_subgroups,
            _check_series,
            _load_series,
            lambda data: (data.series,),
            _series_samples,
            load_unlabelled=_load_series_unlabelled,
        )
        for name in SERIES
    },
}


def serving(data: Data, modality: Modality) -> DataSet:
    """Return the data set that the clients of a modality have: ``data.also`` for series, where there is one."""
    return DATASETS[data.also if modality == "series" and data.also != "none" else data.dataset]


def check_files(data: Data) -> None:
    """Refuse settings whose files, those of ``data.also`` included, are not there and whole.

    Raises:
        DataError: says what was found and what to do.
    """
    for name in names_of(data):
        DATASETS[name].check_files(data)


def group_names(data: Data) -> tuple[str, ...]:
    """Return what the class groups are called, in the order of ``Subgroup.group``, those of ``data.also`` at the end."""
    return tuple(group for name in names_of(data) for group in DATASETS[name].group_names(data))


def names_of(data: Data) -> tuple[str, ...]:
    """Return the names of the data sets that clients have: ``data.dataset``, and ``data.also`` where there is one."""
    return (data.dataset,) if data.also == "none" else (data.dataset, data.also)
