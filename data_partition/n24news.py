"""N24News: an image and a text from each of 24 sections of a newspaper; 18 of them are used, by groups/n24news.toml.

A text is headline and abstract, with HTML entities decoded. The body is left alone: rebuilt copies of the data set hold the
page's request for JavaScript in its place, and a headline or abstract that is that request counts as empty.

There is no official split; a test share is drawn by item. Some articles share an image, and some images come with one and the
same text: articles that share either are one item, so that nothing of the test split is trained on. Where such articles name
more than one section, those of the first section stay, and the others are listed as left out.

Source: Wang et al., N24News: A New Dataset for Multimodal News Classification (LREC 2022).
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from config import Data
from data_partition.expected_files import Place, expected_tree, get, names_in, require
from data_partition.files import DataError
from data_partition.group_tables import class_groups
from data_partition.json_records import records
from data_partition.rows import Fault, Listing, Row

NEWS: Final = Place(
    ("news/nytimes_dataset.json", "nytimes_dataset.json", "news/nytimes_dataset_full.json", "nytimes_dataset_full.json"),
    "61,218 articles",
)
IMAGES: Final = Place(("imgs", "images", "news/imgs", "news/images"), "IMAGE_ID.jpg")

RENAMED: Final = {"Fashion": "Fashion_Style", "Fashion & Style": "Fashion_Style"}
"""Sections whose class is not the name of the section with _ for a space and without &."""

PLACEHOLDER: Final = "please enable js and disable any ad blocker"
"""What rebuilt copies hold where an article should be, in lower case."""


@dataclass(frozen=True)
class Article:
    """A record of the file: id of its image, class, and text (empty: none)."""

    image: str
    label: str
    text: str


def missing(data: Data) -> str:
    """Draw the expected tree with a mark at what is not there; empty: all of it is."""
    advice = (
        "get the data set from https://github.com/billywzh717/N24News and unpack it in that folder. Its content is the "
        "newspaper's, for research alone."
    )
    return expected_tree(data.data_dir, [NEWS, IMAGES], advice, "n24news")


def inputs(data: Data) -> list[Path]:
    """Return what is read."""
    root = Path(data.data_dir).expanduser().absolute()
    return [get(root, place) for place in (NEWS, IMAGES)]


def read(data: Data) -> Listing:
    """List the images and texts of the 18 used sections.

    Raises:
        DataError: a file is missing or damaged.
    """
    require(missing(data))
    root = Path(data.data_dir).expanduser().absolute()
    used = {name for classes in class_groups("n24news").values() for name in classes}
    found = [article for article in articles(get(root, NEWS)) if article.label in used]
    folder = get(root, IMAGES)
    there = {Path(name).stem: folder / name for name in sorted(names_in(folder), reverse=True)}
    rows: list[Row] = []
    faults: list[Fault] = []
    left_out: list[Fault] = []
    label_of: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    for article, item in zip(found, items(found), strict=True):
        if label_of.setdefault(item, article.label) != article.label:
            reason = f"of {article.label}, shares an image or a text with articles of {label_of[item]}, such as {item}"
            left_out.append(Fault(article.image, "image and text", reason))
            continue
        if ("image", article.image) not in seen:
            if path := there.get(article.image):
                rows.append(Row(item, "image", article.label, path=path))
            else:
                faults.append(Fault(article.image, "image", f"{folder / article.image}.jpg is not there"))
        if not article.text:
            faults.append(Fault(article.image, "text", "neither headline nor abstract"))
        elif ("text", article.text) not in seen:
            rows.append(Row(item, "text", article.label, text=article.text))
        seen |= {("image", article.image), ("text", article.text)}
    return Listing(tuple(rows), tuple(faults), tuple(left_out))


def articles(path: Path) -> Iterator[Article]:
    """Yield the records of the file in its order.

    Raises:
        DataError: it is damaged, or a record has other keys.
    """
    for number, (key, record) in enumerate(records(path)):
        try:
            if key:
                raise TypeError(f"an object with the key {key!r}")
            parts = (_clean(record[name]) for name in ("headline", "abstract"))
            yield Article(str(record["image_id"]), class_name(record["section"]), "\n".join(part for part in parts if part))
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path}: record {number}: {type(error).__name__} {error}: expected a list of records with section, headline, "
                "abstract and image_id; fetch the file again."
            ) from None


def class_name(section: str) -> str:
    """Return the class of a section.

    >>> class_name("Art &amp; Design"), class_name("Fashion"), class_name("Real Estate")
    ('Art_Design', 'Fashion_Style', 'Real_Estate')
    """
    name = " ".join(html.unescape(section).replace("_", " ").split())
    return RENAMED.get(name) or "_".join(name.replace("&", " ").split())


def items(found: Sequence[Article]) -> list[str]:
    """Return the item of each article: the first image of those that share an image or a text, however indirectly."""
    parent: dict[str, str] = {}

    def root(node: str) -> str:
        while (above := parent.setdefault(node, node)) != node:
            parent[node] = node = parent[above]
        return node

    for article in found:
        one = root(f"image {article.image}")
        if article.text:
            parent[root(f"text {article.text}")] = one
    first: dict[str, str] = {}
    return [first.setdefault(root(f"image {article.image}"), article.image) for article in found]


def _clean(value: Any) -> str:
    """Return a headline or abstract on one line; empty if there is none, or the page asks for JavaScript instead."""
    text = " ".join(html.unescape(value or "").split())
    return "" if text.lower().startswith(PLACEHOLDER) else text
