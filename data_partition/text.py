"""Text to token ids: WordPiece with the small shipped vocabulary, or with that of BERT from a local file.

The vocabulary of BERT is read with ``tokenizers``: transformers 5 ignores ``BertTokenizer(vocab_file=...)`` without a word and
has 5 entries then, every word [UNK]. The size is checked all the same.

Source: WordPiece as in BERT (Devlin et al., NAACL 2019), uncased.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import BertWordPieceTokenizer

from config import Data
from data_partition.files import DataError

VOCAB_SIZE: Final = 2000
"""Entries of the shipped vocabulary: the rows a token embedding needs."""

PAD_ID: Final = 0
UNK_ID: Final = 1
"""[UNK] of the shipped vocabulary; :func:`unk_id` is that of a run."""

BERT_VOCAB_SIZE: Final = 30_522
BERT_SPECIAL_TOKENS: Final = {"[PAD]": PAD_ID, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}
"""Size of the vocabulary of bert-base-uncased, and the ids that say it is that one."""

_SEPARATORS: Final = re.compile(r"[,:]")


def vocab_size(data: Data) -> int:
    """Return the number of token ids of a run, padding included: the rows of its token embedding."""
    return BERT_VOCAB_SIZE if data.vocab_file else VOCAB_SIZE


def unk_id(data: Data) -> int:
    """Return the id of [UNK] in the vocabulary of a run."""
    return BERT_SPECIAL_TOKENS["[UNK]"] if data.vocab_file else UNK_ID


def clean(text: str) -> str:
    """Replace the separators of keyword lists by spaces: they would be a third of the tokens and tell nothing.

    >>> clean("tiger: animal, big")
    'tiger  animal  big'
    """
    return _SEPARATORS.sub(" ", text)


def load_tokenizer(vocab_path: Path, vocab_size: int = VOCAB_SIZE) -> BertWordPieceTokenizer:
    """Read a WordPiece vocabulary, one token a line.

    Raises:
        ValueError: the file does not have ``vocab_size`` entries, or [PAD] and [UNK] are not the first two.
    """
    tokenizer = BertWordPieceTokenizer(str(vocab_path), lowercase=True)
    found = (tokenizer.get_vocab_size(), tokenizer.token_to_id("[PAD]"), tokenizer.token_to_id("[UNK]"))
    if found != (vocab_size, PAD_ID, UNK_ID):
        raise ValueError(
            f"{vocab_path}: size and ids of [PAD] and [UNK] are {found}, expected {(vocab_size, PAD_ID, UNK_ID)}; "
            "rebuild it with python -m data_partition.emojipairs.build"
        )
    return tokenizer


def check_bert_vocabulary(path: Path) -> None:
    """Refuse a file that is not ``vocab.txt`` of bert-base-uncased: 30,522 different entries, special tokens in their places.

    Raises:
        DataError: the file is missing, is not text, or has other entries; with what was found and what was expected.
    """
    wanted = f"data.vocab-file is the file vocab.txt of the bert-base-uncased model, {BERT_VOCAB_SIZE:,} lines of one token"
    if not path.is_file():
        raise DataError(f"{path} is not a file: {wanted}. Correct the path, or leave it empty to use the shipped vocabulary.")
    try:
        entries = [line.rstrip() for line in path.read_text(encoding="utf-8").removesuffix("\n").split("\n")]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}): {wanted}.") from None
    if len(entries) != BERT_VOCAB_SIZE:
        raise DataError(f"{path} has {len(entries):,} lines, expected {BERT_VOCAB_SIZE:,}: {wanted}.")
    first: dict[str, int] = {}
    for index, entry in enumerate(entries):
        if first.setdefault(entry, index) != index:
            raise DataError(
                f"{path}: entry {entry!r} is in lines {first[entry] + 1} and {index + 1}, expected {BERT_VOCAB_SIZE:,} "
                f"different entries, found {len(set(entries)):,}: {wanted}."
            )
    found = {token: first.get(token) for token in BERT_SPECIAL_TOKENS}
    if found != BERT_SPECIAL_TOKENS:
        raise DataError(f"{path}: ids of the special tokens are {found}, expected {BERT_SPECIAL_TOKENS}: {wanted}.")


def load_bert_tokenizer(path: Path) -> BertWordPieceTokenizer:
    """Read the vocabulary of bert-base-uncased.

    Raises:
        DataError: see :func:`check_bert_vocabulary`; or the tokenizer did not take all entries.
    """
    check_bert_vocabulary(path)
    tokenizer = BertWordPieceTokenizer(str(path), lowercase=True)
    if tokenizer.get_vocab_size() != BERT_VOCAB_SIZE:
        raise DataError(f"{path}: the tokenizer has {tokenizer.get_vocab_size():,} entries, expected {BERT_VOCAB_SIZE:,}.")
    return tokenizer


def encode(texts: Sequence[str], tokenizer: BertWordPieceTokenizer) -> NDArray[np.int64]:
    """Return token ids, shape (n, tokens of the longest text), int64, 0 = padding on the right.

    No [CLS] and no [SEP]: every model here reads its input by cross-attention and has latents of its own to pool with.
    """
    encodings = tokenizer.encode_batch([clean(text) for text in texts], add_special_tokens=False)
    ids = np.full((len(texts), max((len(item.ids) for item in encodings), default=0)), PAD_ID, dtype=np.int64)
    for row, item in zip(ids, encodings, strict=True):
        row[: len(item.ids)] = item.ids
    return ids
