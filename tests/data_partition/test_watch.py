"""The watch data: what the array holds, and that no other file is opened."""

from __future__ import annotations

import numpy as np
import pytest

from config import Data
from data_partition import watch
from data_partition.client_data import load_client
from data_partition.files import DataError
from data_partition.recordings import open_recordings
from tests.data_partition.series_trees import trust_watch, write_watch

INSTALLED = pytest.mark.skipif(watch._installed() is None, reason="seglearn is not installed")


def data(folder="", **fields):
    return Data(dataset="watch", grouping="subjects", data_dir=str(folder), **{"train_fraction": 1.0, **fields})


def test_recordings_are_those_of_the_array(monkeypatch, tmp_path):
    folder = write_watch(tmp_path / "data", 40)
    trust_watch(monkeypatch, folder)
    found = np.load(folder / watch.FILE, allow_pickle=True).item()
    recordings = open_recordings(data(folder))
    assert len(recordings) == 140
    assert [one.subject for one in recordings] == [str(n) for n in range(1, 11) for _ in range(14)]
    for one in recordings:
        index = int(one.item.rpartition("/")[2])
        assert (one.subject, one.label) == (str(found["subject"][index]), watch.CLASSES[found["y"][index]])
        assert np.array_equal(one.values, found["X"][index].astype(np.float32))
        with pytest.raises(ValueError, match="read-only"):
            one.values[0, 0] = 1


def test_a_pickle_that_is_not_the_published_one_is_not_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").write_text, ("x",))

    folder = tmp_path / "data"
    folder.mkdir()
    np.save(folder / watch.FILE, np.array({"X": Trap()}, dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"expected eb122f23.*no other file is opened"):
        open_recordings(data(folder))
    assert not (tmp_path / "sprung").exists()
    np.load(folder / watch.FILE, allow_pickle=True)
    assert (tmp_path / "sprung").exists()  # the trap works


def test_an_array_with_other_classes_is_refused(monkeypatch, tmp_path):
    folder = write_watch(tmp_path / "data", 40)
    trust_watch(monkeypatch, folder)
    monkeypatch.setattr(watch, "CLASSES", ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "LIFT"))
    with pytest.raises(DataError, match=r"names the classes \['PEN'"):
        open_recordings(data(folder))


def test_a_missing_file_is_told(monkeypatch, tmp_path):
    with pytest.raises(
        DataError, match=r"(?s)was not found in data\.data-dir.*watch_dataset\.npy.*<- not found.*seglearn==1\.2\.5"
    ):
        open_recordings(data(tmp_path))
    monkeypatch.setattr(watch, "_installed", lambda: None)
    with pytest.raises(DataError, match=r"seglearn, which is not installed.*pip install --no-deps seglearn==1\.2\.5"):
        open_recordings(data())


def test_a_changed_file_is_read_anew(monkeypatch, tmp_path):
    folder = write_watch(tmp_path / "data", 40)
    trust_watch(monkeypatch, folder)
    first = open_recordings(data(folder))
    write_watch(folder, 50, seed=1)
    trust_watch(monkeypatch, folder)
    assert len(open_recordings(data(folder))[0].values) == len(first[0].values) + 10


@INSTALLED
def test_the_published_array():
    recordings = open_recordings(data())
    lengths = [len(one.values) for one in recordings]
    assert (len(recordings), min(lengths), max(lengths), sum(lengths)) == (140, 947, 2618, 244_102)
    client = load_client(data(subjects_per_client=2), 3)
    assert client.subgroup.domains == ("subject 7", "subject 8")
    assert client.train.inputs.shape[1:] == (6, 100)
    assert len(client.test) == 506
    assert len(client.train) == 749
    assert client.test.labels.unique().tolist() == list(range(7))
