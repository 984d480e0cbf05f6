"""What each scorer and rule would have chosen, on the events of tests/server/test_transfer.py."""

import itertools
import json

import pytest
from scipy.stats import kendalltau

from server.transfer_facts import read
from server.transfer_scorers import expected_tau, lines
from tests.server.test_transfer import CLIENTS, CONTROLS, PAIRS, ROUTING, SCORES, WHOLE, evaluated, scored


def table(events=WHOLE, first="modeldiff"):
    return {(row["scorer"], row["among"]): row for row in lines(read(events), first)}


def told(row):
    return tuple(row[name] for name in ("rank", "regret", "gain", "kendall", "siblings"))


def choices(row):
    return {one["client"]: one["donor"] for one in row["choices"]}


def test_inside_the_modality_by_hand():
    """Target 0 takes 2, second of 1, 2, none; target 6 has 7 alone, which is worse than none; target 2 was not measured."""
    row = table()["modeldiff", "own"]
    assert choices(row) == {0: 2, 6: 7, 2: 0}
    assert told(row) == pytest.approx((2.0, 3.5, 1.5, -1.0, 0.0))
    by_client = {one["client"]: one for one in row["choices"]}
    assert (by_client[0]["sibling"], by_client[6]["sibling"], by_client[2]["rank"]) == (0.0, None, None)
    assert by_client[6]["kendall"] is None  # one donor has no order


def test_the_own_modality_first_and_by_score_alone_by_hand():
    first, alone = table()["modeldiff", "own-first"], table()["modeldiff", "all"]
    assert choices(first) == {0: 2, 6: 7, 2: 0}
    assert told(first) == pytest.approx((2.5, 5.0, 1.5, 1 / 3, 0.0))
    assert choices(alone) == {0: 7, 6: 7, 2: 0}
    assert told(alone) == pytest.approx((4.0, 13.0, -6.5, -1.0, 0.0))


def test_a_scorer_that_scored_one_modality_only_is_not_judged_among_all():
    found = table()
    assert choices(found["cka", "own"]) == {0: 1}  # its score of donor 2 was replaced by none
    assert ("cka", "all") not in found
    assert ("cka", "own-first") not in found


def test_random_rules_are_the_mean_of_all_their_choices():
    found = table()
    assert told(found["same-modality-random", "own"]) == pytest.approx((1.75, 2.0, 3.0, 0.0, 0.5))
    by_client = {one["client"]: one for one in found["random", "all"]["choices"]}
    assert (by_client[0]["rank"], by_client[0]["sibling"], by_client[6]["rank"]) == pytest.approx((2.75, 0.25, 2.0))
    assert (by_client[0]["regret"], by_client[0]["gain"], by_client[6]["gain"]) == pytest.approx((9.5, 0.5, 1.0))
    inside = {one["client"]: one for one in found["same-modality-random", "all"]["choices"]}
    assert (inside[0]["kendall"], inside[0]["rank"]) == pytest.approx((4 / 6, 1.5))


def test_rules_that_look_at_what_was_measured():
    found = table()
    assert choices(found["oracle", "own"]) == {0: 1, 6: 7}
    assert choices(found["oracle", "all"]) == {0: 1, 6: 0}
    assert told(found["oracle", "all"]) == pytest.approx((1.0, 0.0, 6.5, 1.0, 1.0))
    assert choices(found["none", "all"]) == {0: None, 6: None}
    assert told(found["none", "all"])[:3] == pytest.approx((2.5, 6.5, 0.0))
    assert choices(found["best-on-average", "all"]) == {0: 7, 6: 7, 2: 0}  # those with another target
    assert ("best-on-average", "own") not in found


def test_best_on_average_does_not_look_at_its_own_target():
    more = [evaluated("control", 1, 0.5), evaluated("pair-002", 1, 0.1), evaluated("pair-000", 1, 0.6)]
    found = table([*CLIENTS, *CONTROLS, *PAIRS, *more])
    assert choices(found["best-on-average", "own"]) == {0: 2, 1: 2}  # 2 gave target 0 four points, and target 1 minus forty


def test_without_pairs_the_siblings_remain():
    found = table([*CLIENTS, *CONTROLS, *SCORES, *ROUTING])
    assert set(found) == {
        *((name, where) for name in ("modeldiff",) for where in ("own", "own-first", "all")),
        ("cka", "own"),
        *((name, "all") for name in ("same-modality-random", "random")),
        ("same-modality-random", "own"),
    }
    assert told(found["cka", "own"]) == (None, None, None, None, 1.0)
    assert told(found["random", "all"]) == (None, None, None, None, 0.25)


def test_without_donors_of_the_other_modality_all_are_the_own():
    inside = [*CLIENTS, *CONTROLS, *PAIRS[:4], scored(0, 1, modeldiff=0.1), scored(0, 2, modeldiff=0.2)]
    assert {where for _, where in table(inside)} == {"own"}


def test_a_scorer_without_a_finite_score_is_left_out():
    assert ("leep", "own") not in table([*WHOLE, scored(0, 1, leep=None)])


def test_the_short_training_without_a_donor_is_no_scorer():
    assert table([*WHOLE, scored(0, 1, none=0.4)])["none", "own"]["choices"] == table()["none", "own"]["choices"]
    assert len(lines(read([*WHOLE, scored(0, 1, none=0.4)]))) == len(lines(read(WHOLE)))


def test_the_runs_scorer_comes_first_and_all_of_it_is_json():
    found = lines(read(WHOLE), "modeldiff")
    assert [row["scorer"] for row in found if row["among"] == "own"][:2] == ["modeldiff", "cka"]
    assert lines(read(WHOLE), "cka")[0]["scorer"] == "cka"
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("truth", [{1: 0.3, 2: 0.5, 3: 0.2, 4: 0.1}, {1: 0.3, 2: 0.3, 3: 0.2, 4: 0.3, 5: 0.1}])
def test_the_expected_tau_is_the_mean_over_all_orders(truth):
    blocks = [{1, 2}, set(truth) - {1, 2}]
    orders = [(*a, *b) for a in itertools.permutations(blocks[0]) for b in itertools.permutations(blocks[1])]
    taus = [kendalltau(range(len(truth), 0, -1), [truth[donor] for donor in order]).statistic for order in orders]
    assert expected_tau(blocks, truth) == pytest.approx(sum(taus) / len(taus))
    assert expected_tau([set(truth)], truth) == 0.0
    assert expected_tau(blocks, dict.fromkeys(truth, 0.5)) is None
