"""Small data sets whose rows are records of a file: COCO, N24News, Parquet; and a tree of folders. Content as in ``trees``."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_partition.group_tables import class_groups
from data_partition.rows import Listing
from tests.data_partition.trees import example, write_jpeg, write_lines

CATEGORIES = {1: "person", **{2 * i + 3: name for i, name in enumerate(n for g in class_groups("coco").values() for n in g)}}
"""Ids have gaps, as the official ones have; person is none of the used classes."""
ID_OF = {name: number for number, name in CATEGORIES.items()}


def coco_annotation(number: int, image: int, category: str, area: float = 100.0) -> dict:
    outline = [[1.5, 2.0, 30.25, 2.0, 30.25, 40.0]]
    box = [1.5, 2.0, 28.75, 38.0]
    return {
        "segmentation": outline,
        "area": area,
        "iscrowd": 0,
        "image_id": image,
        "bbox": box,
        "category_id": ID_OF[category],
        "id": number,
    }


def write_coco_json(
    root: Path, split: str, objects: dict[int, Sequence[tuple[str, float]]], captions: dict[int, Sequence[str]]
) -> None:
    """Write both files of one split: category and area of each object of an image, and its captions."""
    folder = root / "annotations"
    folder.mkdir(parents=True, exist_ok=True)
    images = [{"id": image, "file_name": f"{image:012d}.jpg", "height": 56, "width": 48, "license": 3} for image in objects]
    found = [(image, *one) for image, own in objects.items() for one in own]
    annotations = [coco_annotation(number, image, name, area) for number, (image, name, area) in enumerate(found)]
    categories = [{"supercategory": "x", "id": number, "name": name} for number, name in CATEGORIES.items()]
    head = {"info": {"year": 2017}, "licenses": [{"id": 3, "name": "[1,2] {}"}], "images": images}
    told = {**head, "annotations": annotations, "categories": categories}
    (folder / f"instances_{split}.json").write_text(json.dumps(told), encoding="utf-8")
    texts = [
        {"image_id": image, "id": place, "caption": text} for image, own in captions.items() for place, text in enumerate(own)
    ]
    (folder / f"captions_{split}.json").write_text(json.dumps({**head, "annotations": texts}), encoding="utf-8")


def write_coco(root: Path, train: int = 10, val: int = 1, groups: int = 2, skipped: int = 0) -> Path:
    """Write the official tree with the classes of some groups: image 1000 l + i is example i of class l."""
    names = [name for group in list(class_groups("coco").values())[: skipped + groups] for name in group]
    for split, start, number in (("train2017", 0, train), ("val2017", 500, val)):
        objects, captions = {}, {}
        for label, name in list(enumerate(names))[4 * skipped :]:
            for index in range(number):
                image, shown = 1000 * label + start + index, example(label, index + (train if start else 0))
                write_jpeg(root / split / f"{image:012d}.jpg", shown.pixels)
                objects[image], captions[image] = [(name, 100.0)], [f"{line}\n" for line in shown.lines]
        write_coco_json(root, split, objects, captions)
    return root


SECTIONS = {
    "Art_Design": "Art & Design",
    "Real_Estate": "Real Estate",
    "Fashion_Style": "Fashion",
}
"""Sections of the json whose class has another name."""


def n24news_record(label: int, index: int, section: str) -> dict:
    headline, *rest = example(label, index).lines
    return {
        "section": section,
        "headline": headline,
        "abstract": " ".join(rest),
        "caption": "a caption",
        "image_url": "https://example.com/a.jpg",
        "article_url": "https://example.com/a",
        "image_id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{label}/{index}")),
        "body": "Please enable JS and disable any ad blocker",
    }


def n24news_records(per_class: int = 8, groups: int = 6) -> list[dict]:
    """Return records of the classes of the first groups, class by class, and of one section that is not used."""
    names = [name for group in list(class_groups("n24news").values())[:groups] for name in group]
    return [
        n24news_record(label, index, SECTIONS.get(name, name))
        for label, name in enumerate([*names, "Your Money"])
        for index in range(per_class)
    ]


def write_n24news(root: Path, records: list[dict], news: str = "news/nytimes_dataset.json", images: str = "imgs") -> Path:
    """Write records, and a drawing for each: that of the place among the records of its section."""
    (root / news).parent.mkdir(parents=True, exist_ok=True)
    (root / news).write_text(json.dumps(records), encoding="utf-8")
    sections = list(dict.fromkeys(record["section"] for record in records))
    places: dict[str, int] = {}
    for record in records:
        place = places[record["section"]] = places.get(record["section"], -1) + 1
        shown = example(sections.index(record["section"]), place)
        write_jpeg(root / images / f"{record['image_id']}.jpg", shown.pixels)
    return root


FOLDER_GROUPS = {"group1": ("ant", "bee", "cat"), "group2": ("dog", "eel", "fox"), "group10": ("gnu", "hen", "ibis")}


def write_folder(root: Path, train: int = 6, test: int = 2, text: str = "text", tested: str = "test") -> Path:
    """Write the tree of the seed: texts of the classes of group k of images are in group k + 10."""
    for place, (group, names) in enumerate(FOLDER_GROUPS.items()):
        for label, name in enumerate(names):
            for index in range(train + test):
                split, shown = ("train" if index < train else tested), example(3 * place + label, index)
                write_jpeg(root / "image" / split / group / name / f"{name}_{index}.jpg", shown.pixels)
                write_lines(root / text / split / f"group{11 + place}" / name / f"{name}_{index}.txt", shown.lines)
    return root


def write_parquet(path: Path, columns: dict[str, list], class_names: dict[str, list[str]] | None = None) -> Path:
    """Write columns as ``datasets`` does: images as bytes and path, and the names of classes in the metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    features = {name: {"names": names, "_type": "ClassLabel"} for name, names in (class_names or {}).items()}
    told = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(pa.table(columns).replace_schema_metadata(told), path, row_group_size=4)
    return path


def contents(listing: Listing) -> dict[tuple[str, str], list]:
    """Return items by split and modality, sorted."""
    found: dict[tuple[str, str], list] = {}
    for row in listing.rows:
        found.setdefault((row.split, row.modality), []).append(row.item)
    return {key: sorted(items) for key, items in found.items()}


def check_splits(listing: Listing) -> None:
    """Assert that no item is in two splits, and that no text of one split is in another; each split has rows."""
    items, texts = {}, {}
    for row in listing.rows:
        assert items.setdefault(row.item, row.split) == row.split
        assert not row.text or texts.setdefault(row.text, row.split) == row.split
    assert items
    assert texts
