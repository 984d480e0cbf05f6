"""HTML made in Python: every text is escaped, unless it is :class:`Html` already.

A page is one file that asks for nothing else: no script, no font, no picture from elsewhere, and a policy that says so to the
browser. It is XML too, so that a strict parser can read it.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Collection, Mapping, Sequence

NOT_TEXT = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What neither HTML nor UTF-8 can hold: control characters and halves of a surrogate pair."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
NONE = "–"
LIGHT = ("#2a6fbb", "#c2500a", "#0b7f69", "#8347b8", "#8a6800", "#bb3573", "#55626e", "#a52a2a")
DARK = ("#6aa9f0", "#f0934e", "#3fc3a6", "#bd93f2", "#d6ae3c", "#ee7fb0", "#a3b0bd", "#f08a80")
NUM_COLOURS = len(LIGHT)


class Html(str):
    """Text that is HTML, and is written as it is."""

    __slots__ = ()


def escape(text: object) -> Html:
    """Return a text as HTML; what is HTML already stays."""
    return text if isinstance(text, Html) else Html(html.escape(NOT_TEXT.sub("\ufffd", str(text))))


def tag(name: str, *content: object, **attributes: object) -> Html:
    """Return one element.

    >>> tag("td", "a < b", class_="number", data_row=1)
    '<td class="number" data-row="1">a &lt; b</td>'

    Args:
        name: of the element.
        content: texts, which are escaped, and elements.
        attributes: a final ``_`` is dropped, any other is a hyphen; a float has four digits, None is left out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(f"{value:.4g}" if isinstance(value, float) else value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{written}>{''.join(map(escape, content))}</{name}>")


def join(parts: Sequence[Html]) -> Html:
    """Put elements one after the other, each on a line."""
    return Html("\n".join(parts))


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    words: Collection[str] = (),
    classes: Mapping[int, str] | None = None,
) -> Html:
    """Return a table.

    Args:
        head: headings of the columns.
        rows: cells, as many in each row as there are headings.
        words: headings of the columns with words, which are aligned left; numbers are aligned right.
        classes: CSS class by number of the row; ``mean`` and ``note`` are known to the page.
    """
    side = ["words" if heading in words else None for heading in head]
    titles = tag("tr", *(tag("th", cell, class_=one, scope="col") for cell, one in zip(head, side, strict=True)))
    lines = [
        tag(
            "tr",
            *(tag("td", cell, class_=one) for cell, one in zip(row, side, strict=True)),
            class_=(classes or {}).get(number),
        )
        for number, row in enumerate(rows)
    ]
    return tag("div", tag("table", tag("thead", titles), tag("tbody", Html("\n"), join(lines))), class_="scroll")


def details(summary: str, *content: Html) -> Html:
    """Return what is shown on a click."""
    return tag("details", tag("summary", summary), *content)


def section(title: str, *content: Html) -> Html:
    """Return a section with its heading."""
    return tag("section", tag("h2", title), Html("\n"), join(content))


def page(title: str, *content: Html) -> str:
    """Return a whole page."""
    head = Html(
        f'<head>\n<meta charset="utf-8"/>\n<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        f"{tag('title', title)}\n<style>{STYLE}</style>\n</head>"
    )
    body = tag("body", tag("main", tag("h1", title), Html("\n"), join(content)))
    return f"<!doctype html>\n{tag('html', head, Html(chr(10)), body, lang='en')}\n"


def number(value: object) -> float | None:
    """Return a finite number; None of anything else."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else None  # type: ignore[arg-type]


def decimals(value: object, places: int = 3) -> str:
    """Write a number; a dash if it is none."""
    known = number(value)
    return NONE if known is None else f"{known:.{places}f}"


def count(value: object) -> str:
    """Write a whole number in groups of three digits; a dash if it is no number."""
    known = number(value)
    return NONE if known is None else f"{known:,.0f}"


def megabytes(value: float) -> str:
    """Write bytes as MB."""
    return f"{value / 1e6:,.2f}"


def word(value: object) -> str:
    """Write anything; a dash if there is nothing."""
    return NONE if value is None or value == "" else str(value)


def _colours(values: Sequence[str]) -> str:
    return "".join(f".c{index}{{--c:{value}}}" for index, value in enumerate(values))


def _shades() -> str:
    """Four steps of gain and of loss: numbers stay readable on them in both colour schemes."""
    sides = (("up", "42,111,187"), ("down", "194,80,10"))
    return "".join(
        f".{side}{step}{{background:rgba({colour},.{14 * step})}}" for side, colour in sides for step in range(1, 5)
    )


STYLE = f"""
:root{{color-scheme:light dark;--page:#fff;--ink:#1b1f24;--soft:#59636e;--line:#d5dae0;--heat:#1f5fa8;--free:#d5dae0;
--note:#fff3d1;--note-line:#b07a00;--fault:#fde7e7;--fault-line:#b3261e}}
{_colours(LIGHT)}
@media (prefers-color-scheme:dark){{
:root{{--page:#14171b;--ink:#e6e9ec;--soft:#9aa5b1;--line:#363d46;--heat:#3b7fcf;--free:#414952;
--note:#3a2f12;--note-line:#d6ae3c;--fault:#43191a;--fault-line:#f08a80}}
{_colours(DARK)}
}}
*{{box-sizing:border-box}}
body{{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif}}
main{{max-width:60rem;margin:0 auto;padding:1.5rem 1rem 4rem}}
h1{{font-size:1.6rem;margin:0 0 1rem;overflow-wrap:anywhere}}
h2{{font-size:1.15rem;margin:2.5rem 0 .6rem;padding-top:.6rem;border-top:1px solid var(--line)}}
h3{{font-size:1rem;margin:1.2rem 0 .4rem}}
p,.legend,.scroll,details{{margin:.5rem 0}}
.soft{{color:var(--soft)}}
.fault{{background:var(--fault);border-left:4px solid var(--fault-line);padding:.6rem .8rem;white-space:pre-wrap;
overflow-wrap:anywhere}}
.scroll{{overflow-x:auto}}
table{{border-collapse:collapse;font-variant-numeric:tabular-nums}}
th,td{{text-align:right;padding:.2rem .7rem;border-bottom:1px solid var(--line);vertical-align:top;white-space:nowrap}}
th{{color:var(--soft);font-weight:600}}
.words{{text-align:left;white-space:pre-wrap;overflow-wrap:anywhere}}
.mean td{{font-weight:600;border-top:2px solid var(--line)}}
.note td{{background:var(--note)}}
.note td:first-child{{box-shadow:inset 4px 0 var(--note-line)}}
summary{{cursor:pointer;color:var(--soft)}}
dl{{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;margin:0}}
dt{{color:var(--soft)}}
dd{{margin:0;overflow-wrap:anywhere}}
.legend{{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.2rem 1.2rem}}
.swatch{{display:inline-block;width:1.3rem;border-top:4px solid var(--c);vertical-align:middle;margin-right:.4rem}}
.swatch.dash{{border-top-style:dotted}}
.side{{display:flex;flex-wrap:wrap;gap:1rem 2rem}}
figure{{margin:.4rem 0}}
figcaption{{color:var(--soft)}}
svg{{display:block}}
svg.wide{{width:100%;max-width:720px;height:auto}}
svg text{{fill:var(--ink);font-size:12px;font-variant-numeric:tabular-nums}}
svg .soft{{fill:var(--soft)}}
.grid{{stroke:var(--line)}}
.curve{{fill:none;stroke:var(--c);stroke-width:2.2;stroke-linejoin:round}}
.curve.thin{{stroke-width:1;stroke-opacity:.35}}
.curve.dash{{stroke-dasharray:6 4}}
.dot,.part{{fill:var(--c)}}
.free{{--c:var(--free)}}
.cell{{fill:var(--heat)}}
.empty{{fill:none;stroke:var(--line);stroke-dasharray:2 3}}
.matrix td,.matrix th{{padding:.2rem .45rem}}
{_shades()}
.picked{{outline:2px solid var(--ink);outline-offset:-2px;font-weight:600}}
.marked{{fill:none;stroke:var(--ink);stroke-width:1.5}}
"""
