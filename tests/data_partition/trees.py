"""Small data sets in the official formats, with the drawings and words of emojipairs written into them.

Class k of a data set has the content of class 5 k modulo 24 of emojipairs, one concept an item, so that the classes of a group
are of several themes, and can be told apart by what is learned from other items. Of some classes there are 16 concepts, drawn
in two styles: beyond that, an item has the text of another one.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from scipy.io import savemat

from data_partition import cifar10
from data_partition.emojipairs.catalogue import CLASSES, PARQUET_NAME
from data_partition.files import find_data_file
from data_partition.group_tables import class_groups


@dataclass(frozen=True)
class Example:
    """A drawing, uint8 (32, 32, 3), and what is written about the same thing, one line a text source."""

    pixels: np.ndarray
    lines: tuple[str, ...]


@cache
def examples() -> tuple[tuple[Example, ...], ...]:
    """All examples of each class of emojipairs: those of the art style noto first, then twemoji, in the order of concepts."""
    table = pq.read_table(find_data_file(PARQUET_NAME)).to_pandas()
    texts = table[(table.modality == "text") & table.domain.str.endswith("-en")]
    lines = {concept: tuple(group.text) for concept, group in texts.groupby("concept")}
    found: list[tuple[Example, ...]] = []
    for label in range(len(CLASSES)):
        one = [table[(table.label == label) & (table.domain == style)].sort_values("concept") for style in ("noto", "twemoji")]
        found.append(
            tuple(
                Example(np.asarray(Image.open(io.BytesIO(row.image)).convert("RGB")), lines[row.concept])
                for style in one
                for row in style.itertuples()
                if row.concept in lines
            )
        )
    return tuple(found)


def example(label: int, index: int) -> Example:
    return examples()[5 * label % len(CLASSES)][index]


def write_jpeg(path: Path, pixels: np.ndarray, mode: str = "RGB", side: int = 48) -> Path:
    """Write a drawing as a JPEG of another size than that of any data set."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).resize((side, side + 8)).save(path, "JPEG", quality=92)
    return path


def cut_short(path: Path) -> None:
    """Leave the first two thirds of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def write_lines(path: Path, lines: Sequence[str], encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))
    return path


def write_cub(root: Path, per_class: int = 6, groups: int = 2) -> Path:
    """Write CUB-200-2011 and its captions, with the classes of the first groups and one species that is not used."""
    classes = [name for group in list(class_groups("cub").values())[:groups] for name in group]
    names, labels = [], []
    for label, name in enumerate([*classes, "003.Sooty_Albatross"]):
        for index in range(per_class):
            stem = f"{name[4:].title()}_{index + 1:04d}_{1000 * label + index}"
            shown = example(label, index)
            write_jpeg(root / "CUB_200_2011" / "images" / name / f"{stem}.jpg", shown.pixels)
            write_lines(root / "cvpr2016_cub" / "text_c10" / name / f"{stem}.txt", shown.lines)
            names.append(f"{name}/{stem}.jpg")
            labels.append(int(name[:3]))
    write_lines(root / "CUB_200_2011" / "images.txt", [f"{i} {name}" for i, name in enumerate(names, start=1)])
    write_lines(root / "CUB_200_2011" / "image_class_labels.txt", [f"{i} {label}" for i, label in enumerate(labels, start=1)])
    return root


def write_oxford(root: Path, per_class: int = 6, groups: int = 2) -> Path:
    """Write Oxford-102 and its captions; classes come in turn, so image i + 1 is of class i modulo the number of classes."""
    classes = [name for group in list(class_groups("oxford102").values())[:groups] for name in group]
    classes.append("class_00001")  # not used
    labels = []
    for index in range(per_class):
        for label, name in enumerate(classes):
            labels.append(int(name[6:]))
            shown = example(label, index)
            write_jpeg(root / "jpg" / f"image_{len(labels):05d}.jpg", shown.pixels)
            write_lines(root / "text_c10" / name / f"image_{len(labels):05d}.txt", shown.lines)
    write_oxford_labels(root, labels)
    return root


def write_oxford_labels(root: Path, labels: Sequence[int], ids: Sequence[int] | None = None) -> None:
    """Write labels as uint8 and the ids of the official split, from 1, as uint16, in the shapes of the official files."""
    savemat(root / "imagelabels.mat", {"labels": np.array([labels], dtype=np.uint8)})
    numbers = np.array([ids or range(1, len(labels) + 1)], dtype=np.uint16)
    parts = {"trnid": numbers[:, ::4], "valid": numbers[:, 1::4], "tstid": np.hstack([numbers[:, 2::4], numbers[:, 3::4]])}
    savemat(root / "setid.mat", parts)


def write_cifar10(root: Path, train: int = 4, test: int = 2) -> Path:
    """Write CIFAR-10 as pickles of Python 2, with ``train`` images of each class in a batch and ``test`` in the last one."""
    folder = root / cifar10.FOLDER
    folder.mkdir(parents=True)
    first = 0
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        each = test if name == "test_batch" else train
        labels = [row % 10 for row in range(10 * each)]
        shown = [example(label, first + row // 10).pixels for row, label in enumerate(labels)]
        rows = np.stack([pixels.transpose(2, 0, 1).ravel() for pixels in shown])
        (folder / name).write_bytes(python2_pickle({"data": rows, "labels": labels, "batch_label": name}))
        first += each
    (folder / "batches.meta").write_bytes(python2_pickle({"label_names": list(cifar10.CLASSES), "num_vis": 3072}))
    return root


def python2_pickle(fields: dict) -> bytes:
    """Return a dict of texts, numbers, lists and arrays of uint8 as Python 2 pickles it, by protocol 2: texts are bytes."""

    def put(value: object) -> bytes:
        if isinstance(value, dict):
            return b"}(" + b"".join(put(key) + put(one) for key, one in value.items()) + pickle.SETITEMS
        if isinstance(value, list):
            return b"](" + b"".join(put(one) for one in value) + pickle.APPENDS
        if isinstance(value, int):
            return pickle.BININT + struct.pack("<i", value)
        if isinstance(value, str | bytes):
            content = value.encode() if isinstance(value, str) else value
            return pickle.BINSTRING + struct.pack("<i", len(content)) + content
        assert isinstance(value, np.ndarray)
        start = b"cnumpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\n" + b"K\x00\x85" + put("b") + b"\x87R"
        kind = b"cnumpy\ndtype\n" + put("u1") + b"K\x00K\x01\x87R(K\x03" + put("|") + b"NNN" + 2 * put(-1) + b"K\x00tb"
        shape = b"(" + b"".join(put(one) for one in value.shape) + b"t"
        return start + b"(K\x01" + shape + kind + b"\x89" + put(value.tobytes()) + b"tb"

    return b"\x80\x02" + put(fields) + b"."
