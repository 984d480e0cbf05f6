"""The three-way split by concept: made once, for all modalities and all clients.

A concept of the test or validation split is trained on by nobody, in no modality and no domain, so that a client's score never
rests on a drawing or a description of something another client saw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_partition.files import DataError
from data_partition.subgroups import seeded_order


@dataclass(frozen=True)
class MappedRows:
    """Rows of an array that stays in a file: ``pixels`` is the whole array and ``places``, int64 (n,), says which rows."""

    pixels: NDArray[np.uint8]
    places: NDArray[np.int64]

    def __getitem__(self, chosen: slice | NDArray[np.int64]) -> MappedRows:
        return MappedRows(self.pixels, self.places[chosen])

    def read(self) -> NDArray[np.uint8]:
        """Return a copy of the rows."""
        return np.asarray(self.pixels[self.places])


Examples = tuple[NDArray[Any] | MappedRows, NDArray[np.int64]]
"""Inputs and labels of a client's split, as in :class:`data_partition.client_data.Split`; an array is a copy of its own."""


@dataclass(frozen=True)
class ConceptSplit:
    """Concepts of each class by split; ``train`` is in the order in which clients take their share from the front."""

    train: dict[str, tuple[str, ...]]
    val: dict[str, frozenset[str]]
    test: dict[str, frozenset[str]]


def split_concepts(
    concepts: Mapping[str, Sequence[str]], test: frozenset[str], val_fraction: float, seed: int
) -> ConceptSplit:
    """Split the concepts of every class.

    Args:
        concepts: class name -> its concepts.
        test: the test concepts, fixed by the data file.
        val_fraction: share of the other concepts kept for validation, at least one a class; in (0, 1).
        seed: ``data.seed``.

    Raises:
        DataError: a class is left without a training concept.
    """
    split = ConceptSplit({}, {}, {})
    for name, members in concepts.items():
        order = seeded_order((member for member in members if member not in test), seed, "split")
        num_val = max(1, round(val_fraction * len(order)))
        if num_val >= len(order):
            raise DataError(
                f"class {name!r} has {len(order)} concepts outside the test split and data.val-fraction = {val_fraction} "
                f"takes {num_val} of them, which leaves none to train on: lower data.val-fraction."
            )
        split.test[name] = frozenset(member for member in members if member in test)
        split.val[name] = frozenset(order[:num_val])
        split.train[name] = tuple(order[num_val:])
    return split


def owned_concepts(
    train: Sequence[str], train_fraction: float, domain_index: int, num_domains: int, disjoint: bool
) -> frozenset[str]:
    """Return the training concepts of one class that the clients of one domain own; at least one.

    A smaller fraction owns a subset of what a larger one owns.

    Args:
        train: the training concepts of the class in split order.
        train_fraction: share of ``train``, in (0, 1].
        domain_index: domain of the client, 0 to ``num_domains`` - 1.
        num_domains: clients of one class group and modality.
        disjoint: whether domains own different concepts (dealt out in turn) or all own the same ones.

    Raises:
        DataError: the fraction is out of range, or there are fewer concepts than disjoint domains ask for.
    """
    dealt = num_domains if disjoint else 1
    if not 0 < train_fraction <= 1 / dealt + 1e-9:
        raise DataError(
            f"train fraction {train_fraction}: expected more than 0 and at most {1 / dealt:.3f}"
            + (f", because {num_domains} domains own different concepts." if disjoint else ".")
        )
    if len(train) < dealt:
        raise DataError(f"{len(train)} training concepts cannot be dealt to {num_domains} domains: lower data.val-fraction.")
    hand = train[domain_index::dealt] if disjoint else train
    return frozenset(hand[: max(1, round(train_fraction * len(train)))])
