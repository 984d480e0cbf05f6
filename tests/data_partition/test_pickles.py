"""Pickles of CIFAR are read, whichever Python wrote them, and what else a pickle may do is refused and not done."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from data_partition.files import DataError
from data_partition.pickles import read_pickle
from tests.data_partition.trees import python2_pickle

ROWS = np.arange(12, dtype=np.uint8).reshape(3, 4)


def write(folder: Path, content: bytes) -> Path:
    (folder / "batch").write_bytes(content)
    return folder / "batch"


def test_python_2(tmp_path):
    content = python2_pickle({"data": ROWS, "labels": [0, 1, 9], "filenames": ["a.png"]})
    ours = pickle.loads(content, encoding="bytes")
    assert np.array_equal(ours[b"data"], ROWS)  # what the tests write is what numpy would read
    found = read_pickle(write(tmp_path, content))
    assert found.keys() == {b"data", b"labels", b"filenames"}
    assert np.array_equal(found[b"data"], ROWS)
    assert (found[b"data"].dtype, found[b"labels"], found[b"filenames"]) == (np.uint8, [0, 1, 9], [b"a.png"])
    with pytest.raises(ValueError, match="read-only"):
        found[b"data"][0, 0] = 1


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_python_3(tmp_path, protocol):
    found = read_pickle(write(tmp_path, pickle.dumps({"data": ROWS, b"labels": [0, 1, 9]}, protocol)))
    assert np.array_equal(found[b"data"], ROWS)
    assert found[b"labels"] == [0, 1, 9]


class Call:
    """Pickled as a call of a function."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (Call(os.system, "touch harmed"), "system"),
        (Call(eval, "open('harmed', 'w')"), ".eval"),
        (Call(getattr, "", "join"), ".getattr"),
        (Call(Path, "harmed"), "pathlib"),
        (np.load, "numpy.load"),
        (np.array([object()]), "an array of the type"),
        (np.zeros(3), "'f8', expected 'u1'"),
        (np.int64(3), "scalar"),
    ],
)
def test_a_pickle_that_names_anything_else_is_refused(tmp_path, monkeypatch, value, named):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="is refused") as raised:
        read_pickle(write(tmp_path, pickle.dumps({"data": value}, 2)))
    assert named in str(raised.value)
    assert not (tmp_path / "harmed").exists()


def test_a_module_is_not_even_imported(tmp_path, monkeypatch):
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match=r"trap\.spring"):
        read_pickle(write(tmp_path, b"ctrap\nspring\n."))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (python2_pickle({"data": ROWS})[:-30], "is refused"),
        (b"", "is refused"),
        (b"version https://git-lfs", "is refused"),
        (pickle.dumps([1, 2], 2), "holds a list, expected a dict"),
        (python2_pickle({"data": ROWS}).replace(b"u1", b"i2"), "'i2'|u1"),
    ],
)
def test_damaged(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read_pickle(write(tmp_path, content))
