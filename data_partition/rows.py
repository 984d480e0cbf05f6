"""What a reader of a data set finds: rows that are listed, not yet decoded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_partition.subgroups import Modality


@dataclass(frozen=True)
class Row:
    """One example before it is decoded: an image file, a place in an array file, or a text.

    Attributes:
        item: image id, shared by all modalities of one item; splits go by it.
        modality: image or text.
        label: class name.
        split: "train" or "test" where the data set fixes it; "": drawn by item.
        domain: style, source or subject: what partitioning by domain goes by.
        path: of an image file, or of the array file that holds it; of a text, if it has a file of its own.
        text: of a text.
        index: place in an array file that holds many images (CIFAR).
    """

    item: str
    modality: Modality
    label: str
    split: str = ""
    domain: str = ""
    path: Path | None = None
    text: str = ""
    index: int = -1


@dataclass(frozen=True)
class Fault:
    """A row that cannot be used, and why."""

    item: str
    modality: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """What a reader finds.

    Attributes:
        rows: to use.
        faults: rows that cannot be used; too many of them stop a run (``data.max-bad-fraction``).
        left_out: sound rows that a rule of the reader leaves out, and why; they stop nothing.
    """

    rows: tuple[Row, ...]
    faults: tuple[Fault, ...]
    left_out: tuple[Fault, ...] = ()


@dataclass(frozen=True)
class Sample:
    """A training item to look at: its image, uint8 (3, S, S), and its text; one of the two may be missing."""

    pixels: NDArray[np.uint8] | None
    text: str = ""
