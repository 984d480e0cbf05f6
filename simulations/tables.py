"""One table in the formats of ``backpack compare``: for a screen, for a text, and for other programs."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from config import ConfigError

FORMATS = ("table", "md", "csv", "json", "latex")


def check(format_: str) -> None:
    """Fail if a format is unknown.

    Raises:
        ConfigError: names those that are known.
    """
    if format_ not in FORMATS:
        raise ConfigError(f"--format {format_!r}: expected one of {', '.join(FORMATS)}")


def show(
    headings: Mapping[str, str],
    values: Sequence[Mapping[str, Any]],
    body: Sequence[Sequence[str]],
    format_: str,
    words: Collection[str] = (),
) -> None:
    """Print a table; ``words`` are the names of columns that are aligned left on a screen. The rest as in :func:`render`."""
    if format_ == "table":
        Console(width=None if sys.stdout.isatty() else 160).print(_rich(headings, body, words))
    else:
        text = render(headings, values, body, format_)
        Console().print(text, markup=False, highlight=False, soft_wrap=True, end="")


def render(
    headings: Mapping[str, str], values: Sequence[Mapping[str, Any]], body: Sequence[Sequence[str]], format_: str
) -> str:
    """Return a table as md, csv, json or latex.

    Args:
        headings: of the columns, by name.
        values: rows for programs (csv, json), by name of the column.
        body: the same rows for people, a text for each column.
        format_: one of :data:`FORMATS`, not ``table``.
    """
    if format_ == "json":
        return json.dumps(list(values), indent=2, ensure_ascii=False) + "\n"
    head = list(headings.values())
    if format_ == "csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([list(headings), *(list(one.values()) for one in values)])
        return text.getvalue()
    if format_ == "md":
        rows = [head, ["---"] * len(head), *body]
        return "".join("| " + " | ".join(row) + " |\n" for row in rows)
    rows = [[_latex(cell) for cell in row] for row in [head, *body]]
    inner = "".join(" & ".join(row) + " \\\\\n" for row in rows)
    return f"\\begin{{tabular}}{{{'l' * len(head)}}}\n{inner}\\end{{tabular}}\n"


def _latex(cell: str) -> str:
    for sign, written in (("_", r"\_"), ("%", r"\%"), ("Δ", r"$\Delta$"), ("→", r"$\to$"), ("−", "$-$")):
        cell = cell.replace(sign, written)
    return cell


def _rich(headings: Mapping[str, str], body: Sequence[Sequence[str]], words: Collection[str]) -> Table:
    drawn = Table()
    for name, heading in headings.items():
        drawn.add_column(heading, justify="left" if name in words else "right", overflow="fold")
    for row in body:
        drawn.add_row(*row)
    return drawn
