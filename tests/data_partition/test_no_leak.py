"""No item is in two splits of any client, in any modality: no caption of a test image is trained on, in any data set.

CIFAR-100, whose rows are not listed, has its own test in ``test_cifar100``, and emojipairs in ``emojipairs/``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from config import LISTED, Data
from data_partition import store
from data_partition.client_data import load_client
from tests.data_partition.helpers import items_of
from tests.data_partition.record_trees import (
    n24news_records,
    write_coco,
    write_folder,
    write_n24news,
    write_parquet,
)
from tests.data_partition.trees import example, write_cifar10, write_cub, write_jpeg, write_oxford


def write_hf(root: Path) -> None:
    """Images by path and texts, apart from one another: two files whose rows belong together by the column of items."""
    rows = [(label, index) for label in range(3) for index in range(8)]
    names, labels = [f"{label}-{index}" for label, index in rows], [row[0] for row in rows]
    for name, row in zip(names, rows, strict=True):
        write_jpeg(root / "images" / f"{name}.jpg", example(*row).pixels)
    texts = ["\n".join(example(*row).lines) for row in rows]
    write_parquet(root / "images.parquet", {"image": [f"images/{name}.jpg" for name in names], "label": labels, "item": names})
    write_parquet(root / "texts.parquet", {"text": texts[::-1], "label": labels[::-1], "item": names[::-1]})


SETS = {  # how it is written, its grouping, and the clients that have rows, images first
    "cub": (write_cub, "seed", (0, 1, 27, 28)),
    "oxford102": (write_oxford, "seed", (0, 1, 6, 7)),
    "cifar10": (write_cifar10, "pairs", (0, 1, 2, 3, 4)),
    "coco": (write_coco, "seed", (0, 1, 15, 16)),
    "n24news": (lambda root: write_n24news(root, n24news_records(6, groups=2)), "seed", (0, 1, 6, 7)),
    "folder": (write_folder, "own", (0, 1, 2, 3, 4, 5)),
    "hf": (write_hf, "own", (0, 1)),
}


def test_all_are_here():
    assert {*SETS} == {*LISTED}


@pytest.mark.parametrize("name", SETS)
def test_no_item_is_in_two_splits_in_any_modality(name, tmp_path):
    write, grouping, clients = SETS[name]
    write(tmp_path / "files")
    more = {} if name == "cifar10" else {"image_size": 32, "max_tokens": 60}
    data = Data(
        dataset=name, grouping=grouping, data_dir=str(tmp_path / "files"), train_fraction=1.0, val_fraction=0.3, **more
    )
    parts: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for client in clients:
        found = load_client(data, client)
        for split, items in parts.items():
            mine = items_of(data, found.subgroup, getattr(found, split))
            assert mine
            assert len(mine) == len(set(mine))
            items += mine
    train, val, test = (set(items) for items in parts.values())
    assert not train & val
    assert not train & test
    assert not val & test
    kept = store.open_store(data)
    assert train | val | test == {row.item for modality in ("image", "text") for row in kept.all_rows(modality)}
    texts = 1 if name == "cifar10" else 2
    assert {split: len(items) for split, items in parts.items()} == {
        split: texts * len(set(items)) for split, items in parts.items()
    }
