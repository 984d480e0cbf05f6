"""Data files for tests: a vocabulary of the size and form of bert-base-uncased, and a small CIFAR-100; items of a split."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from config import Data
from data_partition import decoded, store
from data_partition.cifar100 import CLASSES, FOLDER, ROW_BYTES, SUPERCLASS_OF, SUPERCLASSES
from data_partition.client_data import Split
from data_partition.emojipairs.catalogue import VOCAB_NAME
from data_partition.files import find_data_file
from data_partition.subgroups import Subgroup
from data_partition.text import BERT_SPECIAL_TOKENS, BERT_VOCAB_SIZE

OFFSET = 1000
"""Shipped token i is line OFFSET + i of the file made here; special tokens are where BERT has them."""


def bert_entries() -> list[str]:
    entries = [f"[unused{index}]" for index in range(BERT_VOCAB_SIZE)]
    for token, index in BERT_SPECIAL_TOKENS.items():
        entries[index] = token
    shipped = find_data_file(VOCAB_NAME).read_text(encoding="utf-8").splitlines()
    for index, token in enumerate(shipped):
        if token not in BERT_SPECIAL_TOKENS:
            entries[OFFSET + index] = token
    return entries


def write_entries(path: Path, entries: list[str]) -> Path:
    path.write_text("\n".join(entries) + "\n", encoding="utf-8")
    return path


def write_cifar100(data_dir: Path, train: int = 4, test: int = 2) -> Path:
    """Write a small CIFAR-100 in the official binary format, with ``train`` and ``test`` images of each of the 100 classes.

    The five classes of a superclass differ in the colour and direction of their stripes, with noise of a fixed seed. Classes
    come in turn: row 100 i + c is image i of class c. Returns ``data_dir``, for ``data.data-dir``.
    """
    rng = np.random.default_rng(0)
    folder = data_dir / FOLDER
    folder.mkdir(parents=True)
    colours = np.array([[230, 40, 40], [40, 230, 40], [40, 40, 230], [220, 220, 40], [40, 220, 220]])
    for name, images in (("train.bin", train), ("test.bin", test)):
        rows = np.zeros((images * len(CLASSES), ROW_BYTES), dtype=np.uint8)
        for row, values in enumerate(rows):
            fine = row % len(CLASSES)
            coarse = SUPERCLASS_OF[fine]
            place = list(SUPERCLASSES.values())[coarse].index(CLASSES[fine])
            stripes = (np.arange(32) // (2 + place) % 2)[None, :] * np.ones((32, 1))
            picture = colours[place][:, None, None] * (0.4 + 0.6 * (stripes if place % 2 else stripes.T))
            values[:2] = coarse, fine
            values[2:] = np.clip(picture + rng.normal(0, 10, (3, 32, 32)), 0, 255).astype(np.uint8).ravel()
        (folder / name).write_bytes(rows.tobytes())
    (folder / "coarse_label_names.txt").write_text("\n".join(SUPERCLASSES) + "\n", encoding="utf-8")
    (folder / "fine_label_names.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")
    return data_dir


def items_of(data: Data, subgroup: Subgroup, rows: Split) -> list[str]:
    """See through the tensors: which item each row is, by its pixels or its tokens."""
    kept = store.open_store(data)
    own = [row for name in subgroup.classes for row in kept.rows(name) if row.modality == subgroup.modality]
    if subgroup.modality == "image":
        pixels = decoded.open_pixels(data, kept)
        places = {row.item: place for place, row in enumerate(kept.all_rows("image"))}
        own = [row for row in own if places[row.item] not in pixels.bad]
        known = {pixels.images[places[row.item]].tobytes(): row.item for row in own}
    else:
        tokens, places = decoded.open_tokens(data, kept), {row.item: place for place, row in enumerate(kept.all_rows("text"))}
        known = {tokens.read([places[row.item]], data.max_tokens).tobytes(): row.item for row in own}
    assert len(known) == len(own), "two items look the same"
    return [known[one.numpy().tobytes()] for one in rows.inputs]
