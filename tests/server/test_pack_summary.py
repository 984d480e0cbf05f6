"""What packing gained, by hand."""

import pytest

from server import pack_summary
from server.summary import results as summary_of
from tests.server.test_summary import evaluated


def epoch(client, number, arm="backpack", effective=1.5, **agreement):
    told = {"epoch": number, "effective_teachers": effective, "agreement": agreement}
    return {"event": "pack-epoch", "arm": arm, "client": client, **told}


CLIENTS = [{"event": "client", "client": i, "modality": "image", "classes": ["a", "b"]} for i in (0, 1, 2)]
EVENTS = [
    *CLIENTS,
    epoch(0, 1, **{"1": 0.1, "2": 0.1}),
    epoch(0, 2, effective=2.0, **{"1": 0.5, "2": 0.7}),
    epoch(1, 2, effective=1.0, **{"0": 0.9}),
    epoch(1, 2, arm="pack-self", self=0.2),
    {"event": "pack-losses", "arm": "pack-losses-1", "losses": "kd,sp"},
    {"event": "pack-size", "arm": "backpack", "client": 0, **dict.fromkeys(pack_summary.SIZES, 10)},
    {"event": "pack-size", "arm": "backpack", "client": 1, **dict.fromkeys(pack_summary.SIZES, 20)},
    {"event": "backbone", "arm": "donor", "client": 1, "consent": True},
    {"event": "backbone", "arm": "donor", "client": 2, "consent": False},
    {"event": "inputs", "arm": "backpack", "client": 0, "donors": [1], "without": [2]},
    {"event": "pack-warning", "arm": "backpack", "client": 0, "warning": "noise"},
    *(evaluated("control", c, 0.3) for c in (0, 1, 2)),
    *(evaluated("backpack", c, v) for c, v in ((0, 0.6), (1, 0.5), (2, 0.3))),
    *(evaluated("pack-start", c, v) for c, v in ((0, 0.5), (1, 0.55))),
    *(evaluated("pack-self", c, v) for c, v in ((0, 0.58), (1, 0.5))),
    *(evaluated("pack-losses-1", c, v) for c, v in ((0, 0.6), (1, 0.6))),
]


def test_arms_and_differences():
    told = pack_summary.results(EVENTS)["packing"]
    assert {one["arm"]: one["mean_accuracy"] for one in told["arms"]} == pytest.approx(
        {"pack": 0.55, "start": 0.525, "self": 0.54, "kd,sp": 0.6}  # client 2 took no donor, and packed nothing
    )
    start, own, other = told["differences"]
    assert (other["arm"], other["mean"]) == ("kd,sp", pytest.approx(-5.0))
    assert told["sizes"] == dict.fromkeys(pack_summary.SIZES, 15)
    assert (told["consented"], told["inputs_of"]) == ([1], [1])
    assert (start["arm"], start["mean"], start["clients_better"]) == ("start", pytest.approx(2.5), 1)
    assert [one["points"] for one in start["clients"]] == pytest.approx([10, -5])
    assert (own["arm"], own["mean"], own["clients_better"]) == ("self", pytest.approx(1.0), 1)
    assert (told["teachers"], told["effective_teachers"]) == (1.5, 1.5)
    assert told["agreement"] == pytest.approx(0.7)
    assert told["warnings"] == ["noise"]


def test_the_controls_are_not_the_result_of_the_run():
    found = summary_of(EVENTS, 1.0)
    assert [row["accuracy"] for row in found["clients"]] == [0.6, 0.5, 0.3]
    (line,) = pack_summary.lines(found)
    assert "pack 0.550; start 0.525; self 0.540; kd,sp 0.600; +2.5 points over start (1 of 2 better)" in line


def test_a_run_that_packs_nothing_says_nothing():
    assert "packing" not in summary_of([*CLIENTS, evaluated("backpack", 0, 0.5)], 1.0)
    assert pack_summary.lines({}) == []
