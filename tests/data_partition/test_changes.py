"""Files that were written over in their places, which leaves their folders as old as before: they are read again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from config import Data
from data_partition.cache_folder import cache_folder
from data_partition.client_data import load_client
from data_partition.store import open_store
from tests.data_partition.record_trees import n24news_records, write_coco, write_n24news, write_parquet
from tests.data_partition.trees import example, write_oxford


def age(root: Path) -> None:
    for path in (root, *root.rglob("*")):
        os.utime(path, ns=(10**18, 10**18))


def overwrite(path: Path, content: bytes) -> None:
    """Write without a change of the folder's time."""
    before = path.parent.stat().st_mtime_ns
    path.write_bytes(content)
    assert path.parent.stat().st_mtime_ns == before


def labels(data: Data) -> dict[str, str]:
    kept = open_store(data)
    return {row.item: row.label for name in kept.classes for row in kept.rows(name)}


def hf(root: Path, moved: bool) -> None:
    rows = [(label, index) for label in range(3) for index in range(5)]
    names = ["b" if moved and row == (0, 0) else "abc"[row[0]] for row in rows]
    columns = {"text": ["\n".join(example(*row).lines) for row in rows], "label": names, "item": [f"{row}" for row in rows]}
    write_parquet(root / "all.parquet", columns)


def coco(root: Path, moved: bool) -> None:
    path = root / "annotations" / "instances_train2017.json"
    if not moved:
        write_coco(root, train=5, groups=1)
        return
    told = json.loads(path.read_text())
    told["annotations"][0]["category_id"] = told["annotations"][-1]["category_id"]
    overwrite(path, json.dumps(told).encode())


def n24news(root: Path, moved: bool) -> None:
    records = n24news_records(4, groups=1)
    if not moved:
        write_n24news(root, records)
        return
    records[0]["section"] = records[-5]["section"]
    overwrite(root / "news" / "nytimes_dataset.json", json.dumps(records).encode())


@pytest.mark.parametrize("write", [coco, n24news, hf])
def test_a_file_that_many_rows_come_from(write, tmp_path):
    root = tmp_path / "files"
    write(root, False)
    age(root)
    grouping = "own" if write is hf else "seed"
    data = Data(dataset=write.__name__, data_dir=str(root), grouping=grouping)
    before = labels(data)
    assert labels(data) == before
    assert len(list(cache_folder().glob("*.note"))) == 1
    write(root, True)
    after = labels(data)
    assert after.keys() == before.keys()
    assert sum(after[item] != before[item] for item in after) == 1


def test_a_row_that_could_not_be_used_is_put_right(tmp_path):
    root = write_oxford(tmp_path / "files", groups=1)
    path = root / "text_c10" / "class_00051" / "image_00001.txt"
    content = path.read_bytes()
    path.write_bytes(b"")
    age(root)
    data = Data(dataset="oxford102", grouping="seed", data_dir=str(root), modalities="text", max_bad_fraction=0.1)

    def number() -> int:
        found = load_client(data, 0)
        return len(found.train) + len(found.val) + len(found.test)

    before = number()
    overwrite(path, content)
    assert number() == before + 1
