"""What packing gained: the entry ``packing`` of ``results.json``, made from the run's events. Differences are in points."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from server.transfer_facts import Event, mean, measured, named
from strategies.protocol import PACK, PACK_SELF, PACK_START, TARGET

ARMS = {TARGET: PACK, PACK_START: "start", PACK_SELF: "self"}
"""Arms of a run, and what they are called in its results; arms of other losses are called by these."""
SIZES = ("student_parameters", "student_bytes", "donor_parameters", "donor_bytes")


def results(events: Iterable[Event]) -> dict[str, Any]:
    """Return the entry ``packing``; empty: nobody packed.

    ``arms``: of each its mean test accuracy, and the ``clients`` with their accuracy. ``differences``: of ``pack`` to each
    control, its mean, how many clients are better, and the clients' own. ``effective_teachers`` and ``agreement`` of student
    and teachers are means over the clients at the last epoch; ``teachers`` is the mean number of them. ``sizes``: parameters
    and stored bytes of a student and of a donor, means over the clients. ``consented``: donors that let others use
    their inputs; ``inputs_of``: those whose inputs were.
    """
    events = list(events)
    last = {event["client"]: event for event in named(events, "pack-epoch") if event["arm"] == TARGET}
    if not last:
        return {}
    tested, names = measured(events), ARMS | {event["arm"]: event["losses"] for event in named(events, "pack-losses")}
    arms = {
        name: {client: found for client, found in sorted(tested.get(arm, {}).items()) if client in last}
        for arm, name in names.items()
    }
    epochs = [event for _, event in sorted(last.items())]
    sizes = [event for event in named(events, "pack-size") if event["arm"] == TARGET]
    packing = {
        "arms": [_arm(name, found) for name, found in arms.items() if found],
        "differences": [
            _difference(name, arms[PACK], found) for name, found in arms.items() if name != PACK and found and arms[PACK]
        ],
        "teachers": statistics.fmean(len(event["agreement"]) for event in epochs),
        "effective_teachers": statistics.fmean(event["effective_teachers"] for event in epochs),
        "consented": sorted({event["client"] for event in named(events, "backbone") if event.get("consent")}),
        "inputs_of": sorted({donor for event in named(events, "inputs") for donor in event["donors"]}),
        "sizes": {name: mean(event[name] for event in sizes) for name in SIZES},
        "agreement": mean(value for event in epochs for value in event["agreement"].values()),
        "warnings": list(dict.fromkeys(event["warning"] for event in named(events, "pack-warning"))),
    }
    return {"packing": packing}


def lines(summary: Mapping[str, Any]) -> list[str]:
    """Say what packing came to, out of the results of a run; nothing where nobody packed."""
    if "packing" not in summary:
        return []
    told, parts = summary["packing"], []
    for one in told["arms"]:
        parts.append(f"{one['arm']} {one['mean_accuracy']:.3f}")
    for one in told["differences"]:
        parts.append(f"{one['mean']:+.1f} points over {one['arm']} ({one['clients_better']} of {len(one['clients'])} better)")
    agreed = "" if told["agreement"] is None else f", agreement {told['agreement']:.2f}"
    return [
        f"packing of {told['teachers']:.1f} teachers ({told['effective_teachers']:.1f} effective{agreed}): " + "; ".join(parts)
    ]


def _arm(name: str, found: Mapping[int, float]) -> dict[str, Any]:
    clients = [{"client": client, "accuracy": value} for client, value in found.items()]
    return {"arm": name, "mean_accuracy": statistics.fmean(found.values()), "clients": clients}


def _difference(name: str, own: Mapping[int, float], other: Mapping[int, float]) -> dict[str, Any]:
    points = {client: 100 * (own[client] - other[client]) for client in own if client in other}
    return {
        "arm": name,
        "mean": mean(points.values()),
        "clients_better": sum(value > 0 for value in points.values()),
        "clients": [{"client": client, "points": value} for client, value in points.items()],
    }
