"""What is made of any listing: official and drawn splits, domains, and rows that contradict one another or say nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from config import Data
from data_partition import decoded, listed, readers, store
from data_partition.client_data import load_client
from data_partition.datasets import DATASETS
from data_partition.files import DataError
from data_partition.rows import Fault, Listing, Row
from data_partition.subgroups import subgroups
from tests.data_partition.helpers import items_of


@pytest.fixture
def made(monkeypatch, tmp_path):
    """Serve a listing as data set ``hf``."""

    def serve(listing: Listing, **fields) -> Data:
        reader = readers.Reader(
            lambda data: "", lambda data: listing, lambda data: [tmp_path / "a"], None, lambda data: {"g": ("bird", "cat")}
        )
        for module in (readers, store, decoded):
            monkeypatch.setattr(module, "find_reader", lambda name: reader)
        return Data(dataset="hf", grouping="own", data_dir=str(tmp_path), train_fraction=1.0, **fields)

    return serve


def texts(**fields) -> tuple[Row, ...]:
    return tuple(
        Row(f"{label} {index}", "text", label, text=f"{label} {'red ' * index}", **fields)
        for label in ("bird", "cat")
        for index in range(10)
    )


def test_an_official_test_split_is_topped_up_to_a_fifth(made):
    rows = [Row(row.item, "text", row.label, "test" if row.item == "bird 3" else "", text=row.text) for row in texts()]
    data = made(Listing(tuple(rows), ()))
    kept = store.open_store(data)
    split = listed._split(data, kept, "bird")
    assert (len(split.test["bird"]), "bird 3" in split.test["bird"]) == (2, True)


def test_items_that_the_data_set_fixes_for_training_are_not_tested(made):
    fixed = made(Listing(tuple(Row(row.item, "text", row.label, "train", text=row.text) for row in texts()), ()))
    assert listed._split(fixed, store.open_store(fixed), "bird").test["bird"] == frozenset()
    with pytest.raises(DataError, match=r"client 0 \(text, bird, cat\) has no test row"):
        load_client(fixed, 0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (Row("bird 3", "image", "cat"), "item 'bird 3' has the class 'bird' and 'cat'"),
        (Row("bird 3", "image", "bird", "test"), "item 'bird 3' has the split '.*' and '.*', expected one"),
    ],
)
def test_rows_that_contradict_one_another(made, row, message):
    with pytest.raises(DataError, match=message):
        load_client(made(Listing((*texts(), row), ())), 0)


def test_domains(made):
    pytest.importorskip("flwr_datasets")
    rows = [Row(row.item, "text", row.label, "", ("a", "b")[int(row.item[-1]) % 2], text=row.text) for row in texts()]
    fields = {"partitioner": "domain", "devices_per_group": 2}
    data = made(Listing(tuple(rows), ()), **fields)
    assert [(one.modality, one.domain_index) for one in subgroups(data)] == [("text", 0), ("text", 1)]
    items = [set(items_of(data, one.subgroup, one.train)) for one in (load_client(data, 0), load_client(data, 1))]
    assert items[0]
    assert {int(item[-1]) % 2 for item in items[0]} == {0}
    assert {int(item[-1]) % 2 for item in items[1]} == {1}


def test_texts_without_words_are_bad_rows(made):
    gone, blank = Fault("y", "image", "gone"), Fault("bird x", "text", "the text has no words")
    data = made(Listing((*texts(), Row("bird x", "text", "bird", text=" , : ")), (gone,)), max_bad_fraction=0.1)
    load_client(data, 0)
    assert DATASETS["hf"].bad_rows(data, "text") == (gone, blank)
    with pytest.raises(DataError, match=r"2 of 22 rows cannot be used \(9\.09%\), and data.max-bad-fraction = 0\.05 allows 1"):
        DATASETS["hf"].check_files(data.model_copy(update={"max_bad_fraction": 0.05}))


def test_a_class_without_rows(made):
    data = made(Listing(tuple(row for row in texts() if row.label == "bird"), ()))
    with pytest.raises(DataError, match="'hf' has no row of the class 'cat'"):
        load_client(data, 0)


def test_a_class_in_two_groups(made, monkeypatch):
    data = made(Listing(texts(), ()))
    twice = replace(readers.find_reader("hf"), own_groups=lambda data: {"g": ("a",), "h": ("a",)})
    monkeypatch.setattr(readers, "find_reader", lambda name: twice)
    with pytest.raises(DataError, match="'hf': the classes a are in two groups"):
        subgroups(data)
