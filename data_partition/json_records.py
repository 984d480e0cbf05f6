"""Reading a large JSON file record by record, so that memory holds one record and never the file.

The annotations of COCO are 450 MB, most of them outlines that nothing here needs: as Python objects they would be several GB.
Each record is parsed by the decoder of the standard library, so the order of keys, white space and escapes may be any.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TextIO

from data_partition.encodings import LATIN_1_FALLBACK
from data_partition.files import DataError

CHUNK: Final = 1 << 20
"""Characters that are read at a time."""

LARGEST: Final = 1 << 26
"""Characters of the largest record: what is longer is taken for a damaged file, before all of it is in memory."""

_SPACE: Final = " \t\r\n"
_DECODER: Final = json.JSONDecoder()


def records(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the records of a JSON file in their order.

    Args:
        path: a list of records, each of which is yielded with the key ""; or an object, whose lists are yielded record by
            record and whose other values are yielded whole, each with its key.

    Raises:
        DataError: the file cannot be opened, is cut short, or is neither of the two.
    """
    try:
        with path.open(encoding="utf-8-sig", errors=LATIN_1_FALLBACK) as file:
            yield from _Reader(file).top()
    except (json.JSONDecodeError, OSError) as error:
        raise DataError(
            f"{path} is not whole JSON ({error}): expected a list of records, or an object with lists of records. It was cut "
            "short or changed; fetch or unpack it again."
        ) from None


class _Reader:
    """A window on the text of a file; ``at`` is the next character to be looked at."""

    def __init__(self, file: TextIO) -> None:
        self.file, self.window, self.at = file, "", 0

    def more(self) -> bool:
        """Drop what was taken and read on; False, and nothing is dropped, at the end of the file."""
        new = self.file.read(CHUNK)
        if new:
            self.window, self.at = self.window[self.at :] + new, 0
        return bool(new)

    def peek(self) -> str:
        """Return the next character that is no white space; empty at the end of the file."""
        while True:
            while self.at < len(self.window):
                if self.window[self.at] not in _SPACE:
                    return self.window[self.at]
                self.at += 1
            if not self.more():
                return ""

    def take(self, wanted: str) -> str:
        """Step over one of the wanted characters and return it."""
        found = self.peek()
        if not found or found not in wanted:
            raise json.JSONDecodeError(f"expected one of {wanted}, found {found or 'the end'}", self.window, self.at)
        self.at += 1
        return found

    def value(self) -> Any:
        """Parse one whole value."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self.window, self.at)
            except json.JSONDecodeError:
                if len(self.window) - self.at > LARGEST or not self.more():
                    raise
                continue
            if len(self.window) - end < 3 and self.more():  # a number may go on, such as 1 where 1e-5 was cut
                continue
            self.at = end
            return value

    def top(self) -> Iterator[tuple[str, Any]]:
        """Yield the records of the whole file."""
        if self.peek() == "[":
            for record in self.list():
                yield "", record
        else:
            self.take("{")
            if self.peek() == "}":
                return
            while True:
                key = str(self.value())
                self.take(":")
                if self.peek() == "[":
                    for record in self.list():
                        yield key, record
                else:
                    yield key, self.value()
                if self.take(",}") == "}":
                    return

    def list(self) -> Iterator[Any]:
        """Yield the elements of a list."""
        self.take("[")
        if self.peek() == "]":
            self.at += 1
            return
        while True:
            yield self.value()
            if self.take(",]") == "]":
                return
