"""Parquet and Arrow files of a Hugging Face data set: their columns, names of classes, and images; nothing else is loaded.

Read with pyarrow alone: no library of Hugging Face, no copy in a cache of theirs, and no network.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_partition.files import DataError

SUFFIXES: Final = (".parquet", ".arrow")
BATCH: Final = 256
"""Rows of a Parquet file that are read at a time where images are among the columns."""

COLUMN: Final = 1 << 32
"""A place in a file is COLUMN * number of the column + number of the row."""


def data_files(root: Path) -> list[Path]:
    """Return the data files below a folder, or the one file that ``root`` is, in the order of their paths."""
    found = [root] if root.is_file() else sorted(root.rglob("*"))
    return [path for path in found if path.suffix in SUFFIXES and not path.name.startswith((".", "cache-"))]


def schema(path: Path) -> pa.Schema:
    """Return the columns of a file.

    Raises:
        DataError: it is damaged.
    """
    try:
        if path.suffix == ".parquet":
            return pq.read_schema(path)
        with pa.memory_map(str(path)) as source:
            return _open(source).schema
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise DataError(f"{path} cannot be read ({error}): fetch or write the file again.") from None


def class_names(path: Path) -> dict[str, list[str]]:
    """Return the names of the classes of each column that has them (``ClassLabel``)."""
    told = (schema(path).metadata or {}).get(b"huggingface", b"{}")
    try:
        features = json.loads(told)["info"]["features"]
        return {name: list(feature["names"]) for name, feature in features.items() if feature.get("_type") == "ClassLabel"}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def batches(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield some columns of a file, batch by batch.

    Raises:
        DataError: it is damaged.
    """
    try:
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                yield from file.iter_batches(BATCH, columns=list(columns))
            return
        with pa.memory_map(str(path)) as source:
            reader = _open(source)
            for batch in reader:
                yield batch.select(list(columns))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): fetch or write the file again.") from None


def image_columns(path: Path) -> list[str]:
    """Return the columns that can hold images as bytes: binary ones, and those with bytes and path as ``Image`` has them."""
    return [field.name for field in schema(path) if _is_bytes(field.type) or _has_bytes(field.type)]


def column_values(path: Path, names: Sequence[str]) -> dict[str, list[Any]]:
    """Return whole columns, which should hold no images."""
    found: dict[str, list[Any]] = {name: [] for name in names}
    for batch in batches(path, list(dict.fromkeys(names))) if names else ():
        for name in found:
            found[name] += batch.column(name).to_pylist()
    return found


def images_of(path: Path, name: str) -> list[int | str | None]:
    """Return what each row holds of an image: a place in the file, the path of another file, or nothing."""
    number = schema(path).get_field_index(name)
    found: list[int | str | None] = []
    for batch in batches(path, [name]):
        column = batch.column(0)
        held, paths = column, [None] * len(column)
        if _has_bytes(column.type):
            held, paths = _child(column, "bytes"), _child(column, "path").to_pylist()
        elif not _is_bytes(column.type):
            found += column.to_pylist()
            continue
        for there, other in zip(held.is_valid().to_pylist(), paths, strict=True):
            found.append(COLUMN * number + len(found) if there else other)
    return found


def image_bytes(path: Path, places: Sequence[int]) -> Iterator[bytes]:
    """Yield the images at some places, which are of one column and ascending.

    Raises:
        DataError: the file is damaged or has changed.
    """
    if not places:
        return
    name = schema(path).names[places[0] // COLUMN]
    wanted, start = iter(places), 0
    place = next(wanted) % COLUMN
    for batch in batches(path, [name]):
        column = batch.column(0)
        held = _child(column, "bytes") if _has_bytes(column.type) else column
        while place < start + len(held):
            yield held[place - start].as_py() or b""
            following = next(wanted, None)
            if following is None:
                return
            place = following % COLUMN
        start += len(held)
    raise DataError(f"{path} has {start} rows, and row {place} was there before: it changed while it was read.")


def _open(source: pa.MemoryMappedFile) -> Any:
    """Open an Arrow file of either format: the stream that ``datasets`` writes, or the file with a table of contents."""
    head = source.read(6)
    source.seek(0)
    if head != b"ARROW1":
        return pa.ipc.open_stream(source)
    file = pa.ipc.open_file(source)
    return pa.RecordBatchReader.from_batches(file.schema, map(file.get_batch, range(file.num_record_batches)))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _has_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind) and {"bytes", "path"} <= {field.name for field in kind})


def _child(column: pa.StructArray, name: str) -> pa.Array:
    """Return a field of a column, null where the whole is."""
    return pc.struct_field(column, name)
