"""The readers of data sets that are listed row by row: which module reads what, and its class groups.

A reader is a module ``data_partition/NAME.py``, imported when rows are wanted, with

- ``missing(data)``: the expected tree with a mark at what is not there, or nothing if all of it is;
- ``read(data)``: the :class:`Listing`; it decodes nothing;

and, where they are needed,

- ``inputs(data)``: files and folders that ``read`` goes through; without it: all of ``data.data-dir``. Files that many rows
  come from are named one by one: see data_partition/tree_keys.py;
- ``pictures(path, indices)``: yields the images at some places of an array file, in that order, each as the bytes of an image
  file or as pixels, uint8 (3, height, width);
- ``own_groups(data)``: class groups by name, where no table ``data_partition/groups/NAME.toml`` has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from config import CLASSES_PER_CLIENT, Data
from data_partition.files import DataError
from data_partition.group_tables import class_groups
from data_partition.rows import Listing

Pictures = Callable[[Path, Sequence[int]], Iterator[bytes | NDArray[np.uint8]]]


@dataclass(frozen=True)
class Reader:
    """A reader's functions, with what stands in for those that it does not have."""

    missing: Callable[[Data], str]
    read: Callable[[Data], Listing]
    inputs: Callable[[Data], Sequence[Path]]
    pictures: Pictures | None
    own_groups: Callable[[Data], dict[str, tuple[str, ...]]] | None


def find_reader(name: str) -> Reader:
    """Return the reader of a data set."""
    module = import_module(f"data_partition.{name}")
    return Reader(
        module.missing,
        module.read,
        getattr(module, "inputs", lambda data: [root_of(data)]),
        getattr(module, "pictures", None),
        getattr(module, "own_groups", None),
    )


def root_of(data: Data) -> Path:
    """Return the folder of the data files."""
    return Path(data.data_dir).expanduser().absolute()


def require(data: Data) -> None:
    """Refuse settings whose files are not there.

    Raises:
        DataError: shows the expected tree, with a mark at what is missing.
    """
    if told := find_reader(data.dataset).missing(data):
        raise DataError(told)


def groups_of(data: Data) -> dict[str, tuple[str, ...]]:
    """Return the classes of each class group of ``data.grouping`` by its name; only own groups need files.

    Raises:
        DataError: a class is in two groups, or the files that name the groups are missing.
    """
    if CLASSES_PER_CLIENT[data.dataset][data.grouping]:
        found = class_groups(data.dataset)
    else:
        require(data)
        groups = find_reader(data.dataset).own_groups
        assert groups is not None, f"data_partition/{data.dataset}.py has no table of groups and no function own_groups()"
        found = groups(data)
    names = [name for classes in found.values() for name in classes]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(
            f"data.dataset = '{data.dataset}': the classes {', '.join(twice[:10])} are in two groups, expected one."
        )
    return {"all": tuple(names)} if data.grouping == "all" else found
