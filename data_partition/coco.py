"""MS-COCO 2017 from its official tree: images, and their captions as texts.

An image has the label that ``data.label-rule`` gives it. An image without an instance, or whose label is none of the 60
categories of groups/coco.toml, is no row. All captions of an image are one text, one a line. The test split is val2017, topped
up from train2017 until it has a fifth of the training images of a class, as in MM-Pick-a-back.

Source: Lin et al., Microsoft COCO: Common Objects in Context (ECCV 2014).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from config import Data
from data_partition.coco_annotations import Picture, read_annotations
from data_partition.expected_files import Place, expected_tree, get, names_in, require
from data_partition.group_tables import class_groups
from data_partition.rows import Fault, Listing, Row
from data_partition.subgroups import seeded_order

SPLITS: Final = {"train2017": "train", "val2017": "test"}
TRAIN_PER_TEST: Final = 5
"""Images of a class in train2017 for each one in the test split, at most."""
TEST_SEED: Final = 0
"""Seed of the draw of the others: not ``data.seed``, so that all runs are tested on the same images."""

IMAGES: Final = {
    "train2017": Place(("train2017", "images/train2017"), "118,287 images"),
    "val2017": Place(("val2017", "images/val2017"), "5,000 images"),
}
ANNOTATIONS: Final = {
    f"{kind}_{folder}": Place((f"annotations/{kind}_{folder}.json",))
    for kind in ("instances", "captions")
    for folder in SPLITS
}


def missing(data: Data) -> str:
    """Draw the expected tree with a mark at what is not there; empty: all of it is."""
    advice = (
        "unpack train2017.zip, val2017.zip and annotations_trainval2017.zip in that folder; they are on "
        "https://cocodataset.org/#download"
    )
    return expected_tree(data.data_dir, [*IMAGES.values(), *ANNOTATIONS.values()], advice, "coco")


def inputs(data: Data) -> list[Path]:
    """Return what is read."""
    root = Path(data.data_dir).expanduser().absolute()
    return [get(root, place) for place in (*ANNOTATIONS.values(), *IMAGES.values())]


def read(data: Data) -> Listing:
    """List the images and texts of the used classes.

    Raises:
        DataError: a file is missing or damaged.
    """
    require(missing(data))
    root = Path(data.data_dir).expanduser().absolute()
    used = {name for classes in class_groups("coco").values() for name in classes}
    found: dict[str, list[Picture]] = {}
    for folder in SPLITS:
        instances, captions = (get(root, ANNOTATIONS[f"{kind}_{folder}"]) for kind in ("instances", "captions"))
        table = read_annotations(instances, captions, data.label_rule)
        found[folder] = [picture for picture in table if picture.label in used]
    moved = top_up(found["train2017"], found["val2017"])
    rows: list[Row] = []
    faults: list[Fault] = []
    for folder, split in SPLITS.items():
        place = get(root, IMAGES[folder])
        there = names_in(place)
        for picture in found[folder]:
            item = item_of(picture)
            for one in examples(picture, item, "test" if item in moved else split, place, there):
                if isinstance(one, Row):
                    rows.append(one)
                else:
                    faults.append(one)
    return Listing(tuple(rows), tuple(faults))


def examples(picture: Picture, item: str, split: str, folder: Path, there: frozenset[str]) -> Iterator[Row | Fault]:
    """Yield the image and the text of one picture."""
    if picture.file_name in there:
        yield Row(item, "image", picture.label, split, path=folder / picture.file_name)
    else:
        yield Fault(item, "image", f"{folder / picture.file_name} is not there")
    if picture.text:
        yield Row(item, "text", picture.label, split, text=picture.text)
    else:
        yield Fault(item, "text", "no caption")


def item_of(picture: Picture) -> str:
    """Return the image id: the name of the file, such as 000000000009, which is unique in both splits."""
    return Path(picture.file_name).stem


def top_up(train: Sequence[Picture], test: Sequence[Picture]) -> frozenset[str]:
    """Return the items of ``train`` that go to the test split.

    A class with n training and m test images gives ceil(n / 5) - m of them, if that is above 0.
    """
    members: dict[str, list[str]] = {}
    for picture in train:
        members.setdefault(picture.label, []).append(item_of(picture))
    fixed: dict[str, int] = {}
    for picture in test:
        fixed[picture.label] = fixed.get(picture.label, 0) + 1
    moved: set[str] = set()
    for label, items in members.items():
        wanted = math.ceil(len(items) / TRAIN_PER_TEST) - fixed.get(label, 0)
        moved.update(seeded_order(items, TEST_SEED, "test")[: max(0, wanted)])
    return frozenset(moved)
