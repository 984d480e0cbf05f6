"""Oxford-102 flowers with the captions of Reed et al.: an image and ten captions of each flower; 24 of 102 species are used.

``imagelabels.mat`` holds the label, 1 to 102, of image 1, image 2 and so on: class_000NN is the label NN. The captions of
image 1 are in ``text_c10/class_000NN/image_00001.txt``, ten lines, which together are one text. The groups are those of
Pick-a-back (groups/oxford102.toml), and so is the split: a fifth of each class is tested, whatever ``setid.mat`` says; that
file is optional, and its ids are compared with the labels.

Sources: Nilsback and Zisserman, Automated Flower Classification over a Large Number of Classes (ICVGIP 2008); Reed et al.,
Learning Deep Representations of Fine-Grained Visual Descriptions (CVPR 2016).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from config import Data
from data_partition.encodings import read_text
from data_partition.expected_files import Place, expected_tree, find, get, names_in, require
from data_partition.files import DataError
from data_partition.group_tables import class_groups
from data_partition.rows import Fault, Listing, Row

IMAGES: Final = Place(("jpg", "flowers-102/jpg", "102flowers/jpg"), "image_00001.jpg ... image_08189.jpg")
LABELS: Final = Place(("imagelabels.mat", "flowers-102/imagelabels.mat", "102flowers/imagelabels.mat"), "8,189 labels")
IDS: Final = Place(("setid.mat", "flowers-102/setid.mat", "102flowers/setid.mat"), "official split")
CAPTIONS: Final = Place(("text_c10", "cvpr2016_flowers/text_c10", "flowers-102/text_c10"), "class_00001/image_06734.txt ...")
NUM_CLASSES: Final = 102


def missing(data: Data) -> str:
    """Draw the expected tree with a mark at what is not there; empty: all of it is."""
    advice = (
        "unpack 102flowers.tgz in that folder and put imagelabels.mat there, both from "
        "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/, and the folder text_c10 of cvpr2016_flowers, which "
        "https://github.com/reedscot/cvpr2016 links to."
    )
    return expected_tree(data.data_dir, [IMAGES, LABELS, CAPTIONS], advice, "oxford102")


def inputs(data: Data) -> list[Path]:
    """Return what is read."""
    return [get(_root(data), place) for place in (IMAGES, LABELS, IDS, CAPTIONS)]


def read(data: Data) -> Listing:
    """List the images and texts of the used species.

    Raises:
        DataError: a file is missing or damaged, or labels, ids and images do not belong together.
    """
    require(missing(data))
    root = _root(data)
    folder, labels = get(root, IMAGES), read_labels(root)
    highest = max((_number(name) for name in names_in(folder)), default=0)
    if highest > len(labels):
        raise DataError(
            f"{get(root, LABELS)} has {len(labels):,} labels, and {folder} has the image {highest}: one label for each image "
            "is expected, so labels may be those of other images; get the file again."
        )
    rows: list[Row] = []
    faults: list[Fault] = []
    for name in (name for classes in class_groups("oxford102").values() for name in classes):
        numbers = np.flatnonzero(labels == _number(name)) + 1
        captions = get(root, CAPTIONS) / name
        files = sorted(names_in(captions)) if captions.is_dir() else []
        texts = {_number(file): captions / file for file in files if file.endswith(".txt")}
        for number in map(int, numbers):
            item = f"image_{number:05d}"
            rows.append(Row(item, "image", name, path=folder / f"{item}.jpg"))
            if path := texts.pop(number, None):
                rows.append(Row(item, "text", name, path=path, text=read_text(path)))
            else:
                faults.append(Fault(item, "text", f"there are no captions in {captions}"))
        for number, path in sorted(texts.items()):
            found = f"class {labels[number - 1]}" if 0 < number <= len(labels) else "no class"
            faults.append(Fault(path.stem, "text", f"{path} is of {found} by {LABELS.names[0]}"))
    return Listing(tuple(rows), tuple(faults))


def read_labels(root: Path) -> NDArray[np.int64]:
    """Return the labels of image 1, 2, ..., int64 (n,), 1 to 102.

    Raises:
        DataError: a file is damaged, or the ids of the official split are not 1 to n.
    """
    path = get(root, LABELS)
    labels = _numbers(path, "labels")
    if not len(labels) or labels.min() < 1 or labels.max() > NUM_CLASSES:
        found = f"{labels.min()} to {labels.max()}" if len(labels) else "none"
        raise DataError(f"{path} has the labels {found}, expected 1 to {NUM_CLASSES}; get the file again.")
    if ids := find(root, IDS):
        known = np.sort(np.concatenate([_numbers(ids, key) for key in ("trnid", "valid", "tstid")]))
        if not np.array_equal(known, np.arange(1, len(labels) + 1)):
            raise DataError(
                f"{ids} names {len(known):,} images, {known.min(initial=1 << 16)} to {known.max(initial=0)}, expected each of "
                f"the {len(labels):,} of {path.name} once, from 1: get both files again."
            )
    return labels


def _numbers(path: Path, key: str) -> NDArray[np.int64]:
    """Return an array of a MATLAB file, whatever its integers were: those of eight bits would not hold the ids."""
    try:
        from scipy.io import loadmat
    except ImportError:
        raise DataError(f"{path} needs scipy, which is not installed: pip install scipy.") from None
    try:
        found = loadmat(path, variable_names=[key])
    except Exception as error:  # a damaged file may raise anything
        raise DataError(f"{path} is no MATLAB file of version 5: {error}; get it again.") from None
    if key not in found or found[key].dtype.kind not in "iu":
        raise DataError(f"{path} has no integers named {key!r}; get it again.")
    return np.asarray(found[key]).ravel().astype(np.int64)


def _number(name: str) -> int:
    """Return the number in image_00001.jpg or class_00001; 0: there is none."""
    digits = Path(name).stem.partition("_")[2]
    return int(digits) if digits.isdecimal() else 0


def _root(data: Data) -> Path:
    return Path(data.data_dir).expanduser().absolute()
