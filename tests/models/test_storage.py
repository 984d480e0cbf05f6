import json

import numpy as np
import pytest

from models import storage
from models.storage import StorageError, load_record, remove_record, rounds_on_disk, save_record, write_atomic

TENSORS = {"a.w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([1, 2], np.int64)}


def test_round_trip_keeps_values_dtypes_and_facts(tmp_path):
    save_record(tmp_path / "x" / "round-0001", TENSORS, {"round": 1})
    tensors, facts = load_record(tmp_path / "x" / "round-0001")
    assert facts["round"] == 1
    assert {name: (value.dtype, value.tolist()) for name, value in tensors.items()} == {
        name: (value.dtype, value.tolist()) for name, value in TENSORS.items()
    }


def test_no_tensors_is_a_record_too(tmp_path):
    save_record(tmp_path / "r", {}, {})
    assert load_record(tmp_path / "r")[0] == {}


def test_a_changed_byte_is_noticed(tmp_path):
    save_record(tmp_path / "r", TENSORS, {})
    path = tmp_path / "r.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StorageError, match="damaged"):
        load_record(tmp_path / "r")


def test_missing_half_is_no_record(tmp_path):
    save_record(tmp_path / "round-0003", TENSORS, {})
    (tmp_path / "round-0003.json").unlink()
    assert rounds_on_disk(tmp_path) == []
    with pytest.raises(StorageError, match="missing"):
        load_record(tmp_path / "round-0003")


def test_damaged_json(tmp_path):
    save_record(tmp_path / "r", TENSORS, {})
    (tmp_path / "r.json").write_text('{"sha')
    with pytest.raises(StorageError, match="not JSON"):
        load_record(tmp_path / "r")


def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    write_atomic(tmp_path / "f", b"old")

    def crash(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(storage.os, "fsync", crash)
    with pytest.raises(OSError, match="no space"):
        write_atomic(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_rounds_and_removal(tmp_path):
    for number in (2, 10, 1):
        save_record(tmp_path / f"round-{number:04d}", {}, {})
    assert rounds_on_disk(tmp_path) == [1, 2, 10]
    remove_record(tmp_path / "round-0002")
    assert rounds_on_disk(tmp_path) == [1, 10]
    assert json.loads((tmp_path / "round-0010.json").read_text())["sha256"]
