"""Tensors and facts on disk: safetensors and JSON, written atomically, verified when read. No pickle.

A record ``NAME`` is two files: ``NAME.safetensors`` and then ``NAME.json``, which holds the facts and the hash of the first. A
crash between the two leaves no ``NAME.json``, and so no record.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as dump_tensors


class StorageError(OSError):
    """A record that is missing or damaged."""


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that a crash leaves either the old content or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, with an indent and a final newline."""
    write_atomic(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def save_record(path: Path, tensors: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
    """Write ``path.safetensors`` and ``path.json`` (``path`` has no suffix)."""
    content = dump_tensors({name: np.asarray(value, order="C") for name, value in tensors.items()})
    write_atomic(path.with_name(path.name + ".safetensors"), content)
    write_json(path.with_name(path.name + ".json"), {"sha256": hashlib.sha256(content).hexdigest(), **facts})


def load_record(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a record and verify its hash.

    Raises:
        StorageError: a file is missing, or the tensors are not those that were written.
    """
    json_path, tensor_path = path.with_name(path.name + ".json"), path.with_name(path.name + ".safetensors")
    try:
        facts = json.loads(json_path.read_text(encoding="utf-8"))
        content = tensor_path.read_bytes()
    except FileNotFoundError as error:
        raise StorageError(f"{error.filename} is missing: the record {path} is not complete") from None
    except json.JSONDecodeError as error:
        raise StorageError(f"{json_path} is not JSON ({error}): the record is damaged") from None
    found = hashlib.sha256(content).hexdigest()
    if found != facts.get("sha256"):
        raise StorageError(f"{tensor_path} has hash {found[:16]}…, expected {str(facts.get('sha256'))[:16]}…: it is damaged")
    return load_tensors(content), facts


def rounds_on_disk(folder: Path) -> list[int]:
    """Return the rounds that have a complete record ``round-NNNN`` in a folder, ascending."""
    return sorted(int(path.stem.removeprefix("round-")) for path in folder.glob("round-*.json"))


def remove_record(path: Path) -> None:
    """Remove a record; the JSON goes first, so that half a record never counts as one."""
    for suffix in (".json", ".safetensors"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
