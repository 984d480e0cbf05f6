"""How the benchmark of packing on watch data compares its arms."""

import pytest

from benchmarks.watch_packing import ARMS, fresh, gain, table
from models.groups import named_tensors

RUNS = [
    {"1:1": (50.0, 60.0), "1:3": (55.0, 66.0), "ensemble": (70.0, 71.0)},
    {"1:1": (52.0, 64.0), "1:3": (54.0, 62.0), "ensemble": (70.0, 73.0)},
]


def test_gains_are_paired_and_of_test():
    assert gain(RUNS, "1:1") == pytest.approx(2.0)
    assert gain(RUNS, "1:1", 0) == pytest.approx(3.5)
    assert gain(RUNS, "ensemble") == pytest.approx(-8.0)


def test_a_row_of_the_table_by_hand():
    found = table(RUNS)
    columns = {str(column.header): list(column.cells) for column in found.columns}
    assert columns["arm"] == ["1:1", "1:3", "ensemble"]
    assert columns["test"] == ["62.00", "64.00", "72.00"]
    assert columns["deviation"][0] == "2.83"
    assert columns["1:3 is above it by"] == ["+2.00 (1 of 2)", "", "-8.00 (0 of 2)"]
    assert next(iter(table(RUNS[:1]).columns[3].cells)) == "–"


def test_everybody_begins_alike():
    first, again, other = (named_tensors(fresh(seed)) for seed in (0, 0, 1))
    name = "head.classifier.weight"
    assert (first[name] == again[name]).all()
    assert not (first[name] == other[name]).all()
    assert len(ARMS) == 7
