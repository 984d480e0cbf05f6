"""``backpack compare --transfer``: what the choices of Back-Pack runs are worth, pooled over their seeds.

Runs whose settings differ only in seed, name and folder are the seeds of one setting. Every value is averaged over the seeds
of a target first, then over targets, and tested over targets: seeds of one target are not independent targets. Tests are
two-sided and paired: Wilcoxon's signed-rank test, and Student's t test. Where a part of the table asks one question several
times, its p values are also corrected by Holm's method, each part and test a family.

The interval of the share of siblings is exact over targets × seeds, as if these were independent: where a target chooses the
same in all seeds it is too narrow.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from config import ConfigError
from server.transfer_scorers import AVERAGE, RANDOM, RULES, SAME
from simulations import tables
from simulations.comparison import Finished, group_by_setting, mean_per_client, read_run
from simulations.significance import holm, interval, t_test_p, wilcoxon_p

Transfer = Mapping[str, Any]
"""The entry ``transfer`` of one run's results."""

HEADINGS = {
    "setting": "setting",
    "part": "part",
    "name": "name",
    "among": "among",
    "seeds": "seeds",
    "targets": "targets",
    "gain": "Δ points",
    "better": "better",
    "p_wilcoxon": "p (Wilcoxon)",
    "holm_wilcoxon": "Holm",
    "p_t": "p (t)",
    "holm_t": "Holm",
    "rank": "rank",
    "regret": "regret",
    "kendall": "tau",
    "siblings": "siblings",
    "abstained": "abstained",
}
"""Columns for people; programs get all that a :class:`Line` has."""


@dataclass(frozen=True)
class Line:
    """One line of the table. None: not measured, or not asked in this part.

    Attributes:
        setting: what sets it apart from the other settings.
        part: ``choice``: what the run did, against its control or more epochs of the own model. ``scorer``: what a scorer or
            rule would have gained over no donor. ``over rules``, ``over scorers``: what the run's scorer would have gained
            more than another. ``relation``, ``direction``: mean gain of all such pairs.
        name: within the part.
        among: which donors were candidates (server/transfer_scorers.py); empty: as in the run.
        seeds: number of runs.
        targets: that were measured in all of them.
        gain: mean difference, in points.
        better: targets with a positive difference, of all.
        p_wilcoxon: of the differences.
        p_t: likewise.
        rank: mean rank of the choice among the measured, none among them.
        regret: mean points to the best of them.
        kendall: mean tau-b of the ranking and the measured accuracies.
        siblings: share of targets × seeds that have a sibling and chose it.
        siblings_number: how many have one.
        siblings_low: lower end of the share's 95 % interval; None for means over random choices.
        siblings_high: upper end, likewise.
        abstained: share of targets × seeds that chose no donor.
        holm_wilcoxon: p corrected within the part.
        holm_t: likewise.
    """

    setting: str
    part: str
    name: str
    among: str
    seeds: int
    targets: int
    gain: float | None
    better: str
    p_wilcoxon: float | None
    p_t: float | None
    rank: float | None = None
    regret: float | None = None
    kendall: float | None = None
    siblings: float | None = None
    siblings_number: int = 0
    siblings_low: float | None = None
    siblings_high: float | None = None
    abstained: float | None = None
    holm_wilcoxon: float | None = None
    holm_t: float | None = None


def main(paths: Sequence[Path], format_: str) -> None:
    """Read the runs and print the table.

    Raises:
        ConfigError: a folder holds no finished run of Back-Pack, or the format is unknown.
    """
    tables.check(format_)
    table = lines([read_run(path) for path in paths])
    if format_ in ("csv", "json"):
        tables.show({name: name for name in asdict(table[0])}, [asdict(line) for line in table], [], format_)
        return
    for number, (headings, body) in enumerate(by_part(table)):
        if number and format_ != "table":
            Console().print()
        tables.show(headings, [], body, format_, words=("setting", "name", "among"))


def lines(runs: Sequence[Finished]) -> list[Line]:
    """Return the table, setting by setting.

    Raises:
        ConfigError: a run routed nothing, or a seed is given twice.
    """
    lacking = [str(run.path) for run in runs if "transfer" not in run.results]
    if lacking:
        raise ConfigError(
            f"{', '.join(lacking)}: results.json has no 'transfer'; expected runs of strategy backpack of this version"
        )
    groups = group_by_setting(runs)
    return [line for name, members in groups.items() for line in pool(name, [run.results["transfer"] for run in members])]


def pool(setting: str, seeds: Sequence[Transfer]) -> list[Line]:
    """Return all lines of one setting."""
    return [
        *choices(setting, seeds),
        *scorers(setting, seeds),
        *kinds(setting, seeds, "relation"),
        *directions(setting, seeds),
    ]


def choices(setting: str, seeds: Sequence[Transfer]) -> list[Line]:
    """Return what the runs chose, against the control and, if there is such an arm, the own model after more epochs."""
    rows = [_latest(one["routing"]) for one in seeds]
    abstained = [not row["chosen"] for seed in rows for row in seed]
    scorer = " or ".join(dict.fromkeys(str(one["scorer"]) for one in seeds))
    found = []
    for column, other in (("gain", "control"), ("gain_own", "own, more epochs")):
        gains = _by_client(rows, column)
        if gains or column == "gain":
            line = _line(setting, "choice", f"{scorer} − {other}", "", len(seeds), gains)
            found.append(replace(line, abstained=statistics.fmean(abstained) if abstained else None))
    return [_judged(found[0], rows), *found[1:]]


def scorers(setting: str, seeds: Sequence[Transfer]) -> list[Line]:
    """Return what each scorer and rule would have gained, and what the run's scorer would have gained more."""
    keys = dict.fromkeys((line["scorer"], line["among"]) for one in seeds for line in one["scorers"])
    rows = {key: [_choices(one, *key) for one in seeds] for key in keys}
    table = []
    for (name, among), found in rows.items():
        line = _line(setting, "scorer", name, among, len(seeds), _by_client(found, "gain"))
        table.append(_judged(line, found))
    for among, rules in (("own-first", "all"), ("own", "own")):
        own = (str(seeds[0]["scorer"]), among)
        if own[0] in RULES or own not in rows or not (mine := _by_client(rows[own], "gain")):
            continue
        for part in ("over rules", "over scorers"):
            others = [(name, where) for name, where in rows if (name in RULES) == (part == "over rules")]
            wanted = [(name, where) for name, where in others if _is_rival(name, where, among, rules) and (name, where) != own]
            differences = {key: _differences(mine, _by_client(rows[key], "gain")) for key in wanted}
            table += holm_lines(
                [
                    _line(setting, part, f"{own[0]} − {key[0]}", among, len(seeds), one)
                    for key, one in differences.items()
                    if one
                ]
            )
        break
    return table


def directions(setting: str, seeds: Sequence[Transfer]) -> list[Line]:
    """Return the mean gain by direction (modality of donor → of target), corrected for asking of each."""
    return kinds(setting, seeds, "direction")


def kinds(setting: str, seeds: Sequence[Transfer], by: str) -> list[Line]:
    """Return the mean gain of the pairs by ``relation`` or ``direction``, corrected for asking of each."""
    names = dict.fromkeys(row[by] for one in seeds for row in one[f"{by}s"])
    found = []
    for name in names:
        each = [dict(row["targets"]) for one in seeds for row in one[f"{by}s"] if row[by] == name]
        found.append(_line(setting, by, name, "", len(each), mean_per_client(each)))
    return holm_lines(found)


def holm_lines(family: Sequence[Line]) -> list[Line]:
    """Return lines with their p values corrected as one family."""
    wilcoxon, student = holm([line.p_wilcoxon for line in family]), holm([line.p_t for line in family])
    return [replace(line, holm_wilcoxon=w, holm_t=t) for line, w, t in zip(family, wilcoxon, student, strict=True)]


def cells(line: Line) -> dict[str, str]:
    """Return one line as texts, by column."""
    siblings = _text(line.siblings, ".2f")
    if line.siblings is not None and line.siblings_low is not None:
        hits = round(line.siblings * line.siblings_number)
        siblings = f"{hits}/{line.siblings_number} [{line.siblings_low:.2f}, {line.siblings_high:.2f}]"
    return {
        "setting": line.setting,
        "part": line.part,
        "name": line.name,
        "among": line.among,
        "seeds": str(line.seeds),
        "targets": str(line.targets),
        "gain": _text(line.gain, "+.1f"),
        "better": line.better,
        **{name: _text(getattr(line, name), ".3f") for name in ("p_wilcoxon", "holm_wilcoxon", "p_t", "holm_t")},
        "rank": _text(line.rank, ".2f"),
        "regret": _text(line.regret, ".1f"),
        "kendall": _text(line.kendall, ".2f"),
        "siblings": siblings,
        "abstained": _text(line.abstained, ".2f"),
    }


def by_part(table: Sequence[Line]) -> list[tuple[dict[str, str], list[list[str]]]]:
    """Return headings and rows of a table for each part, with the columns that say something in it."""
    whole = [cells(line) for line in table]
    aside = {"part"} | ({"setting"} if len({line.setting for line in table}) == 1 else set())
    found = []
    for part in dict.fromkeys(line.part for line in table):
        rows = [row for row in whole if row["part"] == part]
        shown = {name: heading for name, heading in HEADINGS.items() if name not in aside and any(row[name] for row in rows)}
        found.append((shown | {"name": part}, [[row[name] for name in shown] for row in rows]))
    return found


def _line(setting: str, part: str, name: str, among: str, seeds: int, gains: Mapping[int, float]) -> Line:
    values = list(gains.values())
    return Line(
        setting=setting,
        part=part,
        name=name,
        among=among,
        seeds=seeds,
        targets=len(values),
        gain=statistics.fmean(values) if values else None,
        better=f"{sum(value > 0 for value in values)}/{len(values)}" if values else "",
        p_wilcoxon=wilcoxon_p(values),
        p_t=t_test_p(values),
    )


def _latest(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the last round's row of each target; rounds ascend."""
    return list({row["client"]: row for row in rows}.values())


def _choices(one: Transfer, name: str, among: str) -> list[Mapping[str, Any]]:
    return [row for line in one["scorers"] if (line["scorer"], line["among"]) == (name, among) for row in line["choices"]]


def _by_client(seeds: Sequence[Sequence[Mapping[str, Any]]], column: str) -> dict[int, float]:
    """Average a column over the seeds of each target; a target must have it in all of them."""
    return mean_per_client([{row["client"]: row[column] for row in rows if row[column] is not None} for rows in seeds])


def _pooled(seeds: Sequence[Sequence[Mapping[str, Any]]], column: str) -> float | None:
    values = _by_client(seeds, column).values()
    return statistics.fmean(values) if values else None


def _differences(own: Mapping[int, float], other: Mapping[int, float]) -> dict[int, float]:
    return {client: own[client] - other[client] for client in own if client in other}


def _is_rival(name: str, where: str, among: str, rules: str) -> bool:
    """Say whether a line answers to the run's scorer: a rule that could be followed, or a scorer of the same donors."""
    return where == (rules if name in RULES else among) and (name not in RULES or name in (AVERAGE, SAME, RANDOM))


def _judged(line: Line, seeds: Sequence[Sequence[Mapping[str, Any]]]) -> Line:
    """Add how good the choices were; the interval is left out of means over random choices."""
    siblings = [float(row["sibling"]) for rows in seeds for row in rows if row["sibling"] is not None]
    certain = siblings and all(value in (0.0, 1.0) for value in siblings)
    low, high = interval(int(sum(siblings)), len(siblings)) if certain else (None, None)
    return replace(
        line,
        rank=_pooled(seeds, "rank"),
        regret=_pooled(seeds, "regret"),
        kendall=_pooled(seeds, "kendall"),
        siblings=statistics.fmean(siblings) if siblings else None,
        siblings_number=len(siblings),
        siblings_low=low,
        siblings_high=high,
    )


def _text(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
