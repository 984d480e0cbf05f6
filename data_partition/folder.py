"""A tree of folders, one file an example: the user's own data, or the trees that MM-Pick-a-back trains on.

::

    DATA-DIR/image/{train,test}/GROUP/CLASS/NAME.jpg
    DATA-DIR/text/{train,test}/GROUP/CLASS/NAME.txt

``caption`` is taken for ``text``, and ``val`` for ``test``; where a modality has both, ``val`` is more to train on. One of the
modalities is enough, and without ``test`` and ``val`` a test share is drawn by item. A folder inside a CLASS is a domain: the
style or source of what is in it. The groups are the folders: a group of texts belongs to the group of images with the same
classes, whatever its name.

Files of one class with one name, but for the suffix, are one item in both modalities. Where the trees disagree about the split
of an item, that of the image counts, so that no text of a test image is trained on. A name that a modality has in both splits
of a class was given to two items, and pairs with its own split alone; if even the bytes are equal, it is one item, and the
training file is a fault.

Source of the layout: the data folders of MM-Pick-a-back (EWHA-Tespa).
"""

from __future__ import annotations

import filecmp
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from config import Data
from data_partition.encodings import read_text
from data_partition.expected_files import Place, expected_tree, find, get, require
from data_partition.files import DataError
from data_partition.rows import Fault, Listing, Row
from data_partition.subgroups import Modality

FOLDERS: Final[dict[Modality, Place]] = {
    "image": Place(("image", "images"), "{train,test}/GROUP/CLASS/NAME.jpg"),
    "text": Place(("text", "caption", "captions"), "{train,test}/GROUP/CLASS/NAME.txt"),
}
SPLITS: Final = ("train", "val", "test")
SUFFIXES: Final[dict[Modality, tuple[str, ...]]] = {
    "image": (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"),
    "text": (".txt",),
}
NOT_DATA: Final = ("desktop.ini", "thumbs.db")
"""Files that file managers leave, in lower case; hidden files are not looked at either."""


Key = tuple[Modality, str]


@dataclass(frozen=True)
class File:
    """One file of the tree; ``split`` is as in :class:`data_partition.rows.Row`."""

    modality: Modality
    split: str
    group: str
    label: str
    domain: str
    path: Path

    @property
    def key(self) -> Key:
        """Modality and name; the name is what the files of one item share."""
        return self.modality, f"{self.label}/{self.path.stem}"


def missing(data: Data) -> str:
    """Draw the expected tree with a mark at what is not there; empty: a modality is there."""
    trees = [expected_tree(data.data_dir, [place], "", "folder") for place in FOLDERS.values()]
    advice = "put each example into a file of its own there; one of the two modalities is enough."
    return expected_tree(data.data_dir, list(FOLDERS.values()), advice, "folder") if all(trees) else ""


def read(data: Data) -> Listing:
    """List the files of the tree.

    Raises:
        DataError: there is no tree.
    """
    require(missing(data))
    found = list(files(Path(data.data_dir).expanduser().absolute()))
    twice, copies = in_both_splits(found)
    split_of: dict[str, str] = {}
    for file in found:  # images first
        item = item_of(file, twice)
        if file.path not in copies:
            split_of[item] = split_of.get(item) or file.split
    rows: list[Row] = []
    faults: list[Fault] = []
    for file in found:
        item = item_of(file, twice)
        if file.path in copies:
            faults.append(Fault(item, file.modality, f"{file.path} is a test file too: take it out of one of the splits"))
        elif file.path.suffix.lower() not in SUFFIXES[file.modality]:
            faults.append(Fault(item, file.modality, f"{file.path} is none of {', '.join(SUFFIXES[file.modality])}"))
        elif file.modality == "image":
            rows.append(Row(item, "image", file.label, split_of[item], file.domain, path=file.path))
        elif text := read_text(file.path):
            rows.append(Row(item, "text", file.label, split_of[item], file.domain, path=file.path, text=text))
        else:
            faults.append(Fault(item, "text", f"{file.path} has no text"))
    return Listing(tuple(rows), tuple(faults))


def own_groups(data: Data) -> dict[str, tuple[str, ...]]:
    """Return the classes of each group, both in the order of their names, where 2 is before 10.

    A group of both modalities has the name of its folder of images, without ``_image``.

    Raises:
        DataError: there is no tree, a class is in two groups of one modality, or a group of texts has some of the classes of a
            group of images and not the others.
    """
    require(missing(data))
    by_modality: dict[Modality, dict[str, set[str]]] = {modality: {} for modality in FOLDERS}
    for modality, _, group, folder in class_folders(Path(data.data_dir).expanduser().absolute()):
        by_modality[modality].setdefault(group, set()).add(folder.name)
    groups: dict[str, set[str]] = {}
    for modality, own in by_modality.items():
        home: dict[str, str] = {}
        for group in sorted(own, key=natural):
            for name in sorted(own[group]):
                if home.setdefault(name, group) != group:
                    raise DataError(
                        f"the class {name!r} is in the {modality} groups {home[name]!r} and {group!r} of {data.data_dir}: "
                        "expected it in one; rename or move one of the two folders."
                    )
            shared = {other for other, classes in groups.items() if classes & own[group]}
            if any(groups[other] != own[group] for other in shared):
                other = min(shared, key=natural)
                raise DataError(
                    f"the {modality} group {group!r} has the classes {', '.join(sorted(own[group]))}, and the group {other!r} "
                    f"has {', '.join(sorted(groups[other]))}: expected the same ones, or none in common; move the folders."
                )
            if not shared:
                groups[_free_name(group.removesuffix(f"_{modality}"), groups)] = own[group]
    return {name: tuple(sorted(classes, key=natural)) for name, classes in groups.items()}


def in_both_splits(found: Sequence[File]) -> tuple[frozenset[Key], frozenset[Path]]:
    """Return the keys that were given to a training and to another test item, and the training files that copy a test file."""
    by_split: dict[str, dict[Key, list[Path]]] = {"": {}, "train": {}, "test": {}}
    for file in found:
        by_split[file.split].setdefault(file.key, []).append(file.path)
    both = by_split["train"].keys() & by_split["test"].keys()
    copies = {
        key: [
            path
            for path in by_split["train"][key]
            if any(filecmp.cmp(path, other, shallow=False) for other in by_split["test"][key])
        ]
        for key in both
    }
    return frozenset(key for key in both if not copies[key]), frozenset(path for paths in copies.values() for path in paths)


def item_of(file: File, twice: frozenset[Key]) -> str:
    """Return the item of a file: class and name, and the split if the name was given twice in either modality."""
    name = file.key[1]
    return f"{name} of {file.split}" if any((modality, name) in twice for modality in FOLDERS) else name


def files(root: Path) -> Iterator[File]:
    """Yield the files of the tree, hidden ones left out, in the order of their paths."""
    for modality, split, group, folder in class_folders(root):
        for entry in _entries(folder):
            if not entry.is_dir():
                yield File(modality, split, group, folder.name, "", Path(entry.path))
                continue
            for inner in _entries(Path(entry.path)):
                if inner.is_file():
                    yield File(modality, split, group, folder.name, entry.name, Path(inner.path))


def class_folders(root: Path) -> Iterator[tuple[Modality, str, str, Path]]:
    """Yield modality, split, group and folder of each class."""
    for modality, place in FOLDERS.items():
        if find(root, place) is None:
            continue
        top = get(root, place)
        there = {split: top / split for split in SPLITS if (top / split).is_dir()}
        tested = "test" if "test" in there else "val"
        for split, folder in (there or {"": top}).items():
            meaning = "" if tested not in there else "test" if split == tested else "train"
            for group in _folders(folder):
                for one in _folders(group):
                    yield modality, meaning, group.name, one


def natural(name: str) -> list[tuple[int, str]]:
    """Sort key of names with numbers.

    >>> sorted(["group10", "group2"], key=natural)
    ['group2', 'group10']
    """
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    found = (entry for entry in os.scandir(folder) if not entry.name.startswith(".") and entry.name.lower() not in NOT_DATA)
    return sorted(found, key=lambda entry: entry.name)


def _folders(folder: Path) -> list[Path]:
    return [Path(entry.path) for entry in _entries(folder) if entry.is_dir()]


def _free_name(name: str, taken: dict[str, set[str]]) -> str:
    while name in taken:
        name += "_"
    return name
