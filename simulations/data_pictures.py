"""Two pictures of a data set, as PNG: some of its images and texts, and how many examples of which class a client has.

Both are drawn by Pillow, which every installation has for the images themselves; matplotlib is an extra, and a sheet of tiles
and a table of coloured cells need nothing of it.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from data_partition.rows import Sample

Pixels = NDArray[np.uint8]

TILE: Final = 96
"""Side of an image on the sheet, in pixels."""
GAP: Final = 8
LINE: Final = 13
"""Height of a line of text."""
CAPTION_LINES: Final = 3
INK, FAINT, PAPER = (20, 20, 20), (225, 225, 225), (255, 255, 255)
STRONGEST: Final = (8, 64, 129)
"""Colour of the cell with the most examples; one with none is as the paper."""
CELL_WIDTH: Final = 30
TALLEST: Final = 8000
"""Pixels that all rows of the plot together may be high; with more clients the rows are lower, and not named."""


class Box(NamedTuple):
    """A rectangle: left, top, right, bottom; the last two are outside of it."""

    left: int
    top: int
    right: int
    bottom: int


class Strip(NamedTuple):
    """What is placed on the sheet in one piece: the heading of a group, or the samples of a class."""

    title: str
    samples: Sequence[Sample] | None
    height: int


def contact_sheet(groups: Mapping[str, Mapping[str, Sequence[Sample]]]) -> tuple[Image.Image, list[Box]]:
    """Draw samples of each class of each group, with their texts below; the sheet is about as wide as high.

    Args:
        groups: samples by class, by group.

    Returns:
        The sheet, and the place of each sample on it.
    """
    samples = [sample for classes in groups.values() for found in classes.values() for sample in found]
    caption = CAPTION_LINES * LINE if any(sample.text for sample in samples) else 0
    strips: list[Strip] = []
    for group, classes in groups.items():
        strips.append(Strip(group, None, 2 * LINE))
        strips += [Strip(name, found, LINE + TILE + caption + 2 * GAP) for name, found in classes.items()]
    widest = max((len(strip.samples or ()) for strip in strips), default=1)
    width = max(1, widest) * (TILE + GAP) + 2 * GAP
    columns = _columns(strips, width)
    height = max((sum(strip.height for strip in column) for column in columns), default=0) + 2 * GAP
    sheet = Image.new("RGB", (width * len(columns), height), PAPER)
    draw, boxes = ImageDraw.Draw(sheet), list[Box]()
    for place, column in enumerate(columns):
        left, top = place * width + GAP, GAP
        for title, found, size in column:
            _write(draw, (left, top + (LINE if found is None else 0)), [shorten(title, width - GAP)], bold=found is None)
            for index, sample in enumerate(found or ()):
                x, y = left + index * (TILE + GAP), top + LINE + 2
                boxes.append(Box(x, y, x + TILE, y + TILE))
                _tile(sheet, draw, boxes[-1], sample)
            top += size
    return sheet, boxes


def label_plot(
    rows: Sequence[str], columns: Sequence[str], counts: Sequence[Mapping[str, int]]
) -> tuple[Image.Image, list[list[Box]]]:
    """Draw clients as rows and classes as columns; the more examples, the darker the cell, with their number in it.

    Args:
        rows: names of the clients.
        columns: names of the classes.
        counts: examples of each class that a client owns, client by client; a class that it does not own is a grey cell.

    Returns:
        The plot, and the places of its cells, row by row.
    """
    cell = max(2, min(LINE + 5, TALLEST // max(1, len(rows))))
    named = cell >= LINE
    left = max((_width(name) for name in rows), default=0) + 2 * GAP if named else GAP
    top = max((_width(name) for name in columns), default=0) + 2 * GAP + LINE
    plot = Image.new("RGB", (left + CELL_WIDTH * len(columns) + GAP, top + cell * len(rows) + GAP), PAPER)
    draw = ImageDraw.Draw(plot)
    most = max((number for own in counts for number in own.values()), default=0)
    _write(draw, (GAP, 2), [f"training examples of each client and class, at most {most:,}"], bold=True)
    for index, name in enumerate(columns):
        word = Image.new("RGB", (_width(name) + 2, LINE + 2), PAPER)
        _write(ImageDraw.Draw(word), (0, 0), [name])
        word = word.rotate(90, expand=True)
        plot.paste(word, (left + CELL_WIDTH * index + (CELL_WIDTH - LINE) // 2, top - GAP - word.height))
    boxes: list[list[Box]] = []
    for line, (name, own) in enumerate(zip(rows, counts, strict=True)):
        y = top + cell * line
        if named:
            _write(draw, (GAP, y + 2), [name])
        boxes.append([])
        for index, label in enumerate(columns):
            x = left + CELL_WIDTH * index
            box = Box(x, y, x + CELL_WIDTH - 1, y + cell - 1)
            boxes[-1].append(box)
            share = own.get(label, 0) / max(1, most)
            colour = _blend(share) if label in own else FAINT
            draw.rectangle((box.left, box.top, box.right - 1, box.bottom - 1), fill=colour)
            if named and own.get(label, 0):
                text = f"{own[label]}"
                at = (x + (CELL_WIDTH - _width(text)) // 2, y + 2)
                _write(draw, at, [text], ink=PAPER if share > 0.5 else INK)
    return plot, boxes


def shorten(text: str, width: int) -> str:
    """Cut a text to a width in pixels."""
    if len(text) <= width and _width(text) <= width:  # a character takes a pixel at least
        return text
    fits = bisect_right(range(1, min(len(text), width) + 1), width, key=lambda length: _width(f"{text[:length]}…"))
    return f"{text[:fits].rstrip()}…"


def wrap(text: str, width: int, lines: int) -> list[str]:
    """Break a text into lines of a width in pixels; what does not fit is cut."""
    words, found = text.split(), list[str]()
    while words and len(found) < lines:
        if len(found) == lines - 1:
            return [*found, shorten(" ".join(words), width)]
        line = words.pop(0)
        while words and _width(f"{line} {words[0]}") <= width:
            line = f"{line} {words.pop(0)}"
        found.append(shorten(line, width))
    return found


def _columns(strips: Sequence[Strip], width: int) -> list[list[Strip]]:
    """Deal strips to columns of about one height; a heading is never the last of a column."""
    total = sum(strip.height for strip in strips)
    limit = total / max(1, round(math.sqrt(total / width)))
    columns, height = list[list[Strip]]([[]]), 0
    for index, strip in enumerate(strips):
        needed = strip.height + (strips[index + 1].height if strip.samples is None and index + 1 < len(strips) else 0)
        if columns[-1] and height + needed / 2 > limit:
            columns.append([])
            height = 0
        columns[-1].append(strip)
        height += strip.height
    return columns


def _tile(sheet: Image.Image, draw: ImageDraw.ImageDraw, box: Box, sample: Sample) -> None:
    """Draw an image with its text below, or a text that has no image in its place."""
    if sample.pixels is None:
        draw.rectangle((box.left, box.top, box.right - 1, box.bottom - 1), fill=FAINT)
        _write(draw, (box.left + 3, box.top + 3), wrap(sample.text, TILE - 6, (TILE - 6) // LINE))
        return
    picture = Image.fromarray(np.ascontiguousarray(sample.pixels.transpose(1, 2, 0)))
    whole = TILE % picture.width == 0
    sheet.paste(
        picture.resize((TILE, TILE), Image.Resampling.NEAREST if whole else Image.Resampling.BILINEAR), (box.left, box.top)
    )
    _write(draw, (box.left, box.bottom + 2), wrap(sample.text, TILE, CAPTION_LINES))


def _write(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    lines: Sequence[str],
    *,
    bold: bool = False,
    ink: tuple[int, int, int] = INK,
) -> None:
    for index, line in enumerate(lines):
        draw.text((at[0], at[1] + index * LINE), line, fill=ink, font=_font(), stroke_width=0.3 if bold else 0)


def _width(text: str) -> int:
    return math.ceil(_font().getlength(text))


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font that is part of Pillow: it draws Latin letters, and a box for any other."""
    return ImageFont.load_default(11)


def _blend(share: float) -> tuple[int, int, int]:
    red, green, blue = (round(low + (high - low) * share) for low, high in zip(PAPER, STRONGEST, strict=True))
    return red, green, blue
