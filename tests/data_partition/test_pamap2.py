"""PAMAP2: which column is what, gaps, stretches of activities, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from config import CHANNELS, Data
from data_partition import pamap2
from data_partition.client_data import load_client
from data_partition.files import DataError
from data_partition.recordings import open_recordings
from data_partition.subgroups import subgroups
from tests.data_partition.series_trees import PULSE, write_pamap2

LINES = 700


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_pamap2(tmp_path_factory.mktemp("pamap2"), LINES)


def data(folder, **fields):
    return Data(dataset="pamap2", grouping="subjects", data_dir=str(folder), train_fraction=1.0, **fields)


def test_channels_are_heart_rate_and_thirteen_of_each_sensor(folder):
    """Column c of line i holds c + i / 10,000; columns of orientation, 16 to 19 of the first sensor, are not read."""
    assert len(CHANNELS["pamap2"]) == len(set(CHANNELS["pamap2"])) == 40
    activities, values = pamap2.load(folder / "PAMAP2_Dataset" / "Protocol" / "subject101.dat")
    assert activities[[0, 49, 50, 749, 750]].tolist() == [0, 0, 1, 1, 0]
    assert values.shape == (len(activities), 40)
    names = dict(zip(CHANNELS["pamap2"], values[200] - 200 / 10_000, strict=True))
    columns = {"hand-temperature": 3, "hand-acc16-x": 4, "hand-magnet-z": 15, "chest-temperature": 20, "chest-acc6-y": 25}
    columns |= {"ankle-temperature": 37, "ankle-gyro-x": 44, "ankle-magnet-z": 49}
    assert {name: float(names[name]) for name in columns} == pytest.approx(columns, abs=1e-3)


def test_gaps_are_filled_by_straight_lines(folder):
    _, values = pamap2.load(folder / "PAMAP2_Dataset" / "Protocol" / "subject104.dat")
    assert np.allclose(values[:, 0], PULSE)  # named in every eleventh line
    lost = values[100:103, CHANNELS["pamap2"].index("chest-acc16-x")]
    assert lost == pytest.approx([21 + i / 10_000 for i in (100, 101, 102)], abs=1e-4)


def test_recordings_are_stretches_of_one_activity_at_a_third_of_the_rate(folder, monkeypatch):
    monkeypatch.setattr(pamap2, "PIECE", 100)
    recordings = [one for one in pamap2.read(data(folder)) if one.subject == "103"]
    assert [one.label for one in recordings] == ["lying", "lying", "walking", "walking", "rope-jumping", "rope-jumping"]
    assert [len(one.values) for one in recordings] == [117, 117] * 3
    assert len({one.item for one in recordings}) == 6
    temperature = np.concatenate([one.values[:, 1] for one in recordings[2:4]])
    expected = 3 + (50 + LINES + 50 + 3 * np.arange(234)) / 10_000  # lines of the second stretch, every third
    assert np.allclose(temperature, expected, atol=1e-4)


def test_clients_are_the_subjects_but_those_of_the_test(folder, monkeypatch):
    monkeypatch.setattr(pamap2, "PIECE", 80)
    settings = data(folder, window=40, step=20)
    assert [one.domains for one in subgroups(settings)] == [(f"subject {n}",) for n in (101, 102, 103, 104, 107, 108, 109)]
    client = load_client(settings, 0)
    assert client.subgroup.classes == tuple(pamap2.ACTIVITIES.values())
    assert client.train.inputs.shape[1:] == (40, 40)
    assert sorted(set(client.train.labels.tolist())) == [0, 3, 11]  # of the twelve classes
    # Three parts of 78 samples of each activity: two to train on, with 2 windows each, one to validate on, with 1.
    assert (len(client.train), len(client.val), len(client.test)) == (3 * 2 * 2, 3 * 1 * 1, 2 * 3 * 3 * 1)
    one_out = subgroups(data(folder, test_subjects="101"))
    assert [one.domains for one in one_out] == [(f"subject {n}",) for n in range(102, 110)]


def test_the_second_reading_is_of_the_cache(folder, monkeypatch):
    first = open_recordings(data(folder))
    monkeypatch.setattr(pamap2, "load", lambda path: pytest.fail("read again"))
    assert open_recordings(data(folder)) is first


def test_missing_files_are_drawn(folder, tmp_path):
    with pytest.raises(DataError, match=r"(?s)needs data\.data-dir, which is empty.*Protocol/subject101\.dat"):
        open_recordings(data(""))
    target = tmp_path / "Protocol"
    target.mkdir()
    for subject in pamap2.SUBJECTS[:-1]:
        (target / f"subject{subject}.dat").write_text("")
    with pytest.raises(DataError) as raised:
        open_recordings(data(tmp_path))
    assert [line for line in str(raised.value).splitlines() if "<- not found" in line] == [
        line for line in str(raised.value).splitlines() if "subject109" in line
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [row.rpartition(" ")[0] for row in rows], "has 53 columns; expected 54"),
        (lambda rows: [rows[0], rows[1].replace(" 0 ", " NaN ", 1), *rows[2:]], "an activity in each line"),
        (lambda rows: [*rows[:3], rows[3].replace("3.", "x."), *rows[4:]], "is no table of numbers"),
        (lambda rows: [" ".join([*row.split()[:2], "NaN", *row.split()[3:]]) for row in rows], "heart-rate has no value"),
    ],
)
def test_damaged_files_are_refused(folder, tmp_path, change, message):
    rows = (folder / "PAMAP2_Dataset" / "Protocol" / "subject101.dat").read_text().splitlines()[:300]
    path = tmp_path / "subject101.dat"
    path.write_text("\n".join(change(rows)) + "\n")
    with pytest.raises(DataError, match=message):
        pamap2.load(path)
