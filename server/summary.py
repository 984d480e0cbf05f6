"""The final table of a run, made from its events: one row per client."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from server import clip_summary, continual_summary, distil_summary, pack_summary, start_summary, transfer

CONTROLS = ("control", "scratch")
PACKED_BESIDE = "pack-"
"""What the arms of packing begin with that are not the result of the run."""


@dataclass(frozen=True)
class Row:
    """One client's result.

    Attributes:
        client: partition id.
        modality: image or text.
        classes: number of classes.
        chance: balanced accuracy of guessing; with a stream, its mean over the tasks.
        control: test balanced accuracy of the matched control; None without one.
        accuracy: test balanced accuracy of the strategy; with a stream, the mean over all tasks at its end (ACC).
        difference: accuracy − control.
        bytes: payload of shared tensors that crossed for this client, both ways, in the strategy's arm; of a client that joins
            late, in the arms that its first start cannot do without.
        k: columns that the client kept; None without adaptive k.
    """

    client: int
    modality: str
    classes: int
    chance: float
    control: float | None
    accuracy: float
    difference: float | None
    bytes: int
    k: int | None = None


def rows(events: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Return one row per client that was evaluated on the test split, by ascending partition id."""
    events = list(events)
    clients = {e["client"]: e for e in events if e["event"] == "client"}
    control: dict[int, float] = {}
    accuracy: dict[int, float] = {}
    columns: dict[int, int] = {}
    beside, counted = start_summary.arms_beside(events), start_summary.arms_counted(events)
    for event in events:
        if event["event"] == "evaluate" and event["split"] == "test" and not _is_aside(event["arm"]):
            if event["arm"] in beside:
                continue
            target = control if _is_control(event["arm"]) else accuracy
            target[event["client"]] = event["balanced_accuracy"]
            if target is accuracy and "k" in event:
                columns[event["client"]] = int(event["k"])
    streams = continual_summary.tasks_per_client(events)
    for target, kind in ((accuracy, "strategy"), (control, "control")):
        for client in streams:
            target.pop(client, None)
        target |= continual_summary.average_accuracies(events, kind)
    moved = dict.fromkeys(clients, 0)
    for event in events:
        if event["event"] == "message" and event["client"] in moved:
            aside = _is_control(event["arm"]) or event["arm"].startswith(("pair-", PACKED_BESIDE))
            if aside or (counted and event["arm"] not in counted):
                continue
            moved[event["client"]] += event["bytes_down"] + event["bytes_up"]
    return [
        Row(
            client=client,
            modality=clients[client]["modality"],
            classes=len(clients[client]["classes"]),
            chance=statistics.fmean(1 / len(names) for names in streams.get(client, [clients[client]["classes"]])),
            control=control.get(client),
            accuracy=value,
            difference=value - control[client] if client in control else None,
            bytes=moved[client],
            k=columns.get(client),
        )
        for client, value in sorted(accuracy.items())
    ]


def results(events: Iterable[Mapping[str, Any]], seconds: float, scorer: str = "") -> dict[str, Any]:
    """Return the content of ``results.json``: the rows, their means, and what the run cost.

    Args:
        events: all events of a run.
        seconds: that it took.
        scorer: ``selection.scorer``, for runs of Back-Pack.
    """
    events = list(events)
    table = rows(events)
    streams = continual_summary.results(events)
    return {
        "metric": "balanced accuracy on the test split",
        "clients": [asdict(row) for row in table],
        "mean_accuracy": mean([row.accuracy for row in table]),
        "mean_control": mean([row.control for row in table if row.control is not None]),
        "mean_difference": mean([row.difference for row in table if row.difference is not None]),
        "clients_better": sum((row.difference or 0) > 0 for row in table),
        "clients_above_chance": sum(row.accuracy > row.chance for row in table),
        "mean_k": mean([row.k for row in table if row.k is not None]),
        "bytes": sum(row.bytes for row in table),
        "seconds": seconds,
        **({"streams": streams} if streams else {}),
        **({"clusters": found} if (found := clusters(events)) else {}),
        **({"transfer": moved} if (moved := transfer.results(events, scorer)) else {}),
        **pack_summary.results(events),
        **start_summary.results(events),
        **clip_summary.results(events),
        **distil_summary.results(events),
    }


def clusters(events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the clusters that each arm formed: the ``clusters`` events without name and time."""
    return [{k: v for k, v in event.items() if k not in ("event", "time")} for event in events if event["event"] == "clusters"]


def mean(values: Sequence[float]) -> float | None:
    """Return the mean; None of nothing."""
    return sum(values) / len(values) if values else None


def cells(summary: Mapping[str, Any]) -> list[list[str]]:
    """Return the table for a screen, heading first, means last; with columns kept, or donors chosen, if the run has them."""
    adaptive = summary.get("mean_k") is not None  # results of older versions have no k
    chosen = transfer.chosen(summary["transfer"]) if "transfer" in summary else {}
    more = [*(["k"] if adaptive else []), *(["donor"] if chosen else [])]
    head = ["client", "modality", "classes", "control", "accuracy", "difference", "MB", *more]
    body = [
        [
            str(row["client"]),
            row["modality"],
            str(row["classes"]),
            *_three(row["control"], row["accuracy"], row["difference"]),
            f"{row['bytes'] / 1e6:.2f}",
            *([str(row["k"])] if adaptive else []),
            *([chosen.get(row["client"], "–")] if chosen else []),
        ]
        for row in summary["clients"]
    ]
    means = _three(summary["mean_control"], summary["mean_accuracy"], summary["mean_difference"])
    total = ["mean", "", "", *means, f"{summary['bytes'] / 1e6:.2f}", *([f"{summary['mean_k']:.1f}"] if adaptive else [])]
    return [head, *body, [*total, *([""] if chosen else [])]]


def remarks(summary: Mapping[str, Any]) -> list[str]:
    """Return what is said below the table: how many clients are above chance, and better than their control, and so on."""
    number = len(summary["clients"])
    told = [f"{summary['clients_above_chance']} of {number} clients above chance"]
    if summary["mean_difference"] is not None:
        told.append(f"{summary['clients_better']} of {number} clients better than their matched control")
    return [*told, *_special(summary)]


def cluster_line(one: Mapping[str, Any]) -> str:
    """Say what clusters an arm formed, how far apart they are, and how well they agree with the true ones (ARI)."""
    groups = ", ".join("+".join(map(str, members)) for members in one["members"].values())
    scores = [
        f"{of['modality']}: silhouette {_number(of['silhouette'], 0)}, ARI {of['adjusted_rand_index']:.2f}"
        for of in one["modalities"]
    ]
    heads = f"; heads stay local in {', '.join(one['without_head'])}" if one["without_head"] else ""
    by = f"updates of the {one['on']}" if one["by"] == "updates" else one["by"]
    return f"{one['arm']}: clusters by {by} in {1000 * one['seconds']:.0f} ms: {groups} ({'; '.join(scores)}){heads}"


def lines(summary: Mapping[str, Any]) -> list[str]:
    """Return the table as lines of plain text, for a log."""
    chosen = transfer.chosen(summary["transfer"]) if "transfer" in summary else {}
    head = f"{'client':>6} {'modality':>8} {'classes':>7} {'control':>8} {'accuracy':>8} {'diff':>7} {'MB':>8}"
    body = [
        f"{r['client']:>6} {r['modality']:>8} {r['classes']:>7} {_number(r['control'])} {_number(r['accuracy'])} "
        f"{_number(r['difference'], 7, '+')} {r['bytes'] / 1e6:>8.2f}"
        + ("" if r["k"] is None else f"  k {r['k']}")
        + (f"  donor {chosen[r['client']]}" if r["client"] in chosen else "")
        for r in summary["clients"]
    ]
    total = (
        f"{'mean':>6} {'':>8} {'':>7} {_number(summary['mean_control'])} {_number(summary['mean_accuracy'])} "
        f"{_number(summary['mean_difference'], 7, '+')} {summary['bytes'] / 1e6:>8.2f}"
    )
    streams = continual_summary.lines(summary["streams"]) if "streams" in summary else []
    return [head, *body, total, *streams, *_special(summary)]


def _special(summary: Mapping[str, Any]) -> list[str]:
    found = [cluster_line(one) for one in summary.get("clusters", ())]
    moved = [transfer.remark(summary["transfer"])] if "transfer" in summary else []
    beside = [*start_summary.lines(summary), *distil_summary.lines(summary), *clip_summary.lines(summary)]
    return [*found, *moved, *pack_summary.lines(summary), *beside]


def _three(control: float | None, accuracy: float | None, difference: float | None) -> list[str]:
    return [_number(control, 0), _number(accuracy, 0), _number(difference, 0, "+")]


def _number(value: float | None, width: int = 8, sign: str = "") -> str:
    return f"{'–' if value is None else f'{value:{sign}.3f}':>{width}}"


def _is_aside(arm: str) -> bool:
    """Say whether an arm's accuracies are no client's result: preparation, pairs, repeats, more controls."""
    more = (transfer.OWN, distil_summary.TEACHER)
    return arm.startswith(("without-", PACKED_BESIDE)) or arm in more or transfer.is_repeat(arm)


def _is_control(arm: str) -> bool:
    return arm.split("-")[0] in CONTROLS
