"""A tree of folders: names of splits, groups, items that both modalities have, and files that are no examples."""

from __future__ import annotations

import shutil

import pytest
import torch

from config import Data
from data_partition import folder
from data_partition.client_data import load_client
from data_partition.files import DataError
from data_partition.subgroups import subgroups
from tests.data_partition.record_trees import FOLDER_GROUPS, check_splits, contents, write_folder
from tests.data_partition.trees import example, write_jpeg, write_lines


def data(root, **fields):
    return Data(dataset="folder", data_dir=str(root), **{"grouping": "own", "train_fraction": 1.0, "image_size": 32, **fields})


NAMES = [name for names in FOLDER_GROUPS.values() for name in names]
TRAINED = sorted(f"{name}/{name}_{index}" for name in NAMES for index in range(6))
TESTED = sorted(f"{name}/{name}_{index}" for name in NAMES for index in range(6, 8))


@pytest.mark.parametrize(("text", "tested"), [("text", "test"), ("caption", "val")])
def test_the_trees_of_the_seed(tmp_path, text, tested):
    listing = folder.read(data(write_folder(tmp_path, text=text, tested=tested)))
    assert contents(listing) == {
        (split, modality): items for split, items in (("train", TRAINED), ("test", TESTED)) for modality in ("image", "text")
    }
    check_splits(listing)
    assert {row.label for row in listing.rows} == set(NAMES)
    assert all(row.item.startswith(f"{row.label}/") for row in listing.rows)
    assert listing.faults == ()


def test_val_beside_test_is_trained_on(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "image" / "train").rename(tmp_path / "image" / "val")
    (tmp_path / "text" / "val").mkdir()
    assert contents(folder.read(data(tmp_path)))["train", "image"] == TRAINED


def test_without_splits_a_test_share_is_drawn(tmp_path):
    write_folder(tmp_path, train=8, test=2)
    for modality in ("image", "text"):
        for split in ("train", "test"):
            shutil.copytree(tmp_path / modality / split, tmp_path / "whole" / modality, dirs_exist_ok=True)
        shutil.copytree(tmp_path / modality / "train", tmp_path / "part" / modality / "train")
    for name, number in (("whole", 90), ("part", 72)):
        listing = folder.read(data(tmp_path / name))
        assert {key: len(items) for key, items in contents(listing).items()} == {("", "image"): number, ("", "text"): number}
        client = load_client(data(tmp_path / name), 0)
        assert torch.bincount(client.test.labels).tolist() == [2, 2, 2]


def test_groups_and_clients_are_in_the_order_of_the_folders(tmp_path):
    """group2 is before group10, and a group of texts is found by its classes: its folder has another name."""
    write_folder(tmp_path)
    assert list(folder.own_groups(data(tmp_path)).items()) == list(FOLDER_GROUPS.items())
    found = subgroups(data(tmp_path))
    assert [one.modality for one in found] == ["image"] * 3 + ["text"] * 3
    assert [one.classes for one in found[:3]] == [one.classes for one in found[3:]] == list(FOLDER_GROUPS.values())
    assert len(subgroups(data(tmp_path, grouping="all"))) == 2


def test_groups_with_the_modality_in_their_names_are_one(tmp_path):
    write_folder(tmp_path)
    for modality, old in (("image", "group1"), ("text", "group11")):
        for split in ("train", "test"):
            (tmp_path / modality / split / old).rename(tmp_path / modality / split / f"Animal1_{modality}")
    assert folder.own_groups(data(tmp_path))["Animal1"] == ("ant", "bee", "cat")


def test_one_modality_is_enough_and_texts_may_have_groups_of_their_own(tmp_path):
    write_folder(tmp_path)
    shutil.rmtree(tmp_path / "image" / "train" / "group2")
    shutil.rmtree(tmp_path / "image" / "test" / "group2")
    assert list(folder.own_groups(data(tmp_path))) == ["group1", "group10", "group12"]
    assert [(one.modality, one.group) for one in subgroups(data(tmp_path))] == [
        ("image", 0),
        ("image", 1),
        ("text", 0),
        ("text", 1),
        ("text", 2),
    ]
    shutil.rmtree(tmp_path / "image")
    assert {one.modality for one in subgroups(data(tmp_path))} == {"text"}


def test_where_the_trees_disagree_the_split_of_the_image_counts(tmp_path):
    """The seed's trees were split twice, so that the caption of a test image is among the training captions."""
    write_folder(tmp_path)
    texts = tmp_path / "text"
    moved = [("train", "test", "ant_0"), ("test", "train", "ant_7")]
    for source, target, name in moved:
        (texts / source / "group11" / "ant" / f"{name}.txt").rename(texts / target / "group11" / "ant" / f"{name}.txt")
    listing = folder.read(data(tmp_path))
    check_splits(listing)
    assert contents(listing)["train", "text"] == TRAINED
    assert contents(listing)["test", "text"] == TESTED


def test_a_name_that_was_given_twice_belongs_to_its_split(tmp_path):
    write_folder(tmp_path)
    for modality, group in (("image", "group1"), ("text", "group11")):
        place = tmp_path / modality / "test" / group / "ant"
        for path in place.iterdir():
            path.rename(path.with_stem(f"ant_{int(path.stem[-1]) - 6}"))
    listing = folder.read(data(tmp_path))
    check_splits(listing)
    found = contents(listing)
    for modality in ("image", "text"):
        assert [item for item in found["test", modality] if item.startswith("ant")] == [
            "ant/ant_0 of test",
            "ant/ant_1 of test",
        ]
        assert found["train", modality][:3] == ["ant/ant_0 of train", "ant/ant_1 of train", "ant/ant_2"]
    assert listing.faults == ()


def test_a_training_file_that_is_a_test_file_too_is_a_fault(tmp_path):
    """Nor is its text trained on: it belongs to the test image."""
    write_folder(tmp_path)
    images = tmp_path / "image"
    shutil.copy(images / "train" / "group1" / "ant" / "ant_0.jpg", images / "test" / "group1" / "ant" / "ant_0.jpg")
    listing = folder.read(data(tmp_path))
    check_splits(listing)
    assert [(fault.item, fault.modality) for fault in listing.faults] == [("ant/ant_0", "image")]
    assert {row.split for row in listing.rows if row.item == "ant/ant_0"} == {"test"}


def test_folders_inside_a_class_are_domains(tmp_path):
    write_folder(tmp_path)
    shown = example(0, 0)
    for style in ("noto", "twemoji"):
        write_jpeg(tmp_path / "image" / "train" / "group1" / "ant" / style / "new.jpg", shown.pixels)
    rows = [row for row in folder.read(data(tmp_path)).rows if row.item == "ant/new"]
    assert [(row.domain, row.modality, row.split) for row in rows] == [
        ("noto", "image", "train"),
        ("twemoji", "image", "train"),
    ]


def test_texts_in_latin_1_and_files_that_are_no_examples(tmp_path):
    write_folder(tmp_path)
    place = tmp_path / "text" / "train" / "group11" / "ant"
    write_lines(place / "ant_0.txt", [" café \x00 noir", "", "naïve"], encoding="latin-1")
    write_lines(place / "ant_1.txt", [" "])
    write_lines(place / "ant_2.md", ["words"])
    for name in (".DS_Store", "Thumbs.db"):
        write_lines(place / name, ["no data"])
    listing = folder.read(data(tmp_path))
    assert [row.text for row in listing.rows if (row.item, row.modality) == ("ant/ant_0", "text")] == ["café noir\nnaïve"]
    assert [(fault.item, fault.modality) for fault in listing.faults] == [("ant/ant_1", "text"), ("ant/ant_2", "text")]
    assert "has no text" in listing.faults[0].reason
    assert "ant_2.md is none of .txt" in listing.faults[1].reason


def test_a_tree_that_is_not_there_is_drawn(tmp_path):
    told = folder.missing(data(tmp_path))
    assert [line.split()[0] for line in told.splitlines() if "<- not found" in line] == ["image", "text"]
    assert "needs data.data-dir" in folder.missing(data(""))
    with pytest.raises(DataError, match="GROUP/CLASS/NAME"):
        folder.own_groups(data(tmp_path))


def test_groups_that_contradict_one_another_are_refused(tmp_path):
    write_folder(tmp_path)
    images = tmp_path / "image" / "train"
    shutil.copytree(images / "group1" / "ant", images / "group2" / "ant")
    with pytest.raises(DataError, match=r"'ant' is in the image groups 'group1' and 'group2'"):
        folder.own_groups(data(tmp_path))
    shutil.rmtree(images / "group2" / "ant")
    shutil.rmtree(tmp_path / "text" / "train" / "group11" / "ant")
    shutil.rmtree(tmp_path / "text" / "test" / "group11" / "ant")
    with pytest.raises(
        DataError, match=r"text group 'group11' has the classes bee, cat, and the group 'group1' has ant, bee, cat"
    ):
        folder.own_groups(data(tmp_path))
