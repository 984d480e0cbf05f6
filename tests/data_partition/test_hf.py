"""Parquet and Arrow files: which column is what, names of classes, splits, and that nothing is fetched unasked."""

from __future__ import annotations

import io
import socket
import sys
import types

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from config import ConfigError, Data, parse
from data_partition import column_files, hf
from data_partition.client_data import load_client
from data_partition.emojipairs.catalogue import CLASSES, PARQUET_NAME
from data_partition.files import DataError, find_data_file
from data_partition.subgroups import subgroups
from tests.data_partition.record_trees import check_splits, contents, write_parquet
from tests.data_partition.trees import example, write_jpeg


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def data(root, **fields):
    return Data(dataset="hf", data_dir=str(root), **{"grouping": "own", "train_fraction": 1.0, "image_size": 32, **fields})


def png(label, index):
    file = io.BytesIO()
    Image.fromarray(example(label, index).pixels).save(file, "PNG")
    return file.getvalue()


def columns(labels=3, start=0, number=5, image="image", text="text", label="label"):
    """Rows in turns, as ``datasets`` writes them: class 0, 1, 2, 0 …; images as bytes and path."""
    pairs = [(one, start + index) for index in range(number) for one in range(labels)]
    return {
        image: [{"bytes": png(*pair), "path": f"{pair[0]}-{pair[1]}.png"} for pair in pairs],
        text: ["\n".join(example(*pair).lines) for pair in pairs],
        label: [pair[0] for pair in pairs],
    }


NAMES = {"label": ["tiger", "apple", "car"]}


@pytest.fixture
def folder(tmp_path):
    """The layout of the hub: a file for each part of a split."""
    write_parquet(tmp_path / "data" / "train-00000-of-00002.parquet", columns(number=5), NAMES)
    write_parquet(tmp_path / "data" / "train-00001-of-00002.parquet", columns(number=5, start=5), NAMES)
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", columns(number=2, start=10), NAMES)
    return tmp_path


def test_parts_of_splits(folder):
    listing = hf.read(data(folder))
    check_splits(listing)
    assert {key: len(items) for key, items in contents(listing).items()} == {
        ("train", "image"): 30,
        ("train", "text"): 30,
        ("test", "image"): 6,
        ("test", "text"): 6,
    }
    assert listing.faults == ()
    first = [row for row in listing.rows if row.item == "data/test-00000-of-00001.parquet:1"]
    assert [(row.modality, row.label, row.text) for row in first] == [
        ("image", "apple", ""),
        ("text", "apple", "\n".join(example(1, 10).lines)),
    ]


def test_every_client_has_the_pixels_of_its_rows(folder):
    """Of the right file, row and class, as decoded here from the drawings that were written."""
    assert [(one.modality, one.classes) for one in subgroups(data(folder))] == [
        ("image", ("tiger", "apple", "car")),
        ("text", ("tiger", "apple", "car")),
    ]
    image, text = load_client(data(folder), 0), load_client(data(folder), 1)
    assert torch.equal(image.train.labels, text.train.labels)
    assert torch.bincount(image.test.labels).tolist() == [2, 2, 2]
    for split, indices in ((image.train, range(10)), (image.val, range(10)), (image.test, range(10, 12))):
        wanted = [{example(label, index).pixels.transpose(2, 0, 1).tobytes() for index in indices} for label in range(3)]
        assert all(one.numpy().tobytes() in wanted[label] for one, label in zip(split.inputs[:], split.labels, strict=True))


def test_names_of_columns_from_the_settings(tmp_path):
    told = columns(image="photo 1", text="words", label="kind") | {
        "super": [["a", "b", "a"][row % 3] for row in range(15)],
        "who": [f"person {row % 2}" for row in range(15)],
        "part": [("Train", "validation")[row >= 12] for row in range(15)],
        "number": list(range(100, 115)),
        "image": [None] * 15,
    }
    path = write_parquet(tmp_path / "all.parquet", told)
    chosen = "image=photo 1, text=words, label=kind, group=super, domain=who, split=part, item=number"
    for root in (tmp_path, path):
        listing = hf.read(data(root, columns=chosen))
        assert {(row.label, row.domain, row.split) for row in listing.rows if row.item == "113"} == {("1", "person 1", "test")}
        assert contents(listing)["train", "image"] == [str(number) for number in range(100, 112)]
        assert hf.own_groups(data(root, columns=chosen)) == {"a": ("0", "2"), "b": ("1",)}


def test_images_as_bytes_and_as_paths(tmp_path):
    told = columns()
    for name, values in (("bytes", [image["bytes"] for image in told["image"]]), ("missing", None)):
        if values is None:
            values = [f"pictures/{row}.jpg" for row in range(15)]
            for row in range(14):
                write_jpeg(tmp_path / name / "pictures" / f"{row}.jpg", example(row % 3, row // 3).pixels)
        write_parquet(tmp_path / name / "all.parquet", {"image": values, "label": told["label"]})
    assert len(hf.read(data(tmp_path / "bytes")).rows) == 15
    client = load_client(data(tmp_path / "bytes"), 0)
    assert len(client.train) + len(client.val) + len(client.test) == 15
    listing = hf.read(data(tmp_path / "missing"))
    assert [row.path.name for row in listing.rows] == [f"{row}.jpg" for row in range(14)]
    assert [(fault.item, fault.reason) for fault in listing.faults] == [("all.parquet:14", "no file pictures/14.jpg")]


def test_rows_that_hold_nothing_are_faults(tmp_path):
    told = columns() | {"label": [-1, None, 7, *([0, 1, 2] * 4)]}
    told["image"][3], told["text"][3] = None, " "
    told["image"][4] = {"bytes": None, "path": "not there.png"}
    told["text"][5] = None
    write_parquet(tmp_path / "all.parquet", told, NAMES)
    listing = hf.read(data(tmp_path))
    assert [(fault.item, fault.modality) for fault in listing.faults] == [
        ("all.parquet:0", ""),
        ("all.parquet:1", ""),
        ("all.parquet:2", ""),
        ("all.parquet:3", ""),
        ("all.parquet:4", "image"),
    ]
    assert [row.modality for row in listing.rows if row.item == "all.parquet:5"] == ["image"]


def test_lists_of_texts_are_one_text(tmp_path):
    write_parquet(
        tmp_path / "all.parquet", {"captions": [["One  cat", "two\ncats", None], [], ["a"]], "label": ["x", "y", "x"]}
    )
    listing = hf.read(data(tmp_path))
    assert [row.text for row in listing.rows] == ["One cat\ntwo cats", "a"]
    assert [fault.item for fault in listing.faults] == ["all.parquet:1"]


@pytest.mark.parametrize("table_of_contents", [True, False])
def test_arrow_files_as_save_to_disk_writes_them(tmp_path, table_of_contents):
    for split, start, number in (("train", 0, 8), ("validation", 8, 2)):
        table = pq.read_table(write_parquet(tmp_path / "parquet" / split, columns(start=start, number=number), NAMES))
        path = tmp_path / "saved" / split / "data-00000-of-00001.arrow"
        path.parent.mkdir(parents=True)
        make = pa.ipc.new_file if table_of_contents else pa.ipc.new_stream
        with pa.OSFile(str(path), "wb") as sink, make(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=4)
        (path.parent / "cache-0123.arrow").write_bytes(b"no table")
    listing = hf.read(data(tmp_path / "saved"))
    assert [len(contents(listing)[split, "image"]) for split in ("train", "test")] == [24, 6]
    client = load_client(data(tmp_path / "saved"), 0)
    wanted = {example(label, index).pixels.transpose(2, 0, 1).tobytes() for label in range(3) for index in (8, 9)}
    assert {one.numpy().tobytes() for one in client.test.inputs[:]} == wanted


def test_the_shipped_data_set_is_one_of_these(tmp_path):
    """Its images are bytes, its texts are rows of their own, and its concepts are items that are not parted."""
    (tmp_path / "all.parquet").write_bytes(find_data_file(PARQUET_NAME).read_bytes())
    settings = data(tmp_path, columns="label=class_name,group=theme,item=concept")
    listing = hf.read(settings)
    check_splits_of_items(listing)
    assert {row.label for row in listing.rows} == set(CLASSES)
    held = pq.read_table(find_data_file(PARQUET_NAME), columns=["modality"])["modality"].to_pylist()
    assert sum(row.modality == "image" for row in listing.rows) == held.count("image")
    assert len(listing.rows) == len(held)
    assert hf.own_groups(settings)["food"] == ("drink", "fruit", "meal", "vegetable")
    assert {row.domain for row in listing.rows} >= {"noto", "cldr-ko"}


def check_splits_of_items(listing):
    found = contents(listing)
    assert set(found) == {(split, modality) for split in ("train", "test") for modality in ("image", "text")}
    items = [set(found[split, "image"]) | set(found[split, "text"]) for split in ("train", "test")]
    assert not items[0] & items[1]


@pytest.mark.parametrize("number", [1, 4, 5, 300])
def test_images_at_places(tmp_path, monkeypatch, number):
    """Whatever the rows that are read at a time, and with more than one column of images."""
    monkeypatch.setattr(column_files, "BATCH", number)
    told = {"mask": [b"0"] * 15, "image": [None, *(str(row).encode() for row in range(1, 15))], "label": ["x"] * 15}
    path = write_parquet(tmp_path / "all.parquet", told)
    places = column_files.images_of(path, "image")
    assert places[0] is None
    assert places[1:] == [column_files.COLUMN + row for row in range(1, 15)]
    assert list(column_files.image_bytes(path, places[1:])) == [str(row).encode() for row in range(1, 15)]
    assert list(column_files.image_bytes(path, [places[2], places[9], places[14]])) == [b"2", b"9", b"14"]
    assert list(column_files.image_bytes(path, [])) == []
    with pytest.raises(DataError, match="changed while it was read"):
        list(column_files.image_bytes(path, [places[2], column_files.COLUMN + 15]))


def test_splits_by_the_names_of_files(tmp_path):
    for name in ("en/train/0.parquet", "en/valid/0.parquet", "en/latest/0.parquet"):
        write_parquet(tmp_path / name, {"text": ["a", "b"], "label": ["x", "y"]})
    found = contents(hf.read(data(tmp_path)))
    assert found["train", "text"] == ["en/train/0.parquet:0", "en/train/0.parquet:1"]
    assert found["test", "text"] == ["en/valid/0.parquet:0", "en/valid/0.parquet:1"]
    assert found["", "text"] == ["en/latest/0.parquet:0", "en/latest/0.parquet:1"]
    write_parquet(tmp_path / "en" / "test.parquet", {"text": ["a", "b"], "label": ["x", "y"]})
    assert "en/valid/0.parquet:0" in contents(hf.read(data(tmp_path)))["train", "text"]


@pytest.mark.parametrize(
    ("told", "chosen", "message"),
    [
        ({"image": [b"x"], "kind": ["a"]}, "", r"columns image, kind, .*only \{'image': 'image'\} was found"),
        ({"words": ["x"], "label": ["a"]}, "", r"only \{'label': 'label'\} was found"),
        ({"text": ["x"], "label": ["a"]}, "label=kind", r"names label=kind, and the files of .* have the columns text, label"),
        ({"text": ["x"], "label": ["a"], "split": ["unsupervised"]}, "", r"the column of splits has 'unsupervised'"),
    ],
)
def test_columns_that_do_not_fit(tmp_path, told, chosen, message):
    write_parquet(tmp_path / "all.parquet", told)
    with pytest.raises(DataError, match=message):
        hf.read(data(tmp_path, columns=chosen))


@pytest.mark.parametrize("name", ["all.parquet", "all.arrow"])
def test_damaged_files(tmp_path, name):
    (tmp_path / name).write_bytes(np.zeros(100, np.uint8).tobytes())
    with pytest.raises(DataError, match=rf"{name} cannot be read .*fetch or write the file again"):
        hf.read(data(tmp_path))


@pytest.mark.parametrize("value", ["image", "image=", "picture=img", "image=a,image=b"])
def test_wrong_settings(value):
    own = {"data.dataset": "hf", "data.grouping": "own"}
    with pytest.raises(ConfigError, match=r"data\.columns.*'image=img,label=fine_label'"):
        parse({**own, "data.columns": value})
    for wrong in ({"data.download": True}, {"data.hub-name": "a/b"}):
        with pytest.raises(ConfigError, match=r"data\.hub-name = '(a/b)?' with data\.download"):
            parse({**own, **wrong})


def fake_hub(monkeypatch, revisions):
    asked = []

    def snapshot_download(name, *, repo_type, revision, local_dir, allow_patterns):
        asked.append((name, repo_type, revision, tuple(allow_patterns)))
        if revisions[revision]:
            write_parquet(local_dir / "data" / "train.parquet", columns(number=6), NAMES)

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot_download))
    return asked


def test_nothing_is_fetched_unless_it_is_asked_for(tmp_path, monkeypatch):
    asked = fake_hub(monkeypatch, {"main": True})
    for place in ("", tmp_path / "owner", tmp_path):
        with pytest.raises(DataError, match=r"(?s)data\.dataset = 'hf'.*<- not found.*data\.download = true"):
            hf.read(data(place))
    assert asked == []


@pytest.mark.parametrize("converted", [False, True])
def test_a_data_set_of_the_hub_is_fetched_once(tmp_path, monkeypatch, converted):
    asked = fake_hub(monkeypatch, {"main": not converted, "refs/convert/parquet": converted})
    settings = data(tmp_path / "pets", hub_name="owner/pets", download=True)
    assert len(hf.read(settings).rows) == 36
    assert len(load_client(settings, 0).train) > 0
    wanted = ["main", "refs/convert/parquet"] if converted else ["main"]
    assert asked == [("owner/pets", "dataset", revision, ("*.parquet", "*.arrow")) for revision in wanted]


def test_a_data_set_without_tables_leaves_nothing(tmp_path, monkeypatch):
    fake_hub(monkeypatch, {"main": False, "refs/convert/parquet": False})
    with pytest.raises(DataError, match="'owner/pets' has neither Parquet nor Arrow files"):
        hf.read(data(tmp_path / "pets", hub_name="owner/pets", download=True))
    assert not (tmp_path / "pets").exists()
