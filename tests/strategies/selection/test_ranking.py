import math

import pytest
from scipy.stats import spearmanr

from strategies.selection.ranking import abstain, inside_first, order, quality
from strategies.selection.rules import best_on_average_rank, oracle_rank, random_rank, same_modality_random_rank

NAN = math.nan


def test_order():
    scores = {5: 0.2, 3: NAN, 2: 0.7, 9: -math.inf, 1: 0.2, 0: 1.0, 4: -8.0, 7: math.inf}
    assert order(scores, target=0) == [2, 1, 5, 4, 3, 7, 9]
    assert order({}, target=0) == []


def test_order_does_not_depend_on_the_order_of_answers():
    scores = {5: 0.2, 3: NAN, 2: 0.7, 1: 0.2}
    assert order(dict(reversed(scores.items())), 0) == order(scores, 0) == [2, 1, 5, 3]


def test_own_modality_goes_first_until_calibrated():
    scores = {0: 1.0, 1: 0.1, 2: 0.9, 3: 0.3, 4: NAN, 5: 0.9}
    assert inside_first(scores, 0, inside={0, 1, 3, 4}) == [3, 1, 2, 5, 4]
    assert inside_first(scores, 0, inside={0, 1, 3, 4}, calibrated=True) == order(scores, 0) == [2, 5, 3, 1, 4]


def test_abstain():
    accuracies = {1: 0.6, 2: 0.5, 3: 0.7, 4: NAN}
    assert abstain([2, 1, 3, 4, 5], accuracies, none=0.5) == [1, 3]
    assert abstain([2, 1, 3], accuracies, none=0.5, margin=0.15) == [3]
    assert abstain([2, 1, 3], accuracies, none=0.7) == []
    with pytest.raises(ValueError, match="nan"):
        abstain([1], accuracies, none=NAN)


def test_quality_by_hand():
    truth = {1: 0.5, 2: 0.9, 3: 0.7, None: 0.6}
    found = quality([3, 2, 1], 3, truth)
    assert (found.rank, found.regret, found.gain) == (2, pytest.approx(0.2), pytest.approx(0.1))
    assert found.kendall == pytest.approx(1 / 3)  # two pairs of three in order
    assert found.spearman == pytest.approx(0.5)  # 1 - 6 * 2 / (3 * 8)
    none = quality([3, 2, 1], None, truth)
    assert (none.rank, none.regret, none.gain) == (3, pytest.approx(0.3), 0)
    harmful = quality([1], 1, {1: 0.5, None: 0.6})
    assert (harmful.rank, harmful.regret, harmful.kendall) == (2, pytest.approx(0.1), None)


def test_quality_of_the_oracle_and_of_its_reverse():
    truth = {1: 0.5, 2: 0.9, 3: 0.7, 4: 0.1}
    best = oracle_rank(0, truth)
    found = quality(best, best[0], truth)
    assert (found.rank, found.regret, found.gain) == (1, 0, None)
    assert (found.kendall, found.spearman) == (pytest.approx(1), pytest.approx(1))
    worst = quality(best[::-1], best[-1], truth)
    assert (worst.rank, worst.regret) == (4, pytest.approx(0.8))
    assert (worst.kendall, worst.spearman) == (pytest.approx(-1), pytest.approx(-1))


def test_quality_with_equal_measurements():
    found = quality([1, 2, 3], 1, {1: 0.5, 2: 0.5, 3: 0.2})
    assert found.rank == 1
    assert found.kendall == pytest.approx(2 / math.sqrt(6))  # tau-b: 2 pairs in order, 3 and 2 untied
    assert found.spearman == pytest.approx(spearmanr([3, 2, 1], [2.5, 2.5, 1]).statistic)
    flat = quality([1, 2], 2, {1: 0.5, 2: 0.5})
    assert (flat.rank, flat.regret, flat.kendall, flat.spearman) == (1, 0, None, None)


def test_quality_refuses_what_was_not_measured():
    with pytest.raises(ValueError, match=r"\[2\]"):
        quality([1, 2], 1, {1: 0.5})
    with pytest.raises(ValueError, match="None"):
        quality([1], None, {1: 0.5})
    with pytest.raises(ValueError, match="finite"):
        quality([1], 1, {1: NAN})


def test_random_orders_all_but_the_target():
    donors = range(20)
    found = random_rank(3, donors, seed=0)
    assert sorted(found) == [donor for donor in donors if donor != 3]
    assert found == random_rank(3, list(reversed(donors)), seed=0)
    assert found != random_rank(3, donors, seed=1)
    assert [one for one in found if one != 4] != [one for one in random_rank(4, donors, seed=0) if one != 3]
    assert all(type(donor) is int for donor in found)


def test_random_puts_each_donor_first_alike():
    firsts = [random_rank(0, range(5), seed)[0] for seed in range(400)]
    assert all(70 < firsts.count(donor) < 130 for donor in range(1, 5))


def test_same_modality_goes_first():
    modalities = {donor: "image" if donor < 6 else "text" for donor in range(12)}
    found = same_modality_random_rank(2, modalities, seed=0)
    assert sorted(found[:5]) == [0, 1, 3, 4, 5]
    assert sorted(found[5:]) == list(range(6, 12))
    assert found[:5] != same_modality_random_rank(2, modalities, seed=1)[:5]
    assert same_modality_random_rank(0, {0: "image", 1: "text"}, seed=0) == [1]


def test_best_on_average_by_hand():
    gains = {
        (1, 0): 0.9, (1, 2): 0.1, (1, 3): 0.2,
        (2, 0): -0.5, (2, 1): 0.4, (2, 3): 0.0,
        (3, 0): 0.0, (3, 1): 0.3, (3, 2): NAN,
        (4, 0): 0.9, (0, 1): 0.9, (1, 1): 9.0,
    }  # fmt: skip
    # Without target 0: donor 1 gains .15, donor 2 gains .2, donor 3 gains .3; donor 4 was tried on 0 alone.
    assert best_on_average_rank(0, gains) == [3, 2, 1, 4]
    gains[1, 0], gains[2, 0] = -9, 9
    assert best_on_average_rank(0, gains) == [3, 2, 1, 4]  # what the target gained plays no part


def test_oracle():
    assert oracle_rank(0, {0: 1.0, 3: 0.5, 1: 0.5, 2: NAN, 4: 0.9}) == [4, 1, 3, 2]
