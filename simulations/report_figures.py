"""Figures of the report as SVG inside the page: curves, a heat map, stacked bars. Their colours are those of the page."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from simulations.report_html import NUM_COLOURS, Html, count, join, tag

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 12, 40
MOST_DOTS = 60
"""A curve with more points is drawn without a dot at each."""
CELL_WIDTH, CELL_HEIGHT = 52, 28
BAR_HEIGHT, BAR_GAP = 20, 10
LONGEST_NAME = 30
STRONGEST = 0.7
"""Opacity of a cell of value 1; the number in it can be read in both colour schemes."""

Matrix = Sequence[Sequence[float | None]]


@dataclass(frozen=True)
class Curve:
    """One line of a chart.

    Attributes:
        name: what a pointer over it shows.
        points: (x, y), ascending in x.
        colour: number of the colour; after the last one they begin again, dashed.
        thin: drawn weakly, behind the others and without dots.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: int
    thin: bool = False


@dataclass(frozen=True)
class Part:
    """One part of a stacked bar; ``colour`` None: weights that nobody owns."""

    name: str
    value: float
    colour: int | None


def line_chart(curves: Sequence[Curve], label: str, x_label: str = "round") -> Html:
    """Return a chart of all curves over one pair of axes; it does not begin at zero.

    Args:
        curves: at least one point in all.
        label: what is on the y axis.
        x_label: what is on the x axis, in whole numbers.
    """
    xs = [x for curve in curves for x, _ in curve.points]
    ys = [y for curve in curves for _, y in curve.points]
    x_ticks = ticks(min(xs), max(xs), least_step=1.0)
    y_ticks = ticks(min(ys), max(ys))
    low, high = min(*xs, max(xs) - 1), max(xs)
    bottom, top = y_ticks[0], y_ticks[-1]

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (x - low) / (high - low) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - (y - bottom) / (top - bottom) * (HEIGHT - TOP - BOTTOM),
        )

    parts = []
    for value in y_ticks:
        _, y = at(low, value)
        parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(tag("text", tick_text(value, y_ticks), x=LEFT - 8, y=y + 4, text_anchor="end", class_="soft"))
    for value in x_ticks:
        if low <= value <= high:
            x, _ = at(value, bottom)
            parts.append(tag("text", f"{value:.0f}", x=x, y=HEIGHT - BOTTOM + 18, text_anchor="middle", class_="soft"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(tag("text", x_label, x=middle, y=HEIGHT - 4, text_anchor="middle", class_="soft"))
    for curve in sorted(curves, key=lambda one: not one.thin):
        style = f"c{curve.colour % NUM_COLOURS}"
        where = [at(x, y) for x, y in curve.points]
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in where)
        kinds = f"curve {style}{' thin' if curve.thin else ''}{' dash' if curve.colour >= NUM_COLOURS else ''}"
        parts.append(tag("polyline", tag("title", curve.name), points=drawn, class_=kinds))
        if len(where) == 1 or (not curve.thin and len(where) <= MOST_DOTS):
            for (x, y), (round_, value) in zip(where, curve.points, strict=True):
                told = tag("title", f"{curve.name}, {x_label} {round_:.0f}: {value:.3f}")
                parts.append(tag("circle", told, cx=x, cy=y, r=2 if curve.thin else 3, class_=f"dot {style}"))
    return tag("svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", class_="wide", role="img", aria_label=f"{label} over {x_label}")


def ticks(low: float, high: float, least_step: float = 0.0) -> list[float]:
    """Return round numbers, from the first at or below ``low`` to the first at or above ``high``, at least two.

    >>> ticks(0.12, 0.38)
    [0.1, 0.2, 0.3, 0.4]
    """
    size = max(abs(low), abs(high))
    span = high - low if high - low > 1e-9 * size else size / 10 or 1.0  # sums in another order are not two values
    power = 10.0 ** math.floor(math.log10(span / 5))
    step = max(least_step, next(times * power for times in (1, 2, 5, 10) if times * power >= span / 5 * (1 - 1e-9)))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, max(last, first + 1) + 1)]


def tick_text(value: float, among: Sequence[float]) -> str:
    """Write a tick with as many places as the step of its axis needs."""
    return f"{value:.{max(0, -math.floor(math.log10(among[1] - among[0]) + 1e-9))}f}"


def heat_map(
    matrix: Matrix,
    rows: Sequence[str],
    columns: Sequence[str],
    label: str,
    marked: Collection[tuple[int, int]] = (),
) -> Html:
    """Return a matrix with its numbers; the colour goes from 0 to 1, whatever the values are.

    Args:
        matrix: values by row and column; None is left blank.
        rows: a name for each row.
        columns: a name for each column.
        label: what the figure shows, for those who hear it.
        marked: cells with a frame.
    """
    left, top = 8 + 7 * max(map(len, rows), default=0), 24
    width, height = left + CELL_WIDTH * len(columns) + 2, top + CELL_HEIGHT * len(rows) + 2
    parts = []
    for index, name in enumerate(columns):
        middle = left + (index + 0.5) * CELL_WIDTH
        parts.append(tag("text", name, x=middle, y=top - 8, text_anchor="middle", class_="soft"))
    for i, (name, values) in enumerate(zip(rows, matrix, strict=True)):
        y = top + i * CELL_HEIGHT
        parts.append(tag("text", name, x=left - 8, y=y + 18, text_anchor="end", class_="soft"))
        for j, value in enumerate(values):
            x = left + j * CELL_WIDTH
            box = {"x": x + 1, "y": y + 1, "width": CELL_WIDTH - 2, "height": CELL_HEIGHT - 2}
            if value is None:
                parts.append(tag("rect", **box, class_="empty"))
                continue
            strength = STRONGEST * min(max(value, 0.0), 1.0)
            told = tag("title", f"{name}, {columns[j]}: {value:.3f}")
            parts.append(tag("rect", told, **box, class_="cell", fill_opacity=strength))
            if (i, j) in marked:
                parts.append(tag("rect", **box, class_="marked"))
            parts.append(tag("text", f"{value:.3f}", x=x + CELL_WIDTH / 2, y=y + 18, text_anchor="middle"))
    drawing = tag("svg", *parts, viewBox=f"0 0 {width} {height}", width=width, height=height, role="img", aria_label=label)
    return tag("div", drawing, class_="scroll")


def stacked_bars(bars: Sequence[tuple[str, Sequence[Part]]], label: str) -> Html:
    """Return one bar a row, all on one scale, with its total beside it.

    Args:
        bars: name and parts of each; values are 0 or more.
        label: what the figure shows, for those who hear it.
    """
    bars = [(name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…", parts) for name, parts in bars]
    left = 8 + 7 * max(len(name) for name, _ in bars)
    totals = [sum(part.value for part in parts) for _, parts in bars]
    room = WIDTH - left - 8 - 8 * max(len(count(total)) for total in totals)
    scale = room / (max(totals) or 1.0)
    drawn = []
    for index, ((name, parts), total) in enumerate(zip(bars, totals, strict=True)):
        x, y = float(left), index * (BAR_HEIGHT + BAR_GAP)
        drawn.append(tag("text", name, x=left - 8, y=y + 15, text_anchor="end"))
        for part in parts:
            wide = part.value * scale
            style = "free" if part.colour is None else f"c{part.colour % NUM_COLOURS}"
            told = tag("title", f"{name}, {part.name}: {count(part.value)} of {count(total)}")
            drawn.append(tag("rect", told, x=x, y=y, width=max(wide - 1, 0.0), height=BAR_HEIGHT, class_=f"part {style}"))
            x += wide
        drawn.append(tag("text", count(total), x=x + 6, y=y + 15, class_="soft"))
    height = len(bars) * (BAR_HEIGHT + BAR_GAP)
    return tag("svg", *drawn, viewBox=f"0 0 {WIDTH} {height}", class_="wide", role="img", aria_label=label)


def legend(entries: Sequence[tuple[str, int | None]]) -> Html:
    """Return names with their colours; None: the colour of what is free."""
    items = []
    for name, colour in entries:
        style = "free" if colour is None else f"c{colour % NUM_COLOURS}{' dash' if colour >= NUM_COLOURS else ''}"
        items.append(tag("li", tag("span", class_=f"swatch {style}"), name))
    return tag("ul", join(items), class_="legend")
