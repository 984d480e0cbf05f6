"""The tensors of one client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from config import Data
from data_partition.datasets import serving
from data_partition.files import DataError
from data_partition.mapped_images import MappedImages
from data_partition.splits import MappedRows
from data_partition.subgroups import Subgroup, find_subgroup


@dataclass(frozen=True)
class Split:
    """Examples of one client.

    ``inputs`` are images, uint8 (n, 3, S, S), token ids, int64 (n, max_tokens), 0 = padding, or windows of series, z-scored
    float32 (n, channels, window); ``labels`` are int64 (n,), the index of the class in ``Subgroup.classes``. Images may stay
    in a file until they are indexed (:class:`MappedImages`).
    """

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class ClientData:
    """What one client trains on, steers by, and is scored on; the three have no concept in common."""

    subgroup: Subgroup
    train: Split
    val: Split
    test: Split


def load_client(data: Data, partition_id: int, train_fraction: float | None = None) -> ClientData:
    """Return the data of one client.

    Args:
        data: the data section of the run config.
        partition_id: index into ``subgroups(data)``.
        train_fraction: takes the place of ``data.train_fraction``, as for a late joiner; a smaller fraction is a subset of a
            larger one. Validation and test do not depend on it.

    Raises:
        DataError: the partition id or the fraction is out of range, or the data files are missing or damaged.
    """
    return load_subgroup(data, find_subgroup(data, partition_id), train_fraction)


def load_subgroup(data: Data, subgroup: Subgroup, train_fraction: float | None = None) -> ClientData:
    """Return the data of a client, or of some of its classes; otherwise as :func:`load_client`.

    The rows of a class do not depend on the other classes, and rows are in one order, whatever the classes. Only the scale of
    series depends on the client's other classes and on the fraction: it is that of all recordings that the client trains on.

    Args:
        data: see there.
        subgroup: what the client owns, or the same with fewer classes.
        train_fraction: see there.
    """
    fraction = data.train_fraction if train_fraction is None else train_fraction
    rows = serving(data, subgroup.modality).load_examples(data, subgroup, fraction)
    train, val, test = (Split(_as_tensor(inputs), torch.from_numpy(labels)) for inputs, labels in rows)
    return ClientData(subgroup, train, val, test)


def load_twins(data: Data, subgroup: Subgroup, train_fraction: float | None = None) -> tuple[Tensor, Tensor]:
    """Return what a client owns of its training concepts in the other modality.

    Args:
        data: see :func:`load_client`.
        subgroup: what the client owns.
        train_fraction: see :func:`load_client`.

    Returns:
        Places of training examples that have a twin, ascending, int64 (n,), and the inputs of the twins, row by row.

    Raises:
        DataError: the data set has no twins; or as :func:`load_client`.
    """
    load = serving(data, subgroup.modality).load_twins
    if load is None:
        raise DataError(f"data.dataset = '{data.dataset}' has one modality, and no concept in two: there are no twins.")
    places, inputs = load(data, subgroup, data.train_fraction if train_fraction is None else train_fraction)
    return torch.from_numpy(places), _as_tensor(inputs)


def load_unlabelled(data: Data, subgroup: Subgroup, train_fraction: float | None = None) -> Tensor | None:
    """Return the training inputs that a client owns without labels, as ``Split.inputs``; None: it owns none.

    Args:
        data: ``data.unlabelled_fraction`` says how far they go beyond ``train_fraction``.
        subgroup: what the client owns.
        train_fraction: see :func:`load_client`.

    Raises:
        DataError: as :func:`load_client`.
    """
    load = serving(data, subgroup.modality).load_unlabelled
    if load is None or data.unlabelled_fraction == 0:
        return None
    inputs = _as_tensor(load(data, subgroup, data.train_fraction if train_fraction is None else train_fraction))
    return inputs if len(inputs) else None


def load_unlabelled_twins(data: Data, subgroup: Subgroup, train_fraction: float | None = None) -> tuple[Tensor, Tensor] | None:
    """Return the twins of what :func:`load_unlabelled` returns, as :func:`load_twins` does; None: there is no such input.

    Raises:
        DataError: inputs without labels have no twins; or as :func:`load_client`.
    """
    found = serving(data, subgroup.modality)
    if found.load_unlabelled is None or data.unlabelled_fraction == 0:
        return None
    if found.load_unlabelled_twins is None:
        raise DataError(f"data.dataset = '{data.dataset}' has one modality, and no concept in two: there are no twins.")
    fraction = data.train_fraction if train_fraction is None else train_fraction
    places, inputs = found.load_unlabelled_twins(data, subgroup, fraction)
    return torch.from_numpy(places), _as_tensor(inputs)


def _as_tensor(inputs: NDArray[Any] | MappedRows) -> Tensor:
    return MappedImages(inputs) if isinstance(inputs, MappedRows) else torch.from_numpy(inputs)
