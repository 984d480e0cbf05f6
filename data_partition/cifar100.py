"""CIFAR-100 from its official binary version: 20 superclasses of 5 classes, 500 training and 100 test images a class.

A row of ``train.bin`` and ``test.bin`` is 3,074 bytes: superclass, class, then 32 x 32 pixels of the red, the green and the
blue plane, each from left to right and from top to bottom. The version for Python holds the same rows, but as a pickle, and
reading a pickle may run code: it is not read.

Superclass p is client p: one task of 5 classes, in the order of the official names, as in CPG (Hung et al., NeurIPS 2019)
and Pick-a-back (ECCV 2024). With ``data.grouping = "all"`` one client owns all classes, superclass after superclass, so that
20 tasks of consecutive classes (``data.task-classes``) are the superclasses in their order: CPG's stream. Both papers score
test images while they train; here validation images are taken from the training file, by image and class, and the test file
is the test split, untouched.

CPG crops after padding by 4 black pixels, which is ``data.shift = 4`` with ``data.shift-border = "zero"``. Unlike there,
images are not normalised by the mean and deviation of each task, but scaled as those of every data set here:
models/front_ends.py, models/convnet.py.

Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from config import Data
from data_partition.files import DataError, stamp
from data_partition.rows import Sample
from data_partition.splits import ConceptSplit, Examples, owned_concepts, split_concepts
from data_partition.subgroups import Subgroup

SUPERCLASSES: Final[dict[str, tuple[str, ...]]] = {
    "aquatic_mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food_containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit_and_vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household_electrical_devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household_furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large_carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large_man-made_outdoor_things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large_natural_outdoor_scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large_omnivores_and_herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium_mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect_invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small_mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles_1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles_2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}
"""The official names of superclasses, in the order of the first byte of a row, and of their classes."""

CLASSES: Final = tuple(sorted(name for classes in SUPERCLASSES.values() for name in classes))
"""The classes in the order of the second byte, which is that of the alphabet."""

SUPERCLASS_OF: Final = tuple(next(i for i, classes in enumerate(SUPERCLASSES.values()) if name in classes) for name in CLASSES)
"""The first byte that belongs to each second byte."""

FOLDER: Final = "cifar-100-binary"
ROWS: Final = {"train": 50_000, "test": 10_000}
PIXELS: Final = (3, 32, 32)
ROW_BYTES: Final = 2 + 3 * 32 * 32
NAME_FILES: Final = {"coarse_label_names.txt": tuple(SUPERCLASSES), "fine_label_names.txt": CLASSES}


@dataclass(frozen=True)
class Rows:
    """The rows of one file as parallel, read-only arrays of length n.

    ``images`` is uint8 (n, 3, 32, 32) and stays in the file until it is indexed, so that the clients of one machine share one
    copy; ``fine`` indexes ``CLASSES`` and ``coarse`` the superclasses, int64 (n,). Row i of a split has the id ``train/i`` or
    ``test/i``.
    """

    images: NDArray[np.uint8]
    fine: NDArray[np.int64]
    coarse: NDArray[np.int64]


def subgroups(data: Data) -> list[Subgroup]:
    """Return one image subgroup a superclass, each a group of its own in the one domain; or one of all superclasses."""
    if data.grouping == "all":
        return [
            Subgroup(0, "image", 0, tuple(name for classes in SUPERCLASSES.values() for name in classes), 0, ("cifar100",))
        ]
    return [Subgroup(i, "image", i, classes, 0, ("cifar100",)) for i, classes in enumerate(SUPERCLASSES.values())]


def load_examples(data: Data, subgroup: Subgroup, train_fraction: float) -> tuple[Examples, Examples, Examples]:
    """Return the training, validation and test rows of some classes; see :class:`data_partition.datasets.DataSet`.

    Each class is split by image id: ``data.val-fraction`` of its training images are for validation, and the share
    ``train_fraction`` of the others is trained on. A smaller share is a subset of a larger one.

    Raises:
        DataError: a fraction leaves a class without an image, or the data files are missing or damaged.
    """
    train, test = load(data.data_dir)
    labels = [CLASSES.index(name) for name in subgroup.classes]
    trained: list[int] = []
    held_out: list[int] = []
    for name in subgroup.classes:
        split = _split(data, train, name)
        trained += [_row(image) for image in owned_concepts(split.train[name], train_fraction, 0, 1, disjoint=False)]
        held_out += [_row(image) for image in split.val[name]]
    local = np.full(len(CLASSES), -1)
    local[labels] = range(len(labels))

    def examples(rows: Rows, chosen: NDArray[np.int64]) -> Examples:
        return np.asarray(rows.images[chosen]), local[rows.fine[chosen]]

    tested = np.flatnonzero(np.isin(test.fine, labels))
    return examples(train, np.sort(trained)), examples(train, np.sort(held_out)), examples(test, tested)


def group_names(data: Data) -> tuple[str, ...]:
    """Return the names of the class groups, in the order of ``Subgroup.group``."""
    return ("all",) if data.grouping == "all" else tuple(SUPERCLASSES)


def samples(data: Data, label: str, number: int) -> list[Sample]:
    """Return some training images of a class, those that its client owns first."""
    train, _ = load(data.data_dir)
    return [Sample(np.array(train.images[_row(image)])) for image in _split(data, train, label).train[label][:number]]


def _split(data: Data, train: Rows, name: str) -> ConceptSplit:
    """Split the training images of a class, by their ids."""
    ids = tuple(f"train/{row}" for row in np.flatnonzero(train.fine == CLASSES.index(name)))
    return split_concepts({name: ids}, frozenset(), data.val_fraction, data.seed)


def _row(image: str) -> int:
    return int(image.partition("/")[2])


def check_files(data: Data) -> None:
    """Refuse settings whose files are missing or damaged.

    Raises:
        DataError: see :func:`load`.
    """
    load(data.data_dir)


def load(data_dir: str) -> tuple[Rows, Rows]:
    """Return the rows of the training and the test file; later calls for the same files return the same objects.

    Args:
        data_dir: the folder that has the folder ``cifar-100-binary`` in it.

    Raises:
        DataError: a file is missing, has another size than the official one, or has labels that do not belong together.
    """
    paths = locate(data_dir)
    return read(paths["train.bin"], stamp(paths["train.bin"])), read(paths["test.bin"], stamp(paths["test.bin"]))


def locate(data_dir: str) -> dict[str, Path]:
    """Find the four files, by name, and check their sizes and the names of the classes.

    Raises:
        DataError: shows the folder that is expected, and says where the files come from.
    """
    if not data_dir:
        raise DataError(f"data.dataset = 'cifar100' needs data.data-dir, which is empty. {_expected('DATA-DIR', [])}")
    root = Path(data_dir).expanduser().absolute()
    paths = {name: root / FOLDER / name for name in ("train.bin", "test.bin", *NAME_FILES)}
    missing = [name for name, path in paths.items() if not path.is_file()]
    if missing:
        raise DataError(f"CIFAR-100 was not found in data.data-dir = '{data_dir}'. {_expected(str(root), missing)}")
    for split, count in ROWS.items():
        path, size = paths[f"{split}.bin"], paths[f"{split}.bin"].stat().st_size
        if size != count * ROW_BYTES:
            raise DataError(
                f"{path} has {size:,} bytes, expected {count * ROW_BYTES:,} ({count:,} rows of {ROW_BYTES:,}): it was cut "
                "short or is another file; unpack the official archive again."
            )
    for name, expected in NAME_FILES.items():
        found = paths[name].read_text(encoding="utf-8", errors="replace").split()
        wrong = [pair for pair in zip(found, expected, strict=False) if not _same_name(*pair)]
        if len(found) != len(expected) or wrong:
            at = f"{wrong[0][0]!r} where {wrong[0][1]!r} is expected" if wrong else f"expected {len(expected)}"
            raise DataError(f"{paths[name]} has {len(found)} names, {at}: unpack the official archive again.")
    return paths


@lru_cache(maxsize=4)
def read(path: Path, version: tuple[tuple[int, int], ...] = ()) -> Rows:
    """Map a file of rows without checking how many there are.

    Args:
        path: ``train.bin`` or ``test.bin``.
        version: stamp of the file, so that another file of the same name is read anew.

    Raises:
        DataError: a label is out of range, or a class is not in its superclass.
    """
    rows = np.memmap(path, dtype=np.uint8, mode="r").reshape(-1, ROW_BYTES)
    coarse, fine = rows[:, 0].astype(np.int64), rows[:, 1].astype(np.int64)
    for name, labels, count in (("superclass", coarse, len(SUPERCLASSES)), ("class", fine, len(CLASSES))):
        if labels.max() >= count:
            row = int(labels.argmax())
            raise DataError(f"{path}: row {row} has the {name} {labels[row]}, expected 0 to {count - 1}; the file is damaged.")
    expected = np.array(SUPERCLASS_OF)[fine]
    if (coarse != expected).any():
        row = int((coarse != expected).argmax())
        raise DataError(
            f"{path}: row {row} has the class {fine[row]} ({CLASSES[fine[row]]}) and the superclass {coarse[row]}, expected "
            f"superclass {expected[row]}; the file is damaged."
        )
    for array in (coarse, fine):
        array.setflags(write=False)
    return Rows(rows[:, 2:].reshape(-1, *PIXELS), fine, coarse)


def _same_name(found: str, expected: str) -> bool:
    """Some copies write maple for maple_tree."""
    return found in (expected, expected.removesuffix("_tree"))


def _expected(root: str, missing: list[str]) -> str:
    marks = dict.fromkeys(missing, "   <- not found")
    sizes = {f"{split}.bin": f"   {count * ROW_BYTES:,} bytes" for split, count in ROWS.items()}
    names = ("train.bin", "test.bin", *NAME_FILES)
    tree = "\n".join(f"      {name}{sizes.get(name, '')}{marks.get(name, '')}" for name in names)
    return (
        f"Expected:\n  {root}/\n    {FOLDER}/\n{tree}\n"
        "What to do: unpack cifar-100-binary.tar.gz in that folder. It is the binary version of CIFAR-100 (md5 "
        "03b5dce01913d631647c71ecec9e9cb8), from https://www.cs.toronto.edu/~kriz/cifar.html. The version for Python is a "
        "pickle, which is not read."
    )
