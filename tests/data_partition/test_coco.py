"""COCO: which label an image has, what is tested, and what is left out or refused."""

from __future__ import annotations

import json

import pytest
import torch

from config import Data
from data_partition import coco
from data_partition.client_data import load_client
from data_partition.files import DataError
from data_partition.group_tables import class_groups
from data_partition.listed import check_files
from data_partition.subgroups import subgroups
from tests.data_partition.record_trees import check_splits, write_coco, write_coco_json
from tests.data_partition.trees import cut_short, example, write_jpeg


def data(root, **fields):
    return Data(dataset="coco", grouping="seed", data_dir=str(root), **{"train_fraction": 1.0, **fields})


def labels(listing, modality="image"):
    return {row.item: row.label for row in listing.rows if row.modality == modality}


def pictures(client):
    return torch.cat([split.inputs[:] for split in (client.train, client.val, client.test)])


def is_grey(image):
    return bool((image == image[0]).all())


def test_groups_are_those_of_the_seed():
    assert list(class_groups("coco").items()) == [
        ("Accessory", ("handbag", "umbrella", "backpack", "tie")),
        ("Animal1", ("bird", "sheep", "cow", "horse")),
        ("Animal2", ("elephant", "dog", "zebra", "giraffe")),
        ("Appliance", ("sink", "oven", "refrigerator", "microwave")),
        ("Electronic", ("cell phone", "tv", "remote", "laptop")),
        ("Food1", ("banana", "carrot", "broccoli", "donut")),
        ("Food2", ("orange", "cake", "apple", "pizza")),
        ("Furniture", ("chair", "dining table", "potted plant", "couch")),
        ("Indoor", ("book", "vase", "clock", "teddy bear")),
        ("Kitchen", ("bottle", "cup", "bowl", "wine glass")),
        ("Outdoor", ("traffic light", "bench", "stop sign", "fire hydrant")),
        ("Sports1", ("kite", "skis", "sports ball", "surfboard")),
        ("Sports2", ("skateboard", "tennis racket", "baseball glove", "baseball bat")),
        ("Vehicle1", ("car", "motorcycle", "boat", "truck")),
        ("Vehicle2", ("bicycle", "bus", "airplane", "train")),
    ]
    found = subgroups(data(""))
    assert [one.modality for one in found] == ["image"] * 15 + ["text"] * 15
    assert [one.classes for one in found[:15]] == [one.classes for one in found[15:]] == list(class_groups("coco").values())


@pytest.fixture
def several(tmp_path):
    """One image for each case of the label rules; the test split has one image of a used class."""
    objects = {
        1: [("bird", 10.0), ("cow", 30.0)],
        2: [("person", 5.0), ("bird", 1.0)],
        3: [("cow", 4.0), ("bird", 9.0), ("cow", 6.0)],
        4: [],
        5: [("sheep", 1.0), ("sheep", 2.0)],
        6: [("bird", 2.0), ("person", 90.0)],
        7: [("horse", 7.0), ("bird", 7.0)],
    }
    write_coco_json(tmp_path, "train2017", objects, {image: [f"caption of {image}"] for image in objects})
    write_coco_json(tmp_path, "val2017", {8: [("tie", 1.0)]}, {8: ["caption of 8"]})
    for image in range(1, 9):
        write_jpeg(tmp_path / ("val2017" if image == 8 else "train2017") / f"{image:012d}.jpg", example(0, image).pixels)
    return tmp_path


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("first", {1: "bird", 3: "cow", 5: "sheep", 6: "bird", 7: "horse", 8: "tie"}),
        ("largest-area", {1: "cow", 2: None, 3: "cow", 5: "sheep", 7: "horse", 8: "tie"}),
        ("single-category", {5: "sheep", 8: "tie"}),
    ],
)
def test_label_rules(several, rule, expected):
    """Images without an object, and those of other classes such as person, are neither rows nor faults."""
    listing = coco.read(data(several, label_rule=rule))
    wanted = {f"{image:012d}": label for image, label in expected.items() if label}
    assert labels(listing) == labels(listing, "text") == wanted
    assert listing.faults == ()


def test_the_test_split_is_val_and_a_fifth_of_train(tmp_path):
    """11 training and 1 test image of a class: ceil(11 / 5) - 1 = 2 are moved, the same ones for any seed."""
    write_coco(tmp_path, train=11, val=1)
    listing = coco.read(data(tmp_path))
    check_splits(listing)
    for modality in ("image", "text"):
        for name in (name for group in list(class_groups("coco").values())[:2] for name in group):
            rows = [row for row in listing.rows if (row.modality, row.label) == (modality, name)]
            tested = [row for row in rows if row.split == "test"]
            assert (len(rows), len(tested)) == (12, 3)
            assert sum(int(row.item) % 1000 >= 500 for row in tested) == 1
    assert coco.read(data(tmp_path, seed=5)) == listing
    assert {row.item for row in listing.rows if row.split == "test" and int(row.item) % 1000 < 500} != {
        f"{1000 * label + index:012d}" for label in range(8) for index in range(2)
    }


@pytest.mark.parametrize(("train", "val", "moved"), [(10, 2, 0), (10, 3, 0), (1, 0, 1), (15, 0, 3), (16, 1, 3)])
def test_top_up(train, val, moved):
    pictures = [coco.Picture(f"{index}.jpg", "bird", "") for index in range(train + val)]
    assert len(coco.top_up(pictures[val:], pictures[:val])) == moved


def test_captions_are_one_text(tmp_path):
    write_coco(tmp_path)
    write_coco_json(tmp_path, "train2017", {0: [("bird", 1.0)]}, {0: [" One\n bird. ", "", "A café\t"]})
    path = tmp_path / "annotations" / "captions_train2017.json"
    path.write_bytes(path.read_text().replace("\\u00e9", "é").encode("latin-1"))
    texts = [row.text for row in coco.read(data(tmp_path)).rows if row.modality == "text" and row.label == "bird"]
    assert "One bird.\nA café" in texts


def test_what_is_not_there_is_a_fault(tmp_path):
    write_coco(tmp_path, groups=1)
    (tmp_path / "train2017" / f"{1003:012d}.jpg").unlink()
    write_coco_json(tmp_path, "val2017", {500: [("handbag", 1.0)]}, {501: ["of another image"]})
    faults = coco.read(data(tmp_path)).faults
    assert [(fault.item, fault.modality) for fault in faults] == [(f"{1003:012d}", "image"), (f"{500:012d}", "text")]
    assert "000000001003.jpg is not there" in faults[0].reason


def test_grey_and_truncated_images(tmp_path):
    """A grey-scale JPEG is as good as any; one that is cut short is left out, if the settings allow it."""
    write_coco(tmp_path, groups=1)
    coloured, grey = example(0, 0).pixels, tmp_path / "train2017" / f"{0:012d}.jpg"
    assert not is_grey(torch.from_numpy(coloured).permute(2, 0, 1))
    before = pictures(load_client(data(tmp_path), 0))
    write_jpeg(grey, coloured, mode="L")
    check_files(data(tmp_path))
    after = pictures(load_client(data(tmp_path), 0))
    assert before.shape == after.shape == (44, 3, 64, 64)
    assert sum(map(is_grey, after)) == sum(map(is_grey, before)) + 1
    cut_short(tmp_path / "train2017" / f"{1:012d}.jpg")
    with pytest.raises(DataError, match=r"1 of 88 rows cannot be used .*\n.*000000000001 \(image\)"):
        load_client(data(tmp_path, max_bad_fraction=0.01), 0)
    fewer = load_client(data(tmp_path, max_bad_fraction=0.02), 0)
    assert len(fewer.train) + len(fewer.val) + len(fewer.test) == 43


def test_image_and_text_clients_of_a_group_have_the_same_split(tmp_path):
    write_coco(tmp_path)
    settings = data(tmp_path)
    for group in range(2):
        image, text = load_client(settings, group), load_client(settings, group + 15)
        for name in ("train", "val", "test"):
            assert torch.equal(getattr(image, name).labels, getattr(text, name).labels)


def test_the_expected_tree_marks_what_is_missing(tmp_path):
    assert "needs data.data-dir, which is empty" in coco.missing(data(""))
    write_coco(tmp_path, groups=1)
    assert coco.missing(data(tmp_path)) == ""
    (tmp_path / "annotations" / "captions_val2017.json").unlink()
    told = coco.missing(data(tmp_path))
    assert [line.split()[0] for line in told.splitlines() if "<- not found" in line] == ["annotations/captions_val2017.json"]
    assert "https://cocodataset.org" in told
    with pytest.raises(DataError, match="captions_val2017"):
        check_files(data(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda told: told.pop("categories"), "nothing in categories"),
        (lambda told: told["annotations"][0].pop("image_id"), "KeyError 'image_id'"),
        (lambda told: told["annotations"][0].update(category_id=999), "KeyError 999"),
        (lambda told: told.update(images=[1]), "TypeError"),
    ],
)
def test_damaged_annotations(tmp_path, change, message):
    write_coco(tmp_path, groups=1)
    path = tmp_path / "annotations" / "instances_train2017.json"
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))
    with pytest.raises(DataError, match=f"instances_train2017.*{message}.*unpack it again"):
        coco.read(data(tmp_path))
    path.write_text(json.dumps(told)[:-200])
    with pytest.raises(DataError, match="instances_train2017"):
        coco.read(data(tmp_path))
