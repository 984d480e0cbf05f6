"""Curves of the report: validation accuracy and training loss over the rounds, an arm a colour."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from simulations.report_figures import Curve, legend, line_chart
from simulations.report_html import Html, decimals, details, number, table, tag

Event = Mapping[str, Any]
ByRound = dict[int, float]


def curves(events: Sequence[Event]) -> list[Html]:
    """Return both figures with their legend and numbers; nothing without rounds and validation."""
    validation, loss = validation_accuracy(events), training_loss(events)
    arms = list(dict.fromkeys([*validation, *loss]))
    if not arms:
        return []
    means = {arm: mean_over_clients(clients) for arm, clients in validation.items()}
    parts = [legend([(arm, index) for index, arm in enumerate(arms)])]
    if validation:
        told = "Validation balanced accuracy: mean over clients (thick), each client (thin)"
        if any("task" in event for event in events if event["event"] == "evaluate" and event.get("split") == "val"):
            told += "; each the mean over the tasks looked at in that round"
        parts.append(_figure(told, accuracy_curves(validation, arms), "validation balanced accuracy"))
    if loss:
        drawn = [Curve(arm, sorted(values.items()), arms.index(arm)) for arm, values in loss.items()]
        parts.append(_figure("Training loss, mean over clients", drawn, "training loss"))
    parts.append(details("numbers", numbers(arms, means, loss)))
    return parts


def validation_accuracy(events: Iterable[Event]) -> dict[str, dict[int, ByRound]]:
    """Return validation balanced accuracy by arm, client and round; in a stream of tasks the mean over those looked at."""
    found: dict[tuple[str, int, int], dict[Any, float]] = {}
    for event in events:
        value = number(event.get("balanced_accuracy"))
        if event["event"] == "evaluate" and event.get("split") == "val" and value is not None:
            where = (str(event.get("arm")), _whole(event, "client"), _whole(event, "round"))
            found.setdefault(where, {})[event.get("task")] = value
    by_arm: dict[str, dict[int, ByRound]] = {}
    for (arm, client, round_), values in found.items():
        by_arm.setdefault(arm, {}).setdefault(client, {})[round_] = statistics.fmean(values.values())
    return by_arm


def training_loss(events: Iterable[Event]) -> dict[str, ByRound]:
    """Return the mean training loss by arm and round."""
    found: dict[str, ByRound] = {}
    for event in events:
        value = number(event.get("loss"))
        if event["event"] == "round" and value is not None:
            found.setdefault(str(event.get("arm")), {})[_whole(event, "round")] = value
    return found


def mean_over_clients(clients: Mapping[int, ByRound]) -> ByRound:
    """Return the mean by round, over the clients that have a value in it.

    >>> mean_over_clients({0: {5: 0.25, 10: 0.5}, 6: {5: 0.75}})
    {5: 0.5, 10: 0.5}
    """
    rounds = sorted({round_ for values in clients.values() for round_ in values})
    return {at: statistics.fmean(values[at] for values in clients.values() if at in values) for at in rounds}


def accuracy_curves(validation: Mapping[str, Mapping[int, ByRound]], arms: Sequence[str]) -> list[Curve]:
    """Return the mean of each arm, and each of its clients if there are several."""
    drawn = []
    for arm, clients in validation.items():
        colour = arms.index(arm)
        drawn.append(Curve(f"{arm}, mean", list(mean_over_clients(clients).items()), colour))
        if len(clients) > 1:
            each = sorted(clients.items())
            drawn += [Curve(f"{arm}, client {name}", sorted(values.items()), colour, thin=True) for name, values in each]
    return drawn


def numbers(arms: Sequence[str], means: Mapping[str, ByRound], loss: Mapping[str, ByRound]) -> Html:
    """Return the means behind both figures."""
    columns = [
        (f"{arm} {what}", values[arm]) for arm in arms for what, values in (("val", means), ("loss", loss)) if arm in values
    ]
    rounds = sorted({round_ for _, values in columns for round_ in values})
    body = [[str(at), *(decimals(values.get(at)) for _, values in columns)] for at in rounds]
    return table(["round", *(name for name, _ in columns)], body)


def _figure(told: str, drawn: Sequence[Curve], label: str) -> Html:
    return tag("figure", tag("figcaption", told), line_chart(drawn, label))


def _whole(event: Event, name: str) -> int:
    return int(number(event.get(name)) or 0)
