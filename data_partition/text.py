"""Text to token ids: WordPiece with the small shipped vocabulary."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import BertWordPieceTokenizer

VOCAB_SIZE: Final = 2000
"""Entries of the shipped vocabulary: the rows a token embedding needs."""

PAD_ID: Final = 0
UNK_ID: Final = 1
_SEPARATORS: Final = re.compile(r"[,:]")


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


def encode(texts: Sequence[str], tokenizer: BertWordPieceTokenizer) -> NDArray[np.int64]:
    """Return token ids, shape (n, tokens of the longest text), int64, 0 = padding on the right.

    No [CLS] and no [SEP]: every model here reads its input by cross-attention and has latents of its own to pool with.
    """
    encodings = tokenizer.encode_batch([clean(text) for text in texts], add_special_tokens=False)
    ids = np.full((len(texts), max((len(item.ids) for item in encodings), default=0)), PAD_ID, dtype=np.int64)
    for row, item in zip(ids, encodings, strict=True):
        row[: len(item.ids)] = item.ids
    return ids
