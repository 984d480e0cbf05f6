"""N24News: names of files and sections, texts, and rows that share an image or a text."""

from __future__ import annotations

import json

import pytest
import torch

from config import Data
from data_partition import n24news
from data_partition.client_data import load_client
from data_partition.files import DataError
from data_partition.group_tables import class_groups
from data_partition.listed import check_files
from data_partition.subgroups import subgroups
from tests.data_partition.record_trees import check_splits, n24news_record, n24news_records, write_n24news
from tests.data_partition.trees import write_jpeg


def data(root, **fields):
    return Data(dataset="n24news", grouping="seed", data_dir=str(root), **{"train_fraction": 1.0, "image_size": 32, **fields})


def test_groups_are_those_of_the_seed():
    groups = {
        "group1": ("Opinion", "Art_Design", "Television"),
        "group2": ("Music", "Travel", "Real_Estate"),
        "group3": ("Books", "Theater", "Health"),
        "group4": ("Sports", "Science", "Food"),
        "group5": ("Fashion_Style", "Movies", "Technology"),
        "group6": ("Dance", "Media", "Style"),
    }
    assert list(class_groups("n24news").items()) == list(groups.items())
    found = subgroups(data(""))
    assert [one.modality for one in found] == ["image"] * 6 + ["text"] * 6
    assert [one.classes for one in found[:6]] == [one.classes for one in found[6:]] == list(groups.values())


@pytest.mark.parametrize(
    ("section", "name"),
    [
        ("Art & Design", "Art_Design"),
        ("Art &amp; Design", "Art_Design"),
        ("Real Estate", "Real_Estate"),
        ("Fashion", "Fashion_Style"),
        ("Fashion & Style", "Fashion_Style"),
        ("Style", "Style"),
        (" Your  Money", "Your_Money"),
    ],
)
def test_classes_are_named_as_the_folders_of_the_seed(section, name):
    assert n24news.class_name(section) == name


@pytest.mark.parametrize("images", ["imgs", "images"])
@pytest.mark.parametrize("news", ["news/nytimes_dataset.json", "nytimes_dataset.json", "nytimes_dataset_full.json"])
def test_any_of_the_known_names_will_do(tmp_path, news, images):
    write_n24news(tmp_path, n24news_records(2), news, images)
    listing = n24news.read(data(tmp_path))
    used = {name for classes in class_groups("n24news").values() for name in classes}
    for modality in ("image", "text"):
        assert sorted(row.label for row in listing.rows if row.modality == modality) == sorted([*used, *used])
    assert {row.path.parent.name for row in listing.rows if row.path} == {images}
    assert listing.faults == ()


def test_a_text_is_headline_and_abstract_without_entities(tmp_path):
    records = n24news_records(3, groups=1)
    records[0] |= {"headline": "It&rsquo;s  &ldquo;new&rdquo;", "abstract": "\n R&amp;B "}
    records[1] |= {"headline": "Only this", "abstract": None}
    records[2] |= {"headline": "Please enable JS and disable any ad blocker", "abstract": "The rest"}
    write_n24news(tmp_path, records)
    texts = {row.item: row.text for row in n24news.read(data(tmp_path)).rows if row.modality == "text"}
    assert [texts[record["image_id"]] for record in records[:3]] == ["It’s “new”\nR&B", "Only this", "The rest"]
    assert not any("enable JS" in text for text in texts.values())


def test_a_row_without_image_keeps_its_text_and_the_other_way_round(tmp_path):
    records = n24news_records(4, groups=1)
    records[1] |= {"headline": "", "abstract": " "}
    write_n24news(tmp_path, records)
    (tmp_path / "imgs" / f"{records[0]['image_id']}.jpg").unlink()
    listing = n24news.read(data(tmp_path))
    one, other = records[0]["image_id"], records[1]["image_id"]
    assert [(fault.item, fault.modality) for fault in listing.faults] == [(one, "image"), (other, "text")]
    assert {(row.item, row.modality) for row in listing.rows if row.item in (one, other)} == {(one, "text"), (other, "image")}
    with pytest.raises(DataError, match=r"2 of 24 rows cannot be used"):
        check_files(data(tmp_path))
    check_files(data(tmp_path, max_bad_fraction=0.1))


def test_rows_that_share_an_image_or_a_text_are_one_item(tmp_path):
    """0 and 1 share an image, 1 and 2 a text; 3 has the text of 0 in another section, and is left out."""
    records = n24news_records(5, groups=1)
    a, b, c, other = records[0], records[1], records[2], records[5]
    b["image_id"] = a["image_id"]
    c |= {"headline": b["headline"], "abstract": b["abstract"]}
    other |= {"headline": a["headline"], "abstract": a["abstract"]}
    write_n24news(tmp_path, records)
    listing = n24news.read(data(tmp_path))
    rows = [row for row in listing.rows if row.item == a["image_id"]]
    assert sorted(row.modality for row in rows) == ["image", "image", "text", "text"]
    assert {row.label for row in rows} == {"Opinion"}
    assert other["image_id"] not in {row.item for row in listing.rows}
    assert len(listing.rows) == 2 * 15 - 2 - 2
    assert listing.faults == ()
    (left,) = listing.left_out
    assert (left.item, left.modality) == (other["image_id"], "image and text")
    assert left.reason == f"of Art_Design, shares an image or a text with articles of Opinion, such as {a['image_id']}"


def test_splits_are_by_item(tmp_path):
    """No image of a client is in two of its splits, nor a text, and both modalities are split alike."""
    records = n24news_records(10, groups=2)
    records[3] |= {"headline": records[0]["headline"], "abstract": records[0]["abstract"]}
    write_n24news(tmp_path, records)
    check_splits(n24news.read(data(tmp_path)))
    for group in range(2):
        image, text = (load_client(data(tmp_path), client) for client in (group, group + 6))
        for client in (image, text):
            parts = [{one.numpy().tobytes() for one in split.inputs[:]} for split in (client.train, client.val, client.test)]
            assert [len(split) for split in (client.train, client.val)] > [0, 0]
            assert not parts[0] & parts[2]
            assert not parts[0] & parts[1]
            assert not parts[1] & parts[2]
        assert torch.bincount(image.test.labels).tolist() == [2, 2, 2]


def test_any_kind_of_image(tmp_path):
    records = n24news_records(6, groups=1)
    write_n24news(tmp_path, records)
    write_jpeg(tmp_path / "imgs" / f"{records[0]['image_id']}.jpg", torch.zeros(8, 8, 3).byte().numpy(), mode="CMYK")
    client = load_client(data(tmp_path), 0)
    assert len(client.train) + len(client.val) + len(client.test) == 18


def test_the_expected_tree_marks_what_is_missing(tmp_path):
    write_n24news(tmp_path, n24news_records(1, groups=1), "other.json")
    told = n24news.missing(data(tmp_path))
    marked = [line for line in told.splitlines() if "<- not found" in line]
    assert len(marked) == 1
    assert "news/nytimes_dataset.json or nytimes_dataset.json" in marked[0]
    assert "imgs or images" in told
    with pytest.raises(DataError, match=r"github\.com/billywzh717/N24News"):
        n24news.read(data(tmp_path))


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{**n24news_record(0, 0, "Opinion"), "section": None}], "record 0: TypeError"),
        ([n24news_record(0, 0, "Opinion"), {"section": "Books"}], "record 1: KeyError 'image_id'"),
        ([1], "record 0: TypeError"),
        ({"news": [n24news_record(0, 0, "Opinion")]}, "record 0: TypeError an object with the key 'news'"),
    ],
)
def test_damaged_records(tmp_path, records, message):
    write_n24news(tmp_path, n24news_records(1, groups=1))
    (tmp_path / "news" / "nytimes_dataset.json").write_text(json.dumps(records))
    with pytest.raises(DataError, match=f"nytimes_dataset.json: {message}.*fetch the file again"):
        n24news.read(data(tmp_path))
