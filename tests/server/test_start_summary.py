import pytest

from server.summary import lines, remarks, results
from tests.server.test_summary import CLIENTS, evaluated, message


def join(start, uses=(), fold="domain-0"):
    return {"event": "join", "arm": f"{start}-{fold}", "start": start, "uses": list(uses)}


def pick(client, right, chance=0.5, by="updates"):
    return {"event": "pick", "kind": "cluster", "client": client, "by": by, "right": right, "chance": chance}


def arm(start, values, uses=(), fold="domain-0"):
    return [join(start, uses, fold), *(evaluated(f"{start}-{fold}", one, value) for one, value in values.items())]


EVENTS = [
    *CLIENTS,
    *arm("scratch", {0: 0.25, 1: 0.5}),
    message("without-clusters-domain-0", 1, 5),
    evaluated("without-clusters-domain-0", 1, 0.9),
    message("own-cluster-domain-0", 0, 7),
    pick(0, {"updates": True, "modeldiff": False}),
    pick(1, {"updates": False, "modeldiff": False}, 0.25),
    pick(2, {}, None),
    message("cluster-domain-0", 0, 11),
    *arm("cluster", {0: 0.75, 1: 0.25}, ["without-clusters-domain-0", "own-cluster-domain-0"]),
    message("donor-domain-0", 0, 100),
    *arm("donor", {0: 0.5, 1: 0.75}, ["without-donors"]),
]


def test_the_first_start_is_the_result_and_pays_for_what_it_uses():
    outcome = results(EVENTS, 1.0)
    assert [(r["control"], r["accuracy"], r["bytes"]) for r in outcome["clients"]] == [(0.25, 0.75, 36), (0.5, 0.25, 10)]


def test_every_start_is_compared_with_scratch():
    scratch, cluster, donor = results(EVENTS, 1.0)["starts"]
    assert (scratch["start"], scratch["mean_accuracy"], scratch["mean_difference"], scratch["bytes"]) == (
        "scratch",
        0.375,
        None,
        0,
    )
    assert (cluster["mean_accuracy"], cluster["mean_difference"], cluster["clients_better"]) == (0.5, 0.125, 1)
    assert cluster["bytes"] == 2 * (5 + 7 + 11)
    assert donor["clients"] == [{"client": 0, "accuracy": 0.5}, {"client": 1, "accuracy": 0.75}]
    assert (donor["mean_difference"], donor["clients_better"], donor["bytes"]) == (0.25, 2, 200)


def test_folds_of_one_start_are_one():
    events = [*EVENTS[:2], *arm("scratch", {0: 0.5}), *arm("latent", {0: 0.5}), *arm("latent", {1: 0.25}, fold="domain-1")]
    outcome = results([*events, *arm("longer", {0: 0.5})], 1.0)
    assert [one["mean_accuracy"] for one in outcome["starts"] if one["start"] == "latent"] == [0.375]
    assert [row["accuracy"] for row in outcome["clients"]] == [0.5, 0.25]


def test_picks_are_counted_over_joiners_that_have_siblings():
    first, second = results(EVENTS, 1.0)["picks"]
    assert first == {
        "kind": "cluster",
        "by": "updates",
        "decides": True,
        "right": 1,
        "joiners": 2,
        "chance": pytest.approx(0.75),
    }
    assert (second["by"], second["decides"], second["right"]) == ("modeldiff", False, 0)


def test_last_lines_tell_starts_and_picks():
    outcome = results(EVENTS, 1.0)
    for told in (remarks(outcome), lines(outcome)):
        assert "start donor: 0.625, +0.250 against scratch, 2 of 2 better, 0.00 MB" in told
        assert "cluster by updates, decides: siblings found for 1 of 2 joiners, by chance 0.8" in told


def test_one_start_without_a_pick_needs_no_table():
    outcome = results([*CLIENTS, *arm("scratch", {0: 0.5}), *arm("latent", {0: 0.75}, ["without-domain-0"])], 1.0)
    assert "starts" not in outcome
    assert outcome["mean_difference"] == 0.25
