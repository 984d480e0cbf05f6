"""From the rows of a listed data set to its clients: the same way for every data set, whatever its files look like.

Clients are the class groups of ``data.grouping``, images first, then texts with the same classes, each with one or more
devices. Splits go by item, once for both modalities: nobody trains on an image or a text of a test or validation item. Where
the data set fixes a test split it is taken, and where that is below a fifth of a class, or there is none, items that the
data set leaves free are added up to a fifth, the same ones for every ``data.seed``. Validation items are drawn from the others
by ``data.seed``. Only the training items of a group are dealt to its devices; a device is tested on all test items of the
classes that it trains on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from config import CLASSES_PER_CLIENT, WITHOUT_TEXTS, Data
from data_partition.decoded import Pixels, open_pixels, open_tokens
from data_partition.devices import deal
from data_partition.files import DataError
from data_partition.readers import groups_of
from data_partition.rows import Fault, Sample
from data_partition.splits import ConceptSplit, Examples, MappedRows, owned_concepts, split_concepts
from data_partition.store import Store, check_faults, kept_array, open_store
from data_partition.subgroups import Modality, Subgroup, find_subgroup, seeded_order

TEST_SHARE: Final = 0.2
TEST_SEED: Final = 0
"""Share of a class that is tested at least, and seed of the draw: not ``data.seed``, so that runs are comparable."""


@dataclass(frozen=True)
class Quality:
    """How many rows of a data set can be used, which cannot, and which are left out by a rule of the reader."""

    num_rows: int
    faults: tuple[Fault, ...]
    left_out: tuple[Fault, ...]


def subgroups(data: Data) -> list[Subgroup]:
    """Return the clients in the order of partition ids: images first, then texts; group by group, device by device.

    Raises:
        DataError: the groups are named by the files, and these are missing.
    """
    known = CLASSES_PER_CLIENT[data.dataset][data.grouping] > 0
    store = None if known else open_store(data)
    groups = _groups_of(data, store.folder if store else None)
    modalities: tuple[Modality, ...] = ("image",) if data.dataset in WITHOUT_TEXTS else ("image", "text")
    found: list[Subgroup] = []
    for modality in modalities:
        for group, classes in enumerate(groups.values()):
            if store is None or any(row.modality == modality for name in classes for row in store.rows(name)):
                for device in range(data.devices_per_group):
                    found.append(Subgroup(len(found), modality, group, classes, device, (f"device {device}",)))
    return found


def check_files(data: Data) -> None:
    """Refuse settings whose files are missing, contradict one another, or have too many rows that cannot be used.

    Raises:
        DataError: says what was found and what to do.
    """
    store = open_store(data, again=True)
    check_faults(data, store.num_rows, store.faults)


def quality(data: Data) -> Quality:
    """Return what is known of the rows when all images are decoded.

    Raises:
        DataError: files are missing, or contradict one another.
    """
    store = open_store(data)
    undecoded = () if data.modalities == "text" else open_pixels(data, store).faults
    return Quality(store.num_rows - len(undecoded), (*store.faults, *undecoded), store.left_out)


def group_names(data: Data) -> tuple[str, ...]:
    """Return the names of the class groups, in the order of ``Subgroup.group``."""
    return tuple(groups_of(data))


def samples(data: Data, label: str, number: int) -> list[Sample]:
    """Return some training items of a class, those that clients own first; of images, with their texts.

    Raises:
        DataError: the files are missing, or have no such class.
    """
    store = open_store(data)
    pixels = None if data.modalities == "text" else open_pixels(data, store)
    images: dict[str, NDArray[np.uint8]] = {}
    texts: dict[str, str] = {}
    rows = store.rows(label)
    items = _split(data, store, label).train[label]
    if pixels:
        first = store.first["image"][store.classes.index(label)]
        for place, row in enumerate((row for row in rows if row.modality == "image"), start=first):
            if place not in pixels.bad:
                images.setdefault(row.item, pixels.images[place])
    if data.modalities != "image":
        for row in rows:
            if row.modality == "text":
                texts.setdefault(row.item, row.text)
    chosen = [item for item in items if item in (images or texts)][:number]
    return [Sample(np.array(images[item]) if item in images else None, texts.get(item, "")) for item in chosen]


@lru_cache(maxsize=8)
def bad_rows(data: Data, modality: Modality) -> tuple[Fault, ...]:
    """Return the rows that are left out, as far as a client of a modality knows: the others have decoded no image.

    They are looked up once per process.
    """
    store = open_store(data)
    return (*store.faults, *(open_pixels(data, store).faults if modality == "image" else ()))


def load_examples(data: Data, subgroup: Subgroup, train_fraction: float) -> tuple[Examples, Examples, Examples]:
    """Return the training, validation and test rows of some classes; see :class:`data_partition.datasets.DataSet`.

    Of what its device was dealt of a class, a client owns the share ``train_fraction``, and a smaller share is a subset of a
    larger one. Images stay in the file of decoded pixels.

    Raises:
        DataError: the files are missing or damaged, too many rows cannot be used, or a split has no row.
    """
    store = open_store(data)
    if store.faults or any(store.changed(name) for name in subgroup.classes):
        store = open_store(data, again=True)  # files may have been put right in their places
    pixels = open_pixels(data, store) if subgroup.modality == "image" else None
    faults = pixels.faults if pixels else ()
    check_faults(data, store.num_rows - len(faults), (*store.faults, *faults))
    owned: dict[str, frozenset[str]] = {}
    parts: dict[str, ConceptSplit] = {}
    dealt = _dealt(data, store, subgroup) if data.devices_per_group > 1 else None
    for name in subgroup.classes:
        parts[name] = _split(data, store, name)
        mine = [item for item in parts[name].train[name] if dealt is None or item in dealt]
        if mine:
            owned[name] = owned_concepts(mine, train_fraction, 0, 1, disjoint=False)
    wanted = {
        "training": owned,
        "validation": {name: parts[name].val[name] for name in owned},
        "test": {name: parts[name].test[name] for name in owned},
    }
    train, val, test = (_select(data, store, pixels, subgroup, chosen, what) for what, chosen in wanted.items())
    return train, val, test


@lru_cache(maxsize=8)
def _groups_of(data: Data, folder: Path | None) -> dict[str, tuple[str, ...]]:
    """Return the class groups; where files name them, they are read again when the files change, and so the folder."""
    return groups_of(data)


def _split(data: Data, store: Store, name: str) -> ConceptSplit:
    """Split the items of one class, whatever their modality."""
    split_of = {row.item: row.split for row in store.rows(name)}
    if not split_of:
        raise DataError(
            f"data.dataset = '{data.dataset}' has no row of the class {name!r} in data.data-dir = '{data.data_dir}'."
        )
    test = {item for item, split in split_of.items() if split == "test"}
    free = seeded_order((item for item, split in split_of.items() if not split), TEST_SEED, "test")
    test.update(free[: max(0, round(TEST_SHARE * len(split_of)) - len(test))])
    return split_concepts({name: tuple(split_of)}, frozenset(test), data.val_fraction, data.seed)


def _dealt(data: Data, store: Store, subgroup: Subgroup) -> frozenset[str]:
    """Return the training items of the whole class group that the device of a client owns."""
    classes = find_subgroup(data, subgroup.partition_id).classes  # those of the client, of which a task has a part
    label_of = {item: name for name in classes for item in _split(data, store, name).train[name]}
    items = seeded_order(label_of, data.seed, "devices")

    def make() -> NDArray[np.int64]:
        domains = _domains(store, classes, items) if data.partitioner == "domain" else [""] * len(items)
        return deal(data, [label_of[item] for item in items], domains)

    settings = (data.partitioner, data.devices_per_group, data.alpha, data.classes_per_device, data.seed, data.val_fraction)
    key = hashlib.sha256(repr((settings, classes)).encode()).hexdigest()[:16]
    devices = kept_array(store, f"deal-{key}", make)
    return frozenset(item for item, device in zip(items, devices, strict=True) if device == subgroup.domain_index)


def _domains(store: Store, classes: Sequence[str], items: Sequence[str]) -> list[str]:
    found: dict[str, str] = {}
    for row in (row for name in classes for row in store.rows(name)):
        if found.setdefault(row.item, row.domain) != row.domain:
            raise DataError(
                f"item {row.item!r} has rows of the domains {found[row.item]!r} and {row.domain!r}: data.partitioner = "
                "'domain' deals items, and needs one domain for each."
            )
    return [found[item] for item in items]


def _select(
    data: Data, store: Store, pixels: Pixels | None, subgroup: Subgroup, chosen: dict[str, frozenset[str]], what: str
) -> Examples:
    """Return the rows of some items in the order of the data set, whatever the order of the client's classes."""
    places: list[int] = []
    labels: list[int] = []
    for name in sorted(chosen):
        mine = [row for row in store.rows(name) if row.modality == subgroup.modality]
        first = store.first[subgroup.modality][store.classes.index(name)]
        for place, row in enumerate(mine, start=first):
            if row.item in chosen[name] and not (pixels and place in pixels.bad):
                places.append(place)
                labels.append(subgroup.classes.index(name))
    if not labels:
        raise DataError(
            f"client {subgroup.partition_id} ({subgroup.modality}, {', '.join(subgroup.classes[:6])}) has no {what} row: "
            "raise data.train-fraction, lower data.devices-per-group, or look at the files of these classes."
        )
    if pixels:
        return MappedRows(pixels.images, np.array(places)), np.array(labels)
    return open_tokens(data, store).read(places, data.max_tokens), np.array(labels)
