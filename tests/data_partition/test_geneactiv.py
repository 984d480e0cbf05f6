"""GENEActiv: header and samples of an export, subjects and classes by folders, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from config import Data
from data_partition import geneactiv
from data_partition.client_data import load_client
from data_partition.files import DataError
from data_partition.recordings import open_recordings
from data_partition.subgroups import subgroups
from tests.data_partition.series_trees import write_geneactiv

RATE, SAMPLES = 20, 1800


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_geneactiv(tmp_path_factory.mktemp("geneactiv"), samples=SAMPLES)


def data(folder, **fields):
    return Data(dataset="geneactiv", grouping="subjects", data_dir=str(folder), train_fraction=1.0, **fields)


def test_an_export_is_a_header_and_samples(folder):
    rate, values = geneactiv.load(folder / "geneactiv" / "S03" / "walk" / "morning.csv")
    assert (rate, values.shape, values.dtype) == (20.0, (SAMPLES, 3), np.float32)
    assert np.allclose(values[[0, 999]], [[1.0, -3.0, 1.0], [1.999, -3.0, 1.0]])


def test_recordings_are_cut_into_half_minutes(folder):
    recordings = [one for one in open_recordings(data(folder)) if (one.subject, one.label) == ("S01", "sit")]
    assert [len(one.values) for one in recordings] == [600, 600, 600]
    assert np.allclose(np.concatenate([one.values[:, 0] for one in recordings]), np.arange(SAMPLES) / 1000, atol=1e-4)


def test_subjects_and_classes_are_folders(folder):
    settings = data(folder, window=100, step=0)
    found = subgroups(settings)
    assert [one.domains for one in found] == [(f"subject S0{n}",) for n in range(4)]  # the last fifth is tested on
    assert {one.classes for one in found} == {("sit", "walk")}
    client = load_client(settings, 1)
    assert client.train.inputs.shape == (2 * 2 * 6, 3, 100)
    assert (len(client.val), len(client.test)) == (2 * 6, 2 * 3 * 6)
    assert client.subgroup.domains == ("subject S01",)


def test_missing_files_are_drawn(tmp_path):
    with pytest.raises(DataError, match=r"(?s)needs data\.data-dir, which is empty.*geneactiv/SUBJECT/ACTIVITY/NAME\.csv"):
        subgroups(data(""))
    with pytest.raises(DataError, match=r"(?s)was not found in data\.data-dir.*NAME\.csv.*<- not found"):
        open_recordings(data(tmp_path))


def test_damaged_exports_are_refused(folder, tmp_path):
    text = (folder / "geneactiv" / "S00" / "sit" / "morning.csv").read_text().splitlines()
    path = tmp_path / "morning.csv"
    path.write_text("\n".join(text[:100]))
    with pytest.raises(DataError, match="none of its first 200 lines begins with a time"):
        geneactiv.load(path)
    path.write_text("\n".join([*text[:102], text[102].replace(",0.002", ",left"), *text[103:]]))
    with pytest.raises(DataError, match="a line without time, x, y and z"):
        geneactiv.load(path)


def test_a_value_that_is_missing_is_refused_by_its_recording(tmp_path):
    folder = write_geneactiv(tmp_path / "data", subjects=2, samples=300)
    path = folder / "geneactiv" / "S00" / "sit" / "morning.csv"
    path.write_text(path.read_text().replace(",0.0020,", ",,"))
    with pytest.raises(DataError, match=r"recording S00/sit/morning/000 has values that are no finite numbers"):
        open_recordings(data(folder))


def test_two_rates_are_refused(tmp_path):
    folder = write_geneactiv(tmp_path, subjects=2, samples=300)
    path = folder / "geneactiv" / "S01" / "walk" / "morning.csv"
    path.write_text(path.read_text().replace("20.0 Hz", "50.0 Hz"))
    with pytest.raises(DataError, match=r"20 samples a second and .*S01.* has 50"):
        open_recordings(data(folder))
