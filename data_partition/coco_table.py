"""What of the annotations of COCO is needed, as a table of one row an image: its label by each rule, and its captions.

The table is made once from files of 450 and 90 MB, and then kept in the cache folder, a few MB.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from data_partition.files import DataError, stamp
from data_partition.json_records import records

LABEL_RULES: Final = ("first", "largest-area", "single-category")
"""The choices of ``data.label-rule``: the category of the first annotation in the order of the file, as in MM-Pick-a-back; the
one with the largest area summed over its annotations; or that of images whose annotations are all of one category."""

VERSION: Final = 1
"""Part of the name of a kept table: raised when its content changes."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Picture:
    """An image: name of its file, category (empty: none by this rule), and captions, one a line."""

    file_name: str
    label: str
    text: str


def pictures(instances: Path, captions: Path, rule: str, cache: Path | None = None) -> list[Picture]:
    """Return the images of one split in the order of the file.

    Args:
        instances: ``instances_*.json``.
        captions: ``captions_*.json``.
        rule: one of ``LABEL_RULES``.
        cache: folder that the table is kept in; None: nothing is kept.

    Raises:
        DataError: a file is damaged.
    """
    kept = _kept_path(cache, instances, captions) if cache else None
    table = _read_kept(kept) if kept else None
    if table is None:
        table = make_table(instances, captions)
        if kept:
            _keep(table, kept)
    columns = (table.column(name).to_pylist() for name in ("file_name", rule, "text"))
    return [Picture(*values) for values in zip(*columns, strict=True)]


def make_table(instances: Path, captions: Path) -> pa.Table:
    """Read both files; columns ``file_name``, one for each of ``LABEL_RULES``, ``text``.

    Raises:
        DataError: a file is damaged.
    """
    names: dict[int, str] = {}
    categories: dict[int, str] = {}
    areas: dict[int, dict[int, float]] = {}  # image -> category in the order of the file -> area
    with _one_file(instances):
        for key, record in records(instances):
            if key == "images":
                names[record["id"]] = record["file_name"]
            elif key == "categories":
                categories[record["id"]] = record["name"]
            elif key == "annotations":
                area, category = areas.setdefault(record["image_id"], {}), record["category_id"]
                area[category] = area.get(category, 0.0) + float(record["area"])
        _all_there(images=names, annotations=areas, categories=categories)
        labels = {image: _labels(areas.get(image, {}), categories) for image in names}
    texts: dict[int, list[str]] = {}
    with _one_file(captions):
        for key, record in records(captions):
            if key == "annotations" and (caption := " ".join(record["caption"].split())):
                texts.setdefault(record["image_id"], []).append(caption)
        _all_there(annotations=texts)
    by_rule = dict(zip(LABEL_RULES, map(list, zip(*labels.values(), strict=True)), strict=True))
    text = ["\n".join(texts.get(image, ())) for image in names]
    return pa.table({"file_name": list(names.values()), **by_rule, "text": text})


def _labels(area: dict[int, float], categories: dict[int, str]) -> tuple[str, str, str]:
    """Return the category of an image by each of ``LABEL_RULES``; empty: none."""
    if not area:
        return "", "", ""
    first, largest = next(iter(area)), max(area, key=lambda category: area[category])
    return categories[first], categories[largest], categories[first] if len(area) == 1 else ""


def _all_there(**found: dict[int, Any]) -> None:
    if empty := [name for name, content in found.items() if not content]:
        raise ValueError(f"nothing in {', '.join(empty)}")


@contextmanager
def _one_file(path: Path) -> Iterator[None]:
    """Say which file it is whose records are not as expected."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(
            f"{path}: {type(error).__name__} {error}: expected the lists and keys of the official file of COCO "
            "2017; unpack it again."
        ) from None


def _kept_path(cache: Path, instances: Path, captions: Path) -> Path:
    files = (instances.absolute(), captions.absolute())
    key = hashlib.sha256(f"{VERSION} {files} {stamp(*files)}".encode()).hexdigest()[:16]
    return cache / f"coco-{key}.parquet"


def _read_kept(path: Path) -> pa.Table | None:
    """Return a kept table; None: there is none that can be read."""
    try:
        return pq.read_table(path, columns=["file_name", *LABEL_RULES, "text"])
    except (OSError, ValueError, KeyError):  # pyarrow's own errors are ValueErrors
        return None


def _keep(table: pa.Table, path: Path) -> None:
    """Write a table whole or not at all; a folder that cannot be written to costs time, and no more."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f"{path.stem}-", delete=False) as file:
            pq.write_table(table, file, compression="zstd")
        Path(file.name).replace(path)
    except OSError as error:
        _log.warning("the table of %s is not kept, and will be made again: %s", path, error)
