"""Reads the embedded data set: decoded once per process, shared by all clients of the process."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from data_partition.emojipairs.catalogue import CLASSES, PARQUET_NAME, VOCAB_NAME
from data_partition.files import DataError, check_sha256, find_data_file, stamp
from data_partition.text import check_bert_vocabulary, encode, load_bert_tokenizer, load_tokenizer

PARQUET_SHA256: Final = "d4bef5a28aecf798c4c3a727d89cd2cdb923e589110b884319b1a1e81937cb56"
VOCAB_SHA256: Final = "50801d05cde47c950c806c91649bb0b47d74f0b42f85605df6d38cb0f0722e93"


@dataclass(frozen=True)
class Rows:
    """The rows of one modality as parallel, read-only arrays of length n.

    ``inputs`` are images, uint8 (n, 3, 32, 32), or token ids of whole texts, int64 (n, longest), 0 = padding; ``labels`` index
    the table's ``classes`` and ``concepts`` its ``concepts``; ``domains`` are names of art styles or text sources.
    """

    inputs: NDArray[Any]
    labels: NDArray[np.int64]
    concepts: NDArray[np.int64]
    domains: NDArray[np.str_]


@dataclass(frozen=True)
class Table:
    """The data set. ``concept_labels`` and ``is_test`` run parallel to ``concepts``: the split is one of concepts."""

    classes: tuple[str, ...]
    concepts: tuple[str, ...]
    concept_labels: NDArray[np.int64]
    is_test: NDArray[np.bool_]
    images: Rows
    texts: Rows


def load(data_dir: str = "", vocab_file: str = "") -> Table:
    """Return the decoded data set; later calls for the same files return the same object.

    Args:
        data_dir: folder of the files; empty: the files shipped with the project.
        vocab_file: vocabulary of bert-base-uncased, in place of the small one among the files.

    Raises:
        DataError: a file is missing or is not the one the code was written for.
    """
    parquet, vocab = locate(data_dir, vocab_file)
    return read(parquet, vocab, bool(vocab_file), stamp(parquet, vocab))


def locate(data_dir: str = "", vocab_file: str = "") -> tuple[Path, Path]:
    """Find the data file and the vocabulary, and check that they are those the code was written for.

    Raises:
        DataError: a file is missing or is another one.
    """
    parquet = find_data_file(PARQUET_NAME, data_dir)
    check_sha256(parquet, PARQUET_SHA256)
    if vocab_file:
        vocab = Path(vocab_file).expanduser().resolve()
        check_bert_vocabulary(vocab)
    else:
        vocab = find_data_file(VOCAB_NAME, data_dir)
        check_sha256(vocab, VOCAB_SHA256)
    return parquet, vocab


@lru_cache(maxsize=2)
def read(parquet: Path, vocab: Path, bert: bool = False, version: tuple[tuple[int, int], ...] = ()) -> Table:
    """Decode the two files without checking which they are.

    Args:
        parquet: the data file.
        vocab: the vocabulary.
        bert: whether it is that of bert-base-uncased.
        version: stamp of the two files, so that another file of the same name is read anew.
    """
    table = pq.read_table(parquet)
    classes = tuple(json.loads((table.schema.metadata or {}).get(b"emojipairs", b"{}")).get("classes", ()))
    if classes != CLASSES:
        raise DataError(f"{parquet}: its metadata names the classes {classes}, expected {CLASSES}; rebuild the file.")
    columns = {name: table.column(name).to_numpy() for name in ("modality", "label", "domain", "concept", "split")}
    concepts, first, inverse = np.unique(columns["concept"].astype(str), return_index=True, return_inverse=True)
    is_image = columns["modality"] == "image"

    def rows(mask: NDArray[np.bool_], inputs: NDArray[Any]) -> Rows:
        parts = (inputs, columns["label"][mask].astype(np.int64), inverse[mask].astype(np.int64))
        arrays = (*parts, columns["domain"][mask].astype(str))
        for array in arrays:
            array.setflags(write=False)
        return Rows(*arrays)

    pictures = [value for value in table.column("image").to_pylist() if value is not None]
    sentences = [value for value in table.column("text").to_pylist() if value is not None]
    return Table(
        classes=classes,
        concepts=tuple(str(concept) for concept in concepts),
        concept_labels=columns["label"][first].astype(np.int64),
        is_test=columns["split"][first] == "test",
        images=rows(is_image, _decode(pictures)),
        texts=rows(~is_image, encode(sentences, load_bert_tokenizer(vocab) if bert else load_tokenizer(vocab))),
    )


def _decode(pictures: list[bytes]) -> NDArray[np.uint8]:
    """Decode PNG files of one size to uint8 (n, 3, height, width)."""
    decoded = []
    for picture in pictures:
        with Image.open(io.BytesIO(picture)) as image:
            decoded.append(np.asarray(image.convert("RGB")))
    return np.ascontiguousarray(np.stack(decoded).transpose(0, 3, 1, 2))
