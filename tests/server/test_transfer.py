"""Choices of a Back-Pack run and the transfer matrix, by hand."""

import json
import math

import pytest

from server import transfer
from server.summary import cells, lines, remarks
from server.summary import results as summary_of
from server.transfer_facts import judge, read
from tests.server.test_summary import evaluated

KINDS = {0: ("image", "ab"), 1: ("image", "ab"), 2: ("image", "cd"), 6: ("text", "ab"), 7: ("text", "cd")}
CLIENTS = [{"event": "client", "client": i, "modality": kind, "classes": [*names]} for i, (kind, names) in KINDS.items()]


def scored(target, donor, **scores):
    named = {name.replace("_", "-"): value for name, value in scores.items()}
    return {"event": "score", "arm": "backpack", "client": target, "donor": donor, "scores": named}


def routed(target, ranking, chosen, **fields):
    return {"event": "routing", "arm": "backpack", "client": target, "ranking": ranking, "chosen": chosen, **fields}


SCORES = [
    scored(0, 1, modeldiff=0.1, cka=0.7),
    scored(0, 1, modeldiff=0.8),  # replaces one, leaves the other
    scored(0, 2, modeldiff=0.9, cka=0.6),
    scored(0, 2, cka=None),
    scored(0, 6, modeldiff=0.98),
    scored(0, 7, modeldiff=0.99),
    scored(6, 7, modeldiff=0.5),
    scored(6, 0, modeldiff=None),
    scored(2, 0, modeldiff=0.7),
]
ROUTING = [
    routed(0, [[2, 0.9], [1, 0.8], [7, 0.99], [6, 0.98]], [2], tie=True, shortlist=[1, 2]),
    routed(6, [[7, 0.5], [0, None]], [], tried_donor=0.4, tried_none=0.5, tie=False),
    routed(2, [[0, 0.7]], [0], scorer="cka"),
]
CONTROLS = [evaluated("control", 0, 0.5), evaluated("control", 6, 0.3), evaluated("control", 2, 0.2)]
CHOSEN = [evaluated("backpack", 0, 0.57), evaluated("backpack", 6, 0.3), evaluated("backpack", 2, 0.1)]
PAIRS = [
    evaluated("control-1", 0, 0.54),
    evaluated("pair-001", 0, 0.6),
    evaluated("pair-001-1", 0, 0.64),
    evaluated("pair-002", 0, 0.56),
    evaluated("pair-006", 0, 0.52),
    evaluated("pair-007", 0, 0.4),
    evaluated("pair-000", 6, 0.33),
    evaluated("pair-007", 6, 0.29),
]
"""Truth of target 0: .62, .56, .52, .40 and none .52; of target 6: donors 0 and 7 .33, .29 and none .30; of 2 nothing."""
WHOLE = [*CLIENTS, *CONTROLS, *PAIRS, *SCORES, *ROUTING, *CHOSEN]


def found(events, scorer="modeldiff"):
    return transfer.results(events, scorer)


def by_client(summary):
    return {row["client"]: row for row in summary["routing"]}


def test_truth_is_the_mean_over_repeats():
    truth = read(WHOLE).truth
    assert truth[0] == pytest.approx({None: 0.52, 1: 0.62, 2: 0.56, 6: 0.52, 7: 0.4})
    assert truth[6] == pytest.approx({None: 0.3, 0: 0.33, 7: 0.29})
    assert set(truth) == {0, 6}


def test_rank_regret_tau_and_gain_by_hand():
    """Pairs of (2, 1, 7, 6): four right, (2, 1) and (7, 6) wrong."""
    row = by_client(found(WHOLE))[0]
    assert (row["rank"], row["candidates"], row["score"], row["tie"], row["shortlist"]) == (2, 5, 0.9, True, [1, 2])
    assert row["regret"] == pytest.approx(6.0)
    assert row["kendall"] == pytest.approx(1 / 3)
    assert row["gain"] == pytest.approx(7.0)  # over the control of the same seed
    assert (row["sibling"], row["scorer"], row["round"], row["gain_own"]) == (False, "modeldiff", 1, None)


def test_none_is_a_candidate_and_abstaining_a_choice():
    row = by_client(found(WHOLE))[6]
    assert (row["chosen"], row["score"], row["rank"], row["candidates"]) == ([], None, 2, 3)
    assert row["regret"] == pytest.approx(3.0)
    assert row["kendall"] == pytest.approx(-1.0)
    assert row["gain"] == pytest.approx(0.0)
    assert (row["tried_donor"], row["tried_none"]) == (0.4, 0.5)
    assert row["sibling"] is None  # no other client has its modality and classes


def test_a_target_that_was_not_measured_keeps_its_choice_and_gain():
    row = by_client(found(WHOLE))[2]
    assert (row["scorer"], row["chosen"], row["rank"], row["candidates"], row["regret"], row["kendall"]) == (
        "cka",
        [0],
        None,
        None,
        None,
        None,
    )
    assert row["gain"] == pytest.approx(-10.0)


def test_means_are_over_targets_that_have_the_value():
    means = found(WHOLE)["means"]
    assert means["gain"] == pytest.approx((7 + 0 - 10) / 3)
    assert (means["rank"], means["candidates"], means["regret"]) == pytest.approx((2.0, 4.0, 4.5))
    assert means["kendall"] == pytest.approx((1 / 3 - 1) / 2)
    told = {name: means[name] for name in ("targets", "siblings", "with_sibling", "abstained", "ties")}
    assert told == {"targets": 3, "siblings": 0, "with_sibling": 1, "abstained": 1, "ties": 1}
    assert means["gain_own"] is None


def test_without_pairs_choices_and_gains_remain():
    summary = found([*CLIENTS, *CONTROLS, *SCORES, *ROUTING, *CHOSEN, evaluated("own", 0, 0.6)])
    row = by_client(summary)[0]
    assert row["gain"] == pytest.approx(7.0)
    assert row["gain_own"] == pytest.approx(-3.0)
    assert [row[name] for name in ("rank", "candidates", "regret", "kendall")] == [None] * 4
    assert by_client(summary)[6]["rank"] is None  # none alone is no candidate
    assert (summary["matrix"], summary["relations"], summary["directions"]) == (None, [], [])


def test_a_repeat_of_the_control_alone_measures_no_pair():
    assert by_client(found([*CLIENTS, *CONTROLS, PAIRS[0], *ROUTING]))[0]["rank"] is None


def test_matrix_by_hand():
    """Two pairs of repeats, each .04 apart: variance .0008."""
    matrix = found(WHOLE)["matrix"]
    assert (matrix["targets"], matrix["donors"], matrix["repeats"]) == ([0, 6], [0, 1, 2, 6, 7], 1)
    assert matrix["none"] == pytest.approx([0.52, 0.3])
    assert matrix["gains"][0][0] is None
    assert matrix["gains"][0][1:] == pytest.approx([10, 4, 0, -12])
    assert matrix["gains"][1][1:4] == [None] * 3
    assert [matrix["gains"][1][0], matrix["gains"][1][4]] == pytest.approx([3, -1])
    assert matrix["noise"] == pytest.approx(100 * math.sqrt(0.0008))


def test_relations_and_directions_by_hand():
    summary = found(WHOLE)
    relations = {row["relation"]: row for row in summary["relations"]}
    assert {name: row["gain"] for name, row in relations.items()} == pytest.approx(
        {"sibling": 10, "stranger": 1.5, "twin": 1.5, "other": -12}
    )
    assert {name: row["pairs"] for name, row in relations.items()} == {"sibling": 1, "stranger": 2, "twin": 2, "other": 1}
    directions = {row["direction"]: row for row in summary["directions"]}
    assert {name: row["gain"] for name, row in directions.items()} == pytest.approx(
        {"image→image": 7, "image→text": 3, "text→image": -6, "text→text": -1}
    )
    assert directions["image→image"]["positive"] == 1.0
    (one,) = directions["text→image"]["targets"]
    assert one == pytest.approx([0, -6.0])


def test_measurements_that_are_not_finite_are_none():
    broken = [{**PAIRS[3], "balanced_accuracy": None}, {**PAIRS[4], "balanced_accuracy": math.nan}]
    summary = found([*CLIENTS, *CONTROLS, *PAIRS[:3], *broken, *SCORES, *ROUTING, *CHOSEN])
    row = by_client(summary)[0]
    assert summary["matrix"]["donors"] == [1]
    assert (row["chosen"], row["rank"], row["regret"]) == ([2], None, None)  # its donor was not measured
    json.dumps(summary, allow_nan=False)


def test_a_donor_that_was_not_ranked_still_counts_for_rank_and_regret_but_not_for_tau():
    truth = {None: 0.1, 1: 0.5, 2: 0.4, 3: 0.9}
    quality = judge([1, 2], 1, truth)
    assert (quality.rank, quality.kendall) == (2, pytest.approx(1.0))
    assert quality.regret == pytest.approx(40.0)
    assert judge([1, 2], 4, truth) is None
    assert judge([1, 2], None, {1: 0.5, 2: 0.4}) is None  # nobody measured no donor


def test_the_last_of_several_events_about_one_choice_counts():
    twice = [*WHOLE, routed(0, [[1, 0.8], [2, 0.7]], [1])]
    assert by_client(found(twice))[0]["chosen"] == [1]
    assert len(found(twice)["routing"]) == 3


def test_rounds_are_listed_and_only_the_last_is_averaged():
    summary = found([*WHOLE, routed(0, [[1, 0.8], [2, 0.7]], [1], round=2)])
    assert [(row["round"], row["client"], row["chosen"]) for row in summary["routing"]] == [
        (1, 0, [2]),
        (1, 2, [0]),
        (1, 6, []),
        (2, 0, [1]),
    ]
    gains = [row["gain"] for row in summary["routing"]]
    assert gains[0] is None  # the accuracy measured at the end is that of the last choice
    assert gains[1:] == pytest.approx([-10, 0, 7])
    assert (summary["means"]["targets"], summary["means"]["siblings"]) == (3, 1)


def test_a_target_whose_donor_failed_is_judged_by_the_one_it_learned_on():
    used = {"event": "routed", "arm": "backpack", "client": 0, "donors": [1]}
    row = by_client(found([*WHOLE, used]))[0]
    assert (row["chosen"], row["rank"], row["regret"], row["score"], row["sibling"]) == ([1], 1, 0.0, 0.8, True)
    nobody = found([*WHOLE, {**used, "donors": []}])
    assert by_client(nobody)[0]["rank"] == 3
    assert nobody["means"]["abstained"] == 2


def test_a_shortlist_has_an_event_of_its_own():
    short = {"event": "shortlist", "arm": "backpack", "client": 6, "donors": [[7, 0.9], [0, 0.1]]}
    assert [row["shortlist"] for row in found([*WHOLE, short])["routing"]] == [[1, 2], None, [7, 0]]


def test_refused_donors_and_clusters_are_listed():
    events = [
        {"event": "refused", "arm": "donor", "type": "query.backbone", "client": 7, "reason": "dead"},
        {"event": "refused", "client": 1, "target": 0, "reason": "NaN"},
        {"event": "refused", "client": 1, "target": 0, "reason": "NaN"},
        {"event": "refused", "arm": "control", "type": "query.score", "client": 0, "reason": "the target is late"},
        {"event": "cluster", "clusters": [[0, 1], [6]], "similarity": "modeldiff", "time": "now"},
    ]
    summary = found([*WHOLE, *events])
    assert summary["refused"] == [
        {"donor": 7, "target": None, "reason": "dead"},
        {"donor": 1, "target": 0, "reason": "NaN"},
    ]
    assert summary["clusters"] == [{"clusters": [[0, 1], [6]], "similarity": "modeldiff"}]


def test_a_run_that_routes_nothing_says_nothing():
    assert found([*CLIENTS, *CONTROLS]) is None
    assert "transfer" not in summary_of([*CLIENTS, *CONTROLS, evaluated("local", 0, 0.5)], 1.0)


def test_pairs_repeats_and_the_second_control_are_no_clients_result():
    outcome = summary_of([*WHOLE, evaluated("own", 0, 0.9)], 1.0, "modeldiff")
    rows = {row["client"]: (row["control"], row["accuracy"]) for row in outcome["clients"]}
    assert rows == {0: (0.5, 0.57), 2: (0.2, 0.1), 6: (0.3, 0.3)}


def test_the_table_at_the_end_says_who_was_chosen():
    outcome = summary_of([*WHOLE, routed(2, [[1, 0.7], [0, 0.6]], [1, 0])], 1.0, "modeldiff")
    head, *body, means = cells(outcome)
    assert (head[-1], [row[-1] for row in body], means[-1]) == ("donor", ["2", "1, 0", "none"], "")
    assert {len(row) for row in (head, *body, means)} == {8}
    told = remarks(outcome)[-1]
    assert told == lines(outcome)[-1]
    assert told == (
        "donors by modeldiff; mean gain -1.0 points over the control; 0 of 1 chose a sibling; 1 of 3 abstained; "
        "rank 2.0 of 4.0, regret 4.5 points; tau -0.33"
    )
    assert lines(outcome)[1].endswith("donor 2")
