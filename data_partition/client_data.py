"""The tensors of one client."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from config import Data
from data_partition.emojipairs.dataset import Rows, Table, load
from data_partition.files import DataError
from data_partition.splits import ConceptSplit, owned_concepts, split_concepts
from data_partition.subgroups import Subgroup, find_subgroup


@dataclass(frozen=True)
class Split:
    """Examples of one client.

    ``inputs`` are images, uint8 (n, 3, 32, 32), or token ids, int64 (n, max_tokens), 0 = padding; ``labels`` are int64 (n,),
    the index of the class in ``Subgroup.classes``.
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
    subgroup = find_subgroup(data, partition_id)
    table = load(data.data_dir, data.vocab_file)
    split = _split(table, data.val_fraction, data.seed)
    fraction = data.train_fraction if train_fraction is None else train_fraction
    disjoint = data.concepts == "disjoint"
    owned = {
        name: owned_concepts(split.train[name], fraction, subgroup.domain_index, data.num_domains, disjoint)
        for name in subgroup.classes
    }
    rows = table.images if subgroup.modality == "image" else table.texts
    train, val, test = (
        _select(table, rows, subgroup, frozenset().union(*(concepts[name] for name in subgroup.classes)), data.max_tokens)
        for concepts in (owned, split.val, split.test)
    )
    return ClientData(subgroup, train, val, test)


def _split(table: Table, val_fraction: float, seed: int) -> ConceptSplit:
    members: dict[str, list[str]] = {name: [] for name in table.classes}
    for concept, label in zip(table.concepts, table.concept_labels, strict=True):
        members[table.classes[label]].append(concept)
    test = frozenset(concept for concept, is_test in zip(table.concepts, table.is_test, strict=True) if is_test)
    return split_concepts(members, test, val_fraction, seed)


def _select(table: Table, rows: Rows, subgroup: Subgroup, concepts: frozenset[str], max_tokens: int) -> Split:
    wanted = np.array([concept in concepts for concept in table.concepts])
    chosen = np.flatnonzero(wanted[rows.concepts] & np.isin(rows.domains, subgroup.domains))
    if not len(chosen):
        raise DataError(f"client {subgroup.partition_id} has no {subgroup.modality} of {', '.join(subgroup.domains)}.")
    inputs = torch.from_numpy(rows.inputs[chosen])
    if subgroup.modality == "text":
        inputs = torch.nn.functional.pad(inputs, (0, max(0, max_tokens - inputs.shape[1])))[:, :max_tokens].contiguous()
    local = np.full(len(table.classes), -1)
    local[[table.classes.index(name) for name in subgroup.classes]] = range(len(subgroup.classes))
    return Split(inputs, torch.from_numpy(local[rows.labels[chosen]]))
