"""What there is of a data set, and what each client gets of it: counted from the rows that clients load."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from config import Data
from data_partition.datasets import group_names, serving
from data_partition.files import DataError
from data_partition.subgroups import Modality, Subgroup, find_subgroup, subgroups

SPLITS: Final = ("train", "val", "test")
EVERYBODY: Final = 1_000_000
"""Subjects of one client, so that it has all recordings of a data set of series."""
Counts = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Examples of each class in training, validation and test, each int64 (classes,)."""


@dataclass(frozen=True)
class ClientFacts:
    """What a client owns: name of its class group, and its examples of each class; ``fault``: why it has none."""

    subgroup: Subgroup
    group: str
    counts: Counts
    fault: str = ""


@dataclass(frozen=True)
class Facts:
    """What is known of a data set under some settings.

    Attributes:
        groups: classes of each class group by its name.
        counts: all examples of a modality and class, in training, validation and test.
        clients: those that take part.
    """

    groups: dict[str, tuple[str, ...]]
    counts: dict[tuple[Modality, str], tuple[int, int, int]]
    clients: tuple[ClientFacts, ...]

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Modalities that there are examples of, images first."""
        return tuple(dict.fromkeys(modality for modality, _ in self.counts))


def look(data: Data) -> Facts:
    """Count the examples of a data set and of its clients; rows that cannot be used are left out, however many they are.

    Raises:
        DataError: the files are missing, or ``data.clients`` names a client that there is not.
    """
    data = data.model_copy(update={"max_bad_fraction": 1.0})
    whole = data.model_copy(
        update={
            "partitioner": "one",
            "devices_per_group": 1,
            "concepts": "shared",
            "train_fraction": 1.0,
            "clients": "all",
            "subjects_per_client": EVERYBODY,
        }
    )
    names = group_names(data)
    counted = cache(count)
    groups: dict[str, tuple[str, ...]] = {}
    counts: dict[tuple[Modality, str], tuple[int, int, int]] = {}
    for one in subgroups(whole):
        groups[names[one.group]] = one.classes
        train, val, test = _all_there_is(whole, one, counted)
        for place, label in enumerate(one.classes):
            a, b, c = counts.get((one.modality, label), (0, 0, 0))
            counts[one.modality, label] = a + int(train[place]), b + int(val[place]), c + int(test[place])
    clients: list[ClientFacts] = []
    everyone = [one.partition_id for one in subgroups(data)]
    for partition in everyone if data.clients == "all" else sorted({int(part) for part in data.clients.split(",")}):
        one = find_subgroup(data, partition)
        try:
            clients.append(ClientFacts(one, names[one.group], counted(data, one)))
        except DataError as error:
            clients.append(ClientFacts(one, names[one.group], _nothing(len(one.classes)), str(error)))
    return Facts(groups, counts, tuple(clients))


def count(data: Data, subgroup: Subgroup) -> Counts:
    """Return the examples that a client loads, class by class.

    Raises:
        DataError: it has none.
    """
    splits = serving(data, subgroup.modality).load_examples(data, subgroup, data.train_fraction)
    train, val, test = (np.bincount(labels, minlength=len(subgroup.classes)) for _, labels in splits)
    return train, val, test


def imbalance(counts: Sequence[int]) -> float:
    """Return the size of the largest class over that of the smallest, of classes that have examples.

    >>> imbalance([30, 10, 0]), imbalance([0, 0])
    (3.0, 1.0)
    """
    there = [number for number in counts if number]
    return max(there) / min(there) if there else 1.0


def _all_there_is(data: Data, subgroup: Subgroup, counted: Callable[[Data, Subgroup], Counts]) -> Counts:
    """Count a class group; if that fails, as where a class has no files, class by class."""
    try:
        return counted(data, subgroup)
    except DataError:
        total = _nothing(len(subgroup.classes))
        for place, label in enumerate(subgroup.classes):
            try:
                for all_, own in zip(total, counted(data, replace(subgroup, classes=(label,))), strict=True):
                    all_[place] = own[0]
            except DataError:
                continue
        return total


def _nothing(num_classes: int) -> Counts:
    return (np.zeros(num_classes, np.int64), np.zeros(num_classes, np.int64), np.zeros(num_classes, np.int64))
