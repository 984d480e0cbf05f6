"""Texts of unknown origin: UTF-8, and Latin-1 where that fails."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Final

LATIN_1_FALLBACK: Final = "backpack-latin-1"
"""Name of the error handler that reads the bytes which are not UTF-8 as Latin-1."""


def _as_latin_1(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode("latin-1"), error.end


codecs.register_error(LATIN_1_FALLBACK, _as_latin_1)


def decode(content: bytes) -> str:
    """Return the text of some bytes, without a byte order mark and without NUL.

    >>> decode("café".encode()), decode("café".encode("latin-1"))
    ('café', 'café')
    """
    return content.decode("utf-8-sig", LATIN_1_FALLBACK).replace("\0", " ")


def read_text(path: Path) -> str:
    """Return the text of a file, one line per line that is not empty, without white space around it.

    Raises:
        OSError: the file cannot be read.
    """
    lines = (" ".join(line.split()) for line in decode(path.read_bytes()).splitlines())
    return "\n".join(line for line in lines if line)
