"""CUB-200-2011 with the captions of Reed et al.: an image and ten captions of each bird; 135 of 200 species are used.

Names of species differ between images and captions (Brewers_ and Brewer_Blackbird), so captions are joined to images
by the number of the species, which starts the name of the folder, and that of the image, which ends the name of the file. The
ten lines of a file together are one text. The groups are those of Pick-a-back (groups/cub.toml), and so is the split: a
fifth of each class is tested, whatever ``train_test_split.txt`` says. Pick-a-back drew it apart for images and texts, so that
captions of test images were trained on; here it is drawn once.

Sources: Wah et al., The Caltech-UCSD Birds-200-2011 Dataset (2011); Reed et al., Learning Deep Representations of Fine-Grained
Visual Descriptions (CVPR 2016).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from config import Data
from data_partition.encodings import decode, read_text
from data_partition.expected_files import Place, expected_tree, get, names_in, require
from data_partition.files import DataError
from data_partition.group_tables import class_groups
from data_partition.rows import Fault, Listing, Row

PAPER: Final = "CUB_200_2011"
IMAGES: Final = Place((f"{PAPER}/images", "images"), "001.Black_footed_Albatross/*.jpg ...")
NAMES: Final = Place((f"{PAPER}/images.txt", "images.txt"), "ID CLASS/NAME.jpg, 11,788 lines")
LABELS: Final = Place((f"{PAPER}/image_class_labels.txt", "image_class_labels.txt"), "ID NUMBER, 11,788 lines")
CAPTIONS: Final = Place(
    ("cvpr2016_cub/text_c10", "text_c10", "birds/text", f"{PAPER}/text_c10"), "001.Black_footed_Albatross/*.txt ..."
)


def missing(data: Data) -> str:
    """Draw the expected tree with a mark at what is not there; empty: all of it is."""
    advice = (
        "unpack CUB_200_2011.tgz in that folder, from https://data.caltech.edu/records/65de6-vp158, and cvpr2016_cub.tar.gz, "
        "which https://github.com/reedscot/cvpr2016 links to."
    )
    return expected_tree(data.data_dir, [IMAGES, NAMES, LABELS, CAPTIONS], advice, "cub")


def inputs(data: Data) -> list[Path]:
    """Return what is read."""
    return [get(_root(data), place) for place in (IMAGES, NAMES, LABELS, CAPTIONS)]


def read(data: Data) -> Listing:
    """List the images and texts of the used species.

    Raises:
        DataError: a file is missing or damaged.
    """
    require(missing(data))
    root = _root(data)
    used = {name for classes in class_groups("cub").values() for name in classes}
    names, labels = read_ids(get(root, NAMES)), read_ids(get(root, LABELS))
    captions = caption_folders(get(root, CAPTIONS))
    rows: list[Row] = []
    faults: list[Fault] = []
    left = {name: _caption_files(captions.get(name[:3])) for name in sorted(used)}
    for number, name in names.items():
        label, _, file = name.rpartition("/")
        if label not in used:
            continue
        item = f"{label}/{Path(file).stem}"
        caption = _take(left[label], Path(file).stem)
        if labels.get(number, "").lstrip("0") != label[:3].lstrip("0"):
            found = f"the class {labels[number]}" if number in labels else "no line"
            faults.append(Fault(item, "image", f"image {number} of {label} has {found} in {LABELS.names[0]}"))
            continue
        rows.append(Row(item, "image", label, path=get(root, IMAGES) / name))
        if caption:
            rows.append(Row(item, "text", label, path=caption, text=read_text(caption)))
        else:
            faults.append(Fault(item, "text", f"there are no captions of it in {get(root, CAPTIONS)}"))
    faults += [
        Fault(f"{label}/{stem}", "text", f"{path} has no image in {NAMES.names[0]}")
        for label, files in left.items()
        for stem, path in sorted(files.items())
    ]
    return Listing(tuple(rows), tuple(faults))


def read_ids(path: Path) -> dict[str, str]:
    """Return what a file says of each id, in the order of its lines.

    Raises:
        DataError: a line is not an id and a value, or an id comes twice.
    """
    found: dict[str, str] = {}
    for line in decode(path.read_bytes()).splitlines():
        number, _, value = line.strip().partition(" ")
        if not line.strip():
            continue
        if not number.isdecimal() or not value or number in found:
            raise DataError(f"{path} has the line {line!r}, expected an id of its own and a value; unpack the archive again.")
        found[number] = value.strip()
    return found


def caption_folders(folder: Path) -> dict[str, Path]:
    """Return the folder of captions of each species by its number, three digits."""
    return {name[:3]: folder / name for name in sorted(names_in(folder)) if re.match(r"\d{3}\.", name)}


def _caption_files(folder: Path | None) -> dict[str, Path]:
    """Return the caption files of a species by their names without suffix."""
    names = sorted(names_in(folder)) if folder else []
    return {Path(name).stem: folder / name for name in names if folder and name.endswith(".txt")}


def _take(files: dict[str, Path], stem: str) -> Path | None:
    """Take the captions of an image out of those of its species: the same name, or else the one file with its number."""
    if stem in files:
        return files.pop(stem)
    same = [other for other in files if other.rpartition("_")[2] == stem.rpartition("_")[2]]
    return files.pop(same[0]) if len(same) == 1 else None


def _root(data: Data) -> Path:
    return Path(data.data_dir).expanduser().absolute()
