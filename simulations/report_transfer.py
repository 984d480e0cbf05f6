"""Back-Pack in the report: who learned on top of whom, what every donor gave to every target, and how good scorers were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from server import transfer
from simulations import comparison_transfer as pooled
from simulations.report_html import NONE, Html, decimals, details, join, number, table, tag, word

STEPS = (1.0, 3.0, 6.0, 12.0)
"""Points from which a cell of the matrix has the next colour."""
RELATIONS = {
    "sibling": "same modality, same classes",
    "stranger": "same modality, other classes",
    "twin": "other modality, same classes",
    "other": "other modality, other classes",
}
AMONG = {"own": "own modality", "own-first": "all, own modality first", "all": "all, by score alone"}
PARTS = ("over rules", "over scorers", "relation", "direction")
TESTS = (
    "Tests over targets, of this run alone; several runs: backpack compare --transfer. Holm: p corrected for all questions of "
    "its table."
)


def section(outcome: Mapping[str, Any]) -> list[Html]:
    """Return what the entry ``transfer`` of the results says; nothing without it."""
    if "transfer" not in outcome:
        return []
    summary = outcome["transfer"]
    return [
        tag("p", f"{transfer.remark(summary)}."),
        *routing(summary["routing"]),
        *refused(summary["refused"]),
        *clusters(summary["clusters"]),
        *matrix(summary),
        *scorers(summary["scorers"]),
        *tests(summary),
    ]


def routing(rows: Sequence[Mapping[str, Any]]) -> list[Html]:
    """Return the table of choices, by round and target; columns that no choice fills are left out."""
    if not rows:
        return []
    body = [
        {
            "round": row["round"],
            "client": row["client"],
            "donor": transfer.donors(row["chosen"]),
            "scorer": word(row["scorer"]),
            "score": decimals(row["score"]),
            "tie": _yes(row["tie"]),
            "shortlist": NONE if row["shortlist"] is None else ", ".join(map(str, row["shortlist"])) or "none",
            "sibling": _yes(row["sibling"]),
            "validation": decimals(row["tried_donor"]),
            "without": decimals(row["tried_none"]),
            "gain": _points(row["gain"]),
            "over own": _points(row["gain_own"]),
            "rank": NONE if row["rank"] is None else f"{word(row['rank'])} of {word(row['candidates'])}",
            "regret": decimals(row["regret"], 1),
            "tau": decimals(row["kendall"], 2),
        }
        for row in rows
    ]
    head = [name for name in body[0] if any(row[name] != NONE for row in body)]
    told = (
        "Donor: the best first. Validation: of a short training on top of the first, and without. Gain: points over the "
        "control; over own: over the own model after more epochs. Rank, regret in points and tau: of the first donor, or of "
        "none, among all that was measured."
    )
    return [
        table(head, [[row[name] for name in head] for row in body], words=("donor", "scorer")),
        tag("p", told, class_="soft"),
    ]


def refused(rows: Sequence[Mapping[str, Any]]) -> list[Html]:
    """Return the donors that were left out."""
    if not rows:
        return []
    body = [
        [word(row["donor"]), "server" if row["target"] is None else word(row["target"]), word(row["reason"])] for row in rows
    ]
    return [tag("h3", "Donors left out"), table(("donor", "by", "reason"), body, words=("by", "reason"))]


def clusters(rows: Sequence[Mapping[str, Any]]) -> list[Html]:
    """Return the clusters that transfer was kept inside."""
    body = [
        [word(row.get("similarity")), "; ".join(", ".join(map(str, members)) for members in row["clusters"])] for row in rows
    ]
    return [tag("h3", "Clusters"), table(("similarity", "clients"), body, words=("similarity", "clients"))] if body else []


def matrix(summary: Mapping[str, Any]) -> list[Html]:
    """Return the transfer matrix, clients of one modality side by side; nothing if no pair was measured."""
    found = summary["matrix"]
    if found is None:
        return []
    rows, columns = (sorted(zip(found[f"{who}_modality"], found[f"{who}s"], strict=True)) for who in ("target", "donor"))
    chosen = {row["client"]: set(row["chosen"]) for row in summary["routing"]}
    gains = {
        (target, donor): gain
        for target, values in zip(found["targets"], found["gains"], strict=True)
        for donor, gain in zip(found["donors"], values, strict=True)
    }
    none = dict(zip(found["targets"], found["none"], strict=True))
    head = [tag("th", text, scope="col") for text in ("target", "none", *(f"{donor} {kind}" for kind, donor in columns))]
    lines = [tag("tr", *head)]
    for kind, target in rows:
        picked = chosen.get(target, set())
        cells = [_cell(gains[target, donor], donor in picked, same=donor == target) for _, donor in columns]
        lines.append(tag("tr", tag("th", f"{target} {kind}", scope="row"), tag("td", decimals(none[target])), *cells))
    noise = number(found["noise"])
    told = (
        "Points that a target (row) gained by learning on top of a donor (column) over learning without, on the test split. "
    )
    told += (
        f"None: balanced accuracy without a donor. Framed: chosen. Trainings of each pair, at least: {word(found['repeats'])}"
    )
    told += "." if noise is None else f"; those of one pair differ by {noise:.1f} points (standard deviation)."
    return [
        tag("h3", "Transfer matrix"),
        tag("div", tag("table", tag("tbody", join(lines)), class_="matrix"), class_="scroll"),
        tag("p", told, class_="soft"),
    ]


def shade(gain: float) -> str:
    """Return the CSS class of a gain in points: ``up1`` … ``up4``, ``down1`` … ``down4``, or none near 0."""
    level = sum(abs(gain) >= step for step in STEPS)
    return f"{'up' if gain > 0 else 'down'}{level}" if level else ""


def scorers(rows: Sequence[Mapping[str, Any]]) -> list[Html]:
    """Return what each scorer and rule would have chosen, by candidates."""
    parts: list[Html] = []
    for among in dict.fromkeys(str(row["among"]) for row in rows):
        body = [
            {
                "scorer": word(row["scorer"]),
                "targets": word(row["targets"]),
                "mean rank": decimals(row["rank"], 2),
                "regret": decimals(row["regret"], 1),
                "gain": _points(row["gain"]),
                "tau": decimals(row["kendall"], 2),
                "siblings": decimals(row["siblings"], 2),
            }
            for row in rows
            if row["among"] == among
        ]
        head = [name for name in body[0] if any(row[name] != NONE for row in body)]
        caption = tag("p", f"Candidates: {AMONG.get(among, among)}.")
        parts += [caption, table(head, [[row[name] for name in head] for row in body], words=("scorer",))]
    told = (
        "Each scorer's first donor, whatever the run took. Gain: points over no donor. Siblings: share of the targets with a "
        "sibling that would have chosen it. Random rules: the mean over all their choices. Oracle: the best donor measured."
    )
    return [tag("h3", "Scorers"), *parts, tag("p", told, class_="soft")] if parts else []


def tests(summary: Mapping[str, Any]) -> list[Html]:
    """Return mean gains by relation and direction, and differences between scorers, with tests over the targets of the run."""
    found = pooled.by_part([line for line in pooled.pool("", [summary]) if line.part in PARTS])
    parts: dict[str, Html] = {}
    for headings, body in found:
        columns = {name: heading for name, heading in headings.items() if name != "seeds"}
        kept = [list(headings).index(name) for name in columns]
        words = [columns[name] for name in ("name", "among") if name in columns]
        parts[columns["name"]] = table(list(columns.values()), [[row[place] for place in kept] for row in body], words=words)
    shown: list[Html] = []
    for part, title in (("direction", "Directions"), ("relation", "Relations")):
        if part in parts:
            shown += [tag("h3", title), parts[part]]
    if "relation" in parts:
        told = "; ".join(f"{name}: {meaning}" for name, meaning in RELATIONS.items())
        shown.append(tag("p", f"Of a donor to its target. {told}.", class_="soft"))
    differences = [parts[part] for part in PARTS[:2] if part in parts]
    if differences:
        shown.append(details("the run's scorer against others", *differences))
    return [*shown, tag("p", TESTS, class_="soft")] if shown else []


def _cell(gain: object, chosen: bool, same: bool) -> Html:
    value = number(gain)
    if value is None:
        return tag("td", "" if same else NONE)
    classes = " ".join(filter(None, (shade(value), "picked" if chosen else "")))
    return tag("td", _points(value), class_=classes or None)


def _points(value: object) -> str:
    known = number(value)
    return NONE if known is None else f"{known:+.1f}"


def _yes(value: object) -> str:
    return NONE if value is None else "yes" if value else "no"
