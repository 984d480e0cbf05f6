"""A vocabulary of the size and form of bert-base-uncased, made from the shipped one."""

from __future__ import annotations

from pathlib import Path

from data_partition.emojipairs.catalogue import VOCAB_NAME
from data_partition.files import find_data_file
from data_partition.text import BERT_SPECIAL_TOKENS, BERT_VOCAB_SIZE

OFFSET = 1000
"""Shipped token i is line OFFSET + i of the file made here; special tokens are where BERT has them."""


def bert_entries() -> list[str]:
    entries = [f"[unused{index}]" for index in range(BERT_VOCAB_SIZE)]
    for token, index in BERT_SPECIAL_TOKENS.items():
        entries[index] = token
    shipped = find_data_file(VOCAB_NAME).read_text(encoding="utf-8").splitlines()
    for index, token in enumerate(shipped):
        if token not in BERT_SPECIAL_TOKENS:
            entries[OFFSET + index] = token
    return entries


def write_entries(path: Path, entries: list[str]) -> Path:
    path.write_text("\n".join(entries) + "\n", encoding="utf-8")
    return path
