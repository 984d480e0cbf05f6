"""From recordings to clients: the same way for every data set of time series.

A client has the recordings of ``data.subjects-per-client`` subjects, or with ``data.grouping = "all"`` of everybody. All
clients have the same classes, so they are one class group. The subjects of ``data.test-subjects`` are nobody's: everybody is
tested on all their recordings, so that a score is of people whom no client has met. Of the own recordings of a class a client
holds ``data.val-fraction`` out for validation, at least one, and of a class with a single recording none. No recording is in
two splits, so windows of two splits have no sample in common; but with ``data.train-on-validation``, what is held out is
trained on too, and validation is no judge of anything. Test stays what it is.

Training windows start every ``data.step`` samples, those of validation and test do not overlap. Each channel is z-scored by
mean and deviation of the recordings that the client trains on, all its classes together: nothing is known of other clients,
and nothing of validation and test goes into it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from config import CHANNELS, Data
from data_partition.files import DataError
from data_partition.recordings import Recording, find_reader, open_recordings, windows
from data_partition.rows import Sample
from data_partition.splits import Examples, owned_concepts, split_concepts
from data_partition.subgroups import Subgroup, find_subgroup, seeded_order

SUBJECT: Final = "subject "
"""How a subject begins in ``Subgroup.domains``."""
SMALLEST_DEVIATION: Final = 1e-6


@dataclass(frozen=True)
class Parts:
    """Recordings of one client by split, in the order of the data set."""

    train: tuple[Recording, ...]
    val: tuple[Recording, ...]
    test: tuple[Recording, ...]


def subgroups(data: Data) -> list[Subgroup]:
    """Return the clients: subjects in their order, so many at a time; the last one may have fewer.

    Raises:
        DataError: ``data.test-subjects`` leaves nobody to train on, or names a subject that there is not.
    """
    reader = find_reader(data.series)
    tested = test_subjects(data)
    others = [name for name in reader.subjects(data) if name not in tested]
    each = len(others) if data.dataset == data.series and data.grouping == "all" else data.subjects_per_client
    classes = reader.classes(data)
    return [
        Subgroup(index, "series", 0, classes, index, tuple(f"{SUBJECT}{name}" for name in others[start : start + each]))
        for index, start in enumerate(range(0, len(others), each))
    ]


def test_subjects(data: Data) -> tuple[str, ...]:
    """Return the subjects that everybody is tested on.

    Raises:
        DataError: see :func:`subgroups`.
    """
    reader = find_reader(data.series)
    known = reader.subjects(data)
    found = tuple(part.strip() for part in data.test_subjects.split(",") if part.strip()) or reader.tested(data)
    if unknown := [name for name in found if name not in known]:
        raise DataError(f"data.test-subjects names {', '.join(unknown)}: '{data.series}' has the subjects {', '.join(known)}.")
    if len({*found}) == len(known):
        raise DataError(f"data.test-subjects names all {len(known)} subjects of '{data.series}': nobody is left to train on.")
    return found


def check_files(data: Data) -> None:
    """Refuse settings whose files are missing or damaged, or that leave a client without data.

    Raises:
        DataError: says what was found and what to do.
    """
    open_recordings(data)
    subgroups(data)


def load_examples(data: Data, subgroup: Subgroup, train_fraction: float) -> tuple[Examples, Examples, Examples]:
    """Return the training, validation and test windows of some classes; see :class:`data_partition.datasets.DataSet`.

    The share ``train_fraction`` is of the recordings of a class that are not held out, at least one; where a client also has
    windows without labels it is of their windows, at least one. A smaller share is a subset of a larger one.

    Raises:
        DataError: the files are missing or damaged, or a split has no window.
    """
    whole = split(data, find_subgroup(data, subgroup.partition_id), _recordings(data, train_fraction))
    cut = _Cutter(data, subgroup, whole)
    train, labels = cut(whole.train, data.step or data.window, "training")
    if data.unlabelled_fraction:
        labelled, _ = label_some(labels, train_fraction, data, subgroup)
        train, labels = train[labelled], labels[labelled]
    return (train, labels), cut(whole.val, data.window, "validation"), cut(whole.test, data.window, "test")


def load_unlabelled(data: Data, subgroup: Subgroup, train_fraction: float) -> NDArray[np.float32]:
    """Return the training windows of a client that come without labels, (n, channels, window); see :func:`label_some`.

    Raises:
        DataError: as :func:`load_examples`.
    """
    whole = split(data, find_subgroup(data, subgroup.partition_id), _recordings(data, train_fraction))
    train, labels = _Cutter(data, subgroup, whole)(whole.train, data.step or data.window, "training")
    return train[label_some(labels, train_fraction, data, subgroup)[1]]


def label_some(
    labels: NDArray[np.int64], train_fraction: float, data: Data, subgroup: Subgroup
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which training windows have labels, and which of the others the client has without, both ascending.

    Of each class the share ``train_fraction``, at least one, has labels, and those beyond it come without, as far as the share
    ``data.unlabelled_fraction``, drawn by ``data.seed``. Windows may overlap, also between the two.
    """
    known: list[int] = []
    unknown: list[int] = []
    for label, name in enumerate(subgroup.classes):
        rows = [str(row) for row in np.flatnonzero(labels == label)]
        order = [int(row) for row in seeded_order(rows, data.seed, f"labels/{subgroup.partition_id}/{name}")]
        number = max(1, round(train_fraction * len(order))) if order else 0
        known += order[:number]
        unknown += order[number : round(data.unlabelled_fraction * len(order))]
    return np.array(sorted(known), np.int64), np.array(sorted(unknown), np.int64)


def _recordings(data: Data, train_fraction: float) -> float:
    return 1.0 if data.unlabelled_fraction else train_fraction


class _Cutter:
    """Cuts recordings of a client into windows, by the scale of those that it trains on."""

    def __init__(self, data: Data, subgroup: Subgroup, whole: Parts) -> None:
        self.data, self.subgroup = data, subgroup
        self.channels = [CHANNELS[data.series].index(name) for name in data.channel_names]
        self.mean, self.deviation = moments(one.values[:, self.channels] for one in whole.train)

    def __call__(self, recordings: Sequence[Recording], step: int, what: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return windows and labels of recordings.

        Raises:
            DataError: there is none.
        """
        classes = self.subgroup.classes
        found = [(one.label, windows(one.values[:, self.channels], self.data.window, step)) for one in recordings]
        found = [(label, cut) for label, cut in found if label in classes and len(cut)]
        if not found:
            raise DataError(
                f"client {self.subgroup.partition_id} ({', '.join(self.subgroup.domains)}) has no {what} window of "
                f"{self.data.window} samples: shorten data.window, raise data.subjects-per-client, or name other "
                "data.test-subjects."
            )
        labels = np.concatenate([np.full(len(cut), classes.index(label)) for label, cut in found])
        values = np.concatenate([cut for _, cut in found])
        return (values - self.mean[:, None]) / self.deviation[:, None], labels


def split(data: Data, client: Subgroup, train_fraction: float) -> Parts:
    """Return the recordings of a client that have a window at all, by split.

    Raises:
        DataError: as :func:`load_examples`.
    """
    tested = test_subjects(data)
    everything = [one for one in open_recordings(data) if len(one.values) >= data.window and one.label in client.classes]
    own = [one for one in everything if f"{SUBJECT}{one.subject}" in client.domains]
    train: set[str] = set()
    val: set[str] = set()
    for name in client.classes:
        items = tuple(one.item for one in own if one.label == name)
        if len(items) > 1:
            parts = split_concepts({name: items}, frozenset(), data.val_fraction, data.seed)
            val |= parts.val[name]
            items = (*parts.train[name], *sorted(parts.val[name])) if data.train_on_validation else parts.train[name]
        if items:
            train |= owned_concepts(items, train_fraction, 0, 1, disjoint=False)
    return Parts(
        tuple(one for one in own if one.item in train),
        tuple(one for one in own if one.item in val),
        tuple(one for one in everything if one.subject in tested),
    )


def moments(values: Iterable[NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and deviation of each channel, float32 (channels,), over all samples; a channel that is constant has 1.

    Args:
        values: (samples, channels) of one or more recordings.

    Raises:
        DataError: there are none.
    """
    parts = [np.asarray(part, dtype=np.float64) for part in values]
    if not parts:
        raise DataError("there is no recording to train on that is as long as data.window: shorten it.")
    together = np.concatenate(parts)
    mean, deviation = together.mean(axis=0), together.std(axis=0)
    return mean.astype(np.float32), np.where(deviation > SMALLEST_DEVIATION, deviation, 1.0).astype(np.float32)


def samples(data: Data, label: str, number: int) -> list[Sample]:
    """Describe some training recordings of a class in words.

    Raises:
        DataError: the files are missing.
    """
    tested = test_subjects(data)
    found = [one for one in open_recordings(data) if one.label == label and one.subject not in tested]
    return [Sample(None, f"{SUBJECT}{one.subject}: {len(one.values):,} samples") for one in found[:number]]
