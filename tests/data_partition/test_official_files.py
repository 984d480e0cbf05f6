"""CIFAR-10, Oxford-102 and CUB-200-2011 in their official files: what is listed, and what is refused or counted."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from config import Data
from data_partition import cifar10, cub, oxford102
from data_partition.datasets import DATASETS
from data_partition.files import DataError
from data_partition.readers import find_reader
from tests.data_partition.trees import (
    example,
    python2_pickle,
    write_cifar10,
    write_cub,
    write_jpeg,
    write_lines,
    write_oxford,
    write_oxford_labels,
)

GROUPING = {"cifar10": "pairs", "oxford102": "seed", "cub": "seed"}
WRITE = {"cifar10": write_cifar10, "oxford102": write_oxford, "cub": write_cub}


def data(name: str, root: Path | str) -> Data:
    return Data(dataset=name, grouping=GROUPING[name], data_dir=str(root))


def listed(name: str, root: Path):
    return find_reader(name).read(data(name, root))


def rows_of(listing, modality):
    return {row.item: row for row in listing.rows if row.modality == modality}


@pytest.mark.parametrize("name", WRITE)
def test_no_folder_and_missing_files_show_the_expected_tree(name, tmp_path):
    with pytest.raises(DataError, match=rf"data\.dataset = '{name}' needs data\.data-dir, which is empty"):
        DATASETS[name].check_files(data(name, ""))
    reader = find_reader(name)
    assert (
        reader.missing(data(name, tmp_path)).count("<- not found")
        == len(reader.missing(data(name, tmp_path)).splitlines()) - 3
    )
    WRITE[name](tmp_path)
    assert reader.missing(data(name, tmp_path)) == ""
    gone = reader.inputs(data(name, tmp_path))[1]
    gone.rename(tmp_path / "elsewhere")
    told = reader.missing(data(name, tmp_path)).splitlines()
    assert [gone.name in line for line in told if "<- not found" in line] == [True]
    assert "https://" in told[-1]


# CUB-200-2011


def test_cub_rows(tmp_path):
    write_cub(tmp_path, per_class=3)
    found = listed("cub", tmp_path)
    images, texts = rows_of(found, "image"), rows_of(found, "text")
    assert found.faults == ()
    assert images.keys() == texts.keys()
    assert len(images) == 10 * 3  # and none of the species that is not used
    row = images["001.Black_footed_Albatross/Black_Footed_Albatross_0002_1"]
    assert (row.label, row.split) == ("001.Black_footed_Albatross", "")
    assert row.path.is_file()
    assert texts[row.item].text.splitlines() == [" ".join(line.split()) for line in example(0, 1).lines]


@pytest.mark.parametrize("move", [("CUB_200_2011", "."), ("cvpr2016_cub", "birds")])
def test_cub_other_places(tmp_path, move):
    """The folder itself as data folder, and the captions where AttnGAN puts them."""
    write_cub(tmp_path / "a", per_class=2, groups=1)
    if move[1] == ".":
        (tmp_path / "a" / "cvpr2016_cub" / "text_c10").rename(tmp_path / "a" / "CUB_200_2011" / "text_c10")
        root = tmp_path / "a" / "CUB_200_2011"
    else:
        (tmp_path / "a" / "birds").mkdir()
        (tmp_path / "a" / "cvpr2016_cub" / "text_c10").rename(tmp_path / "a" / "birds" / "text")
        root = tmp_path / "a"
    assert len(listed("cub", root).rows) == 2 * 2 * 5


def test_cub_joins_captions_by_numbers(tmp_path):
    """Names of species differ: of the folder, and of the files; numbers of images repeat in other species."""
    write_cub(tmp_path, per_class=3)
    captions = tmp_path / "cvpr2016_cub" / "text_c10"
    before = {item: row.text for item, row in rows_of(listed("cub", tmp_path), "text").items()}
    folder = (captions / "009.Brewer_Blackbird").rename(captions / "009.Brewers_Blackbird")
    for path in list(folder.iterdir()):
        path.rename(path.with_name(path.name.replace("Brewer_", "Brewers_")))
    found = listed("cub", tmp_path)
    assert found.faults == ()
    assert {item: row.text for item, row in rows_of(found, "text").items()} == before


def test_cub_edge_cases(tmp_path):
    write_cub(tmp_path, per_class=4)
    first, second = "001.Black_footed_Albatross", "002.Laysan_Albatross"
    captions = tmp_path / "cvpr2016_cub" / "text_c10"
    (captions / first / "Black_Footed_Albatross_0001_0.txt").unlink()
    write_lines(captions / first / "Black_Footed_Albatross_0002_1.txt", ["un oiseau à bec foncé\0"], "latin-1")
    write_lines(captions / first / "Black_Footed_Albatross_0099_99.txt", ["a bird nobody saw"])
    labels = tmp_path / "CUB_200_2011" / "image_class_labels.txt"
    lines = labels.read_text().splitlines()
    assert lines[4:6] == ["5 2", "6 2"]
    labels.write_text("\n".join([*lines[:4], "5 3", *lines[6:]]) + "\n")  # image 5 has another class, image 6 none
    found = listed("cub", tmp_path)
    texts, images = rows_of(found, "text"), rows_of(found, "image")
    assert texts[f"{first}/Black_Footed_Albatross_0002_1"].text == "un oiseau à bec foncé"
    assert f"{first}/Black_Footed_Albatross_0001_0" in images
    assert f"{first}/Black_Footed_Albatross_0001_0" not in texts
    assert {(fault.item, fault.modality) for fault in found.faults} == {
        (f"{first}/Black_Footed_Albatross_0001_0", "text"),
        (f"{first}/Black_Footed_Albatross_0099_99", "text"),
        (f"{second}/Laysan_Albatross_0001_1000", "image"),
        (f"{second}/Laysan_Albatross_0002_1001", "image"),
    }
    reasons = " | ".join(fault.reason for fault in found.faults)
    for words in ("there are no captions", "has no image in", "has the class 3", "has no line in"):
        assert words in reasons
    # A row whose label is in doubt is used in neither modality.
    assert not {f"{second}/Laysan_Albatross_0001_1000", f"{second}/Laysan_Albatross_0002_1001"} & {*images, *texts}


@pytest.mark.parametrize("line", ["x 001.Black_footed_Albatross/a.jpg", "7", "1 a.jpg\n1 b.jpg"])
def test_cub_damaged_tables(tmp_path, line):
    write_cub(tmp_path, per_class=2, groups=1)
    (tmp_path / "CUB_200_2011" / "images.txt").write_text(f"{line}\n")
    with pytest.raises(DataError, match=r"images\.txt has the line .*, expected an id of its own and a value"):
        listed("cub", tmp_path)


# Oxford-102


def test_oxford_rows(tmp_path):
    write_oxford(tmp_path, per_class=3)
    found = listed("oxford102", tmp_path)
    images, texts = rows_of(found, "image"), rows_of(found, "text")
    assert found.faults == ()
    assert images.keys() == texts.keys()
    assert len(images) == 8 * 3
    # Ids are 1-based: the first image has the first label.
    assert (images["image_00001"].label, images["image_00002"].label) == ("class_00051", "class_00072")
    assert images["image_00001"].path == tmp_path / "jpg" / "image_00001.jpg"
    assert texts["image_00010"].text.splitlines() == [" ".join(line.split()) for line in example(0, 1).lines]


def test_oxford_ids_of_two_bytes(tmp_path):
    """Labels are bytes and ids are not: id 300 is neither image 44 nor out of range."""
    write_oxford_labels(tmp_path, [51] * 300)
    assert oxford102.read_labels(tmp_path).tolist() == [51] * 300
    write_oxford_labels(tmp_path, [51] * 300, list(range(300)))
    with pytest.raises(DataError, match=r"setid\.mat names 300 images, 0 to 299, expected each of the 300 .* once, from 1"):
        oxford102.read_labels(tmp_path)
    (tmp_path / "setid.mat").unlink()
    assert len(oxford102.read_labels(tmp_path)) == 300


def test_oxford_a_label_file_one_entry_short(tmp_path):
    write_oxford(tmp_path, per_class=3)
    labels = oxford102.read_labels(tmp_path)
    short = labels[1:].tolist()  # every label would be that of the next image
    write_oxford_labels(tmp_path, short, list(range(1, 28)))
    with pytest.raises(DataError, match=r"names 27 images, 1 to 27, expected each of the 26"):
        listed("oxford102", tmp_path)
    write_oxford_labels(tmp_path, short)
    with pytest.raises(DataError, match=r"imagelabels\.mat has 26 labels, and .*jpg has the image 27"):
        listed("oxford102", tmp_path)


@pytest.mark.parametrize("wrong", [0, 103])
def test_oxford_labels_out_of_range(tmp_path, wrong):
    write_oxford(tmp_path, per_class=2)
    write_oxford_labels(tmp_path, [51, wrong])
    with pytest.raises(DataError, match=r"has the labels .*, expected 1 to 102"):
        listed("oxford102", tmp_path)


def test_oxford_edge_cases(tmp_path):
    write_oxford(tmp_path, per_class=3)
    captions = tmp_path / "text_c10"
    (captions / "class_00051" / "image_00001.txt").unlink()
    write_lines(captions / "class_00072" / "image_00002.txt", ["une fleur dorée"], "latin-1")
    write_lines(captions / "class_00051" / "image_00003.txt", ["a flower of another class"])
    (captions / "class_00051" / "class_00051.t7").write_bytes(b"\0")
    found = listed("oxford102", tmp_path)
    assert rows_of(found, "text")["image_00002"].text == "une fleur dorée"
    assert {(fault.item, fault.modality) for fault in found.faults} == {("image_00001", "text"), ("image_00003", "text")}
    assert any("is of class 82" in fault.reason for fault in found.faults)


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs", b"MATLAB 5.0 MAT-file" + b"\0" * 200])
def test_oxford_no_matlab_file(tmp_path, content):
    write_oxford(tmp_path, per_class=2)
    (tmp_path / "imagelabels.mat").write_bytes(content)
    with pytest.raises(DataError, match=r"imagelabels\.mat (is no MATLAB file|has no integers)"):
        listed("oxford102", tmp_path)


def test_oxford_other_content_and_no_scipy(tmp_path, monkeypatch):
    write_oxford(tmp_path, per_class=2)
    savemat(tmp_path / "imagelabels.mat", {"labels": np.array([[0.5, 1.0]])})
    with pytest.raises(DataError, match="has no integers named 'labels'"):
        listed("oxford102", tmp_path)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(DataError, match="needs scipy, which is not installed: pip install scipy"):
        listed("oxford102", tmp_path)


# CIFAR-10


def test_cifar10_rows(tmp_path):
    write_cifar10(tmp_path, train=2, test=1)
    found = listed("cifar10", tmp_path)
    assert (len(found.rows), found.faults) == (5 * 20 + 10, ())
    rows = {row.item: row for row in found.rows}
    assert len(rows) == len(found.rows)
    row = rows["data_batch_2/13"]
    assert (row.modality, row.label, row.split, row.index) == ("image", "cat", "train", 13)
    assert {row.split for item, row in rows.items() if item.startswith("test_batch")} == {"test"}
    (picture,) = cifar10.pictures(row.path, [13])
    assert (picture.shape, picture.dtype) == ((3, 32, 32), np.uint8)
    assert np.array_equal(picture.transpose(1, 2, 0), example(3, 3).pixels)  # the second cat of the second batch


ROWS = np.zeros((2, 3072), dtype=np.uint8)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data": ROWS, "labels": [0]}, "has 1 labels for 2 images"),
        ({"data": ROWS}, "has no labels for 2 images"),
        ({"data": ROWS[:, 1:], "labels": [0, 1]}, "no array of rows of 3,072 bytes"),
        ({"labels": [0, 1]}, "no array of rows of 3,072 bytes"),
        ({"data": ROWS, "labels": [0, 10]}, "has the label 10, expected 0 to 9"),
        ({"data": ROWS, "labels": [0, "a"]}, "has the label b'a', expected 0 to 9"),
    ],
)
def test_cifar10_damaged_batches(tmp_path, fields, message):
    write_cifar10(tmp_path, train=1, test=1)
    (tmp_path / cifar10.FOLDER / "data_batch_3").write_bytes(python2_pickle(fields))
    with pytest.raises(DataError, match=message) as raised:
        listed("cifar10", tmp_path)
    assert "data_batch_3" in str(raised.value)


def test_cifar10_other_classes(tmp_path):
    write_cifar10(tmp_path, train=1, test=1)
    (tmp_path / cifar10.FOLDER / "batches.meta").write_bytes(python2_pickle({"label_names": ["apple"]}))
    with pytest.raises(DataError, match=r"batches\.meta names the classes \[b'apple'\]; expected airplane, automobile"):
        listed("cifar10", tmp_path)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_colours_are_listed_as_any_image(tmp_path, mode):
    write_cub(tmp_path, per_class=2, groups=1)
    write_jpeg(cub.get(tmp_path, cub.IMAGES) / "001.Black_footed_Albatross" / "x.jpg", example(0, 0).pixels, mode)
    assert len(listed("cub", tmp_path).rows) == 20
