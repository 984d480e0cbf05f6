"""The rows of one client of the embedded data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from config import Data
from data_partition.emojipairs.catalogue import IMAGE_STYLES
from data_partition.emojipairs.dataset import Rows, Table, load, locate
from data_partition.emojipairs.groupings import subgroups
from data_partition.files import DataError
from data_partition.rows import Sample
from data_partition.splits import ConceptSplit, Examples, owned_concepts, split_concepts
from data_partition.subgroups import Subgroup


def load_examples(data: Data, subgroup: Subgroup, train_fraction: float) -> tuple[Examples, Examples, Examples]:
    """Return the training, validation and test rows of one client; see :class:`data_partition.datasets.DataSet`.

    Raises:
        DataError: the fraction is out of range, or the data files are missing or damaged.
    """
    table = load(data.data_dir, data.vocab_file)
    split = _split(table, data.val_fraction, data.seed)
    owned = _owned(data, split, subgroup, train_fraction)
    train, val, test = (_select(table, subgroup, concepts, data.max_tokens) for concepts in (owned, split.val, split.test))
    return train, val, test


def load_unlabelled(data: Data, subgroup: Subgroup, train_fraction: float) -> NDArray[Any]:
    """Return inputs of training concepts that a client does not own, up to ``data.unlabelled_fraction`` with those it owns.

    With disjoint concepts they are those that its siblings own, among others: what is divided are the labels.

    They are in the client's styles or sources, and in the order of :func:`load_examples`, whose training rows they are no part
    of; no concept of validation or test is among them.

    Raises:
        DataError: a fraction is out of range, nothing is beyond the share, or the data files are missing or damaged.
    """
    table = load(data.data_dir, data.vocab_file)
    rows = _rows(table, subgroup)
    return _inputs(
        rows, _chosen(table, rows, subgroup, _beyond(data, table, subgroup, train_fraction)), subgroup, data.max_tokens
    )


def load_twins(data: Data, subgroup: Subgroup, train_fraction: float) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return training rows of a client's concepts in the other modality, one for each training row that has any.

    They are in the styles or sources of the client's twin. The rows of a concept take its twins in turn.

    Returns:
        Places of training rows, ascending, int64 (n,), and the inputs of their twins, as :func:`load_examples` has them.

    Raises:
        DataError: no concept has a twin; or as :func:`load_examples`.
    """
    table = load(data.data_dir, data.vocab_file)
    return _twins(data, table, subgroup, _owned(data, _split(table, data.val_fraction, data.seed), subgroup, train_fraction))


def load_unlabelled_twins(data: Data, subgroup: Subgroup, train_fraction: float) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return the twins of the rows of :func:`load_unlabelled`, as :func:`load_twins` does; places are among these rows."""
    table = load(data.data_dir, data.vocab_file)
    return _twins(data, table, subgroup, _beyond(data, table, subgroup, train_fraction))


def _twins(
    data: Data, table: Table, subgroup: Subgroup, concepts: Mapping[str, frozenset[str]]
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    twin = next(
        one for one in subgroups(data) if one.modality != subgroup.modality and one.domain_index == subgroup.domain_index
    )
    twin = replace(subgroup, modality=twin.modality, domains=twin.domains)
    mine, theirs = _rows(table, subgroup), _rows(table, twin)
    candidates: dict[int, list[int]] = {}
    for row in _chosen(table, theirs, twin, concepts):
        candidates.setdefault(int(theirs.concepts[row]), []).append(int(row))
    places, found = [], []
    seen: Counter[int] = Counter()
    for place, row in enumerate(_chosen(table, mine, subgroup, concepts)):
        concept = int(mine.concepts[row])
        if rows := candidates.get(concept):
            places.append(place)
            found.append(rows[seen[concept] % len(rows)])
            seen[concept] += 1
    return np.array(places, np.int64), _inputs(theirs, np.array(found), twin, data.max_tokens)


def _beyond(data: Data, table: Table, subgroup: Subgroup, train_fraction: float) -> dict[str, frozenset[str]]:
    """Return the concepts of each class that a client has inputs of, and no labels: any that it does not own."""
    split = _split(table, data.val_fraction, data.seed)
    found = {}
    for name, known in _owned(data, split, subgroup, train_fraction).items():
        others = [concept for concept in split.train[name] if concept not in known]
        found[name] = frozenset(others[: max(0, round(data.unlabelled_fraction * len(split.train[name])) - len(known))])
    return found


def _owned(data: Data, split: ConceptSplit, subgroup: Subgroup, train_fraction: float) -> dict[str, frozenset[str]]:
    disjoint = data.concepts == "disjoint"
    return {
        name: owned_concepts(split.train[name], train_fraction, subgroup.domain_index, data.num_domains, disjoint)
        for name in subgroup.classes
    }


def samples(data: Data, label: str, number: int) -> list[Sample]:
    """Return some training concepts of a class, each in another art style, with what one source says of it."""
    table = load(data.data_dir, data.vocab_file)
    concepts = _split(table, data.val_fraction, data.seed).train[label][:number]
    parquet, _ = locate(data.data_dir, data.vocab_file)
    texts = pq.read_table(
        parquet, columns=["concept", "text"], filters=[("concept", "in", concepts), ("domain", "=", "cldr-en")]
    ).to_pydict()
    text_of = {} if data.modalities == "image" else dict(zip(texts["concept"], texts["text"], strict=True))
    found: list[Sample] = []
    for place, concept in enumerate(concepts):
        rows = np.flatnonzero(table.images.concepts == table.concepts.index(concept))
        order = [*IMAGE_STYLES[place % len(IMAGE_STYLES) :], *IMAGE_STYLES]
        row = min(rows, key=lambda row: order.index(str(table.images.domains[row])))
        pixels = None if data.modalities == "text" else table.images.inputs[row]
        found.append(Sample(pixels, text_of.get(concept, "")))
    return found


def _split(table: Table, val_fraction: float, seed: int) -> ConceptSplit:
    members: dict[str, list[str]] = {name: [] for name in table.classes}
    for concept, label in zip(table.concepts, table.concept_labels, strict=True):
        members[table.classes[label]].append(concept)
    test = frozenset(concept for concept, is_test in zip(table.concepts, table.is_test, strict=True) if is_test)
    return split_concepts(members, test, val_fraction, seed)


def _select(table: Table, subgroup: Subgroup, concepts: Mapping[str, frozenset[str]], max_tokens: int) -> Examples:
    rows = _rows(table, subgroup)
    chosen = _chosen(table, rows, subgroup, concepts)
    local = np.full(len(table.classes), -1)
    local[[table.classes.index(name) for name in subgroup.classes]] = range(len(subgroup.classes))
    return _inputs(rows, chosen, subgroup, max_tokens), local[rows.labels[chosen]]


def _rows(table: Table, subgroup: Subgroup) -> Rows:
    return table.images if subgroup.modality == "image" else table.texts


def _chosen(table: Table, rows: Rows, subgroup: Subgroup, concepts: Mapping[str, frozenset[str]]) -> NDArray[np.int64]:
    every = frozenset().union(*(concepts[name] for name in subgroup.classes))
    wanted = np.array([concept in every for concept in table.concepts])
    chosen = np.flatnonzero(wanted[rows.concepts] & np.isin(rows.domains, subgroup.domains))
    if not len(chosen):
        raise DataError(f"client {subgroup.partition_id} has no {subgroup.modality} of {', '.join(subgroup.domains)}.")
    return chosen


def _inputs(rows: Rows, chosen: NDArray[np.int64], subgroup: Subgroup, max_tokens: int) -> NDArray[Any]:
    inputs = rows.inputs[chosen]
    if subgroup.modality == "text":
        missing = max(0, max_tokens - inputs.shape[1])
        inputs = np.ascontiguousarray(np.pad(inputs, ((0, 0), (0, missing)))[:, :max_tokens])
    return inputs
