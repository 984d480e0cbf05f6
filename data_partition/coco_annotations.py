"""What of the annotations of COCO is needed: the label and the captions of each image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from data_partition.files import DataError
from data_partition.json_records import records

Areas = dict[int, float]
"""Category of an image, in the order of the file, and the area of its annotations together."""


def first(areas: Areas) -> int | None:
    """Return the category of the first annotation, as in MM-Pick-a-back; None: there is none."""
    return next(iter(areas), None)


def largest_area(areas: Areas) -> int | None:
    """Return the category with the largest area, the first of equals; None: there is none."""
    return max(areas, key=lambda category: areas[category], default=None)


def single_category(areas: Areas) -> int | None:
    """Return the category of all annotations; None: they are of several, or there is none."""
    return next(iter(areas)) if len(areas) == 1 else None


LABEL_RULES: Final[dict[str, Callable[[Areas], int | None]]] = {
    "first": first,
    "largest-area": largest_area,
    "single-category": single_category,
}
"""The choices of ``data.label-rule``."""


@dataclass(frozen=True)
class Picture:
    """An image: name of its file, category (empty: none by this rule), and captions, one a line."""

    file_name: str
    label: str
    text: str


def read_annotations(instances: Path, captions: Path, rule: str) -> list[Picture]:
    """Return the images of one split in the order of the file.

    Args:
        instances: ``instances_*.json``.
        captions: ``captions_*.json``.
        rule: one of ``LABEL_RULES``.

    Raises:
        DataError: a file is damaged.
    """
    names: dict[int, str] = {}
    categories: dict[int, str] = {}
    areas: dict[int, Areas] = {}
    with _one_file(instances):
        for key, record in records(instances):
            if key == "images":
                names[record["id"]] = record["file_name"]
            elif key == "categories":
                categories[record["id"]] = record["name"]
            elif key == "annotations":
                area, category = areas.setdefault(record["image_id"], {}), record["category_id"]
                area[category] = area.get(category, 0.0) + float(record["area"])
        _all_there(images=names, annotations=areas, categories=categories)
        labels = {image: LABEL_RULES[rule](areas.get(image, {})) for image in names}
        label_of = {image: categories[label] if label is not None else "" for image, label in labels.items()}
    texts: dict[int, list[str]] = {}
    with _one_file(captions):
        for key, record in records(captions):
            if key == "annotations" and (caption := " ".join(record["caption"].split())):
                texts.setdefault(record["image_id"], []).append(caption)
        _all_there(annotations=texts)
    return [Picture(name, label_of[image], "\n".join(texts.get(image, ()))) for image, name in names.items()]


def _all_there(**found: dict[int, Any]) -> None:
    if empty := [name for name, content in found.items() if not content]:
        raise ValueError(f"nothing in {', '.join(empty)}")


@contextmanager
def _one_file(path: Path) -> Iterator[None]:
    """Say which file it is whose records are not as expected."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(
            f"{path}: {type(error).__name__} {error}: expected the lists and keys of the official file of COCO "
            "2017; unpack it again."
        ) from None
