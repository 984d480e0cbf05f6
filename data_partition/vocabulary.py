"""The tokenizer of a run: the shipped vocabulary, or that of bert-base-uncased from a file."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from tokenizers import BertWordPieceTokenizer

from config import Data
from data_partition.emojipairs.catalogue import VOCAB_NAME
from data_partition.files import find_data_file, stamp
from data_partition.text import load_bert_tokenizer, load_tokenizer


def tokenizer_of(data: Data) -> BertWordPieceTokenizer:
    """Return the tokenizer of ``data.vocab_file``; later calls for the same file return the same object.

    Raises:
        DataError: the file is missing or is another one.
    """
    path = Path(data.vocab_file).expanduser().resolve() if data.vocab_file else find_data_file(VOCAB_NAME)
    return _load(path, bool(data.vocab_file), stamp(path))


@lru_cache(maxsize=2)
def _load(path: Path, bert: bool, version: tuple[tuple[int, int], ...]) -> BertWordPieceTokenizer:
    return load_bert_tokenizer(path) if bert else load_tokenizer(path)
