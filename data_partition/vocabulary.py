"""The tokenizer of a run: the shipped vocabulary, or that of bert-base-uncased from a file."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from tokenizers import BertWordPieceTokenizer

from config import Data
from data_partition.emojipairs.catalogue import VOCAB_NAME
from data_partition.files import find_data_file, stamp
from data_partition.text import check_bert_vocabulary, load_bert_tokenizer, load_tokenizer


def tokenizer_of(data: Data) -> BertWordPieceTokenizer:
    """Return the tokenizer of ``data.vocab_file``; later calls for the same file return the same object.

    Raises:
        DataError: the file is missing or is another one.
    """
    path = vocabulary_of(data)
    return _load(path, bool(data.vocab_file), stamp(path))


def vocabulary_of(data: Data) -> Path:
    """Return the file of the vocabulary of a run.

    Raises:
        DataError: it is missing.
    """
    if not data.vocab_file:
        return find_data_file(VOCAB_NAME)
    path = Path(data.vocab_file).expanduser().resolve()
    if not path.is_file():
        check_bert_vocabulary(path)
    return path


@lru_cache(maxsize=2)
def _load(path: Path, bert: bool, version: tuple[tuple[int, int], ...]) -> BertWordPieceTokenizer:
    return load_bert_tokenizer(path) if bert else load_tokenizer(path)
