"""How the benchmark of packing compares its arms, and which folders it takes."""

import pytest

from benchmarks.packing_arms import ARMS, REFERENCES, differences, read_run, table

RUNS = [
    {0: {"start": 0.30, "self": 0.31, "uniform": 0.34}, 6: {"start": 0.60, "self": 0.62, "uniform": 0.58}},
    {0: {"start": 0.32, "self": 0.33, "uniform": 0.40}, 6: {"start": 0.64, "self": 0.60, "uniform": 0.64}},
]


def test_differences_are_paired_by_target():
    assert differences(RUNS, "uniform", "start", [0, 6]) == pytest.approx([6.0, -1.0])
    assert differences(RUNS[:1], "uniform", "self", [6]) == pytest.approx([-4.0])


def test_a_row_of_the_table_by_hand():
    found = {str(column.header): list(column.cells) for column in table(RUNS, {0: "image", 6: "text"}, "").columns}
    assert found["arm"] == ["start", "self", "uniform"]
    assert found["all"][2] == "49.0"
    assert (found["image"][2], found["text"][2]) == ("37.0", "61.0")
    assert found["over start (targets better, p)"][0] == ""
    assert found["over start (targets better, p)"][2].startswith("+2.5 (1/2, 0.")


def test_a_folder_without_a_finished_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has no results\.json and clients/"):
        read_run(tmp_path)


def test_a_run_that_packs_nothing_is_refused(tmp_path):
    (tmp_path / "clients").mkdir()
    (tmp_path / "results.json").write_text("{}")
    (tmp_path / "config.toml").write_text('[strategy]\nname = "backpack"\n')
    with pytest.raises(ValueError, match="expected 'pack'"):
        read_run(tmp_path)


def test_references_are_arms():
    assert set(REFERENCES) <= set(ARMS)
