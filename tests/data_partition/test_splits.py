from __future__ import annotations

import itertools

import pytest

from data_partition.files import DataError
from data_partition.splits import owned_concepts, split_concepts

CONCEPTS = {"cat": [f"cat{i}" for i in range(20)], "dog": [f"dog{i}" for i in range(10)]}
TEST = frozenset([f"cat{i}" for i in range(5)] + ["dog0", "dog1"])
TRAIN = [f"c{i:02}" for i in range(10)]


def test_sizes_by_hand():
    split = split_concepts(CONCEPTS, TEST, 0.2, seed=0)
    assert {name: len(found) for name, found in split.test.items()} == {"cat": 5, "dog": 2}
    assert {name: len(found) for name, found in split.val.items()} == {"cat": 3, "dog": 2}
    assert {name: len(found) for name, found in split.train.items()} == {"cat": 12, "dog": 6}
    for name, members in CONCEPTS.items():
        assert sorted([*split.test[name], *split.val[name], *split.train[name]]) == sorted(members)


def test_the_seed_decides_and_the_order_of_concepts_does_not():
    reverse = {name: members[::-1] for name, members in CONCEPTS.items()}
    assert split_concepts(CONCEPTS, TEST, 0.2, 0) == split_concepts(reverse, TEST, 0.2, 0)
    assert split_concepts(CONCEPTS, TEST, 0.2, 0).val != split_concepts(CONCEPTS, TEST, 0.2, 1).val


def test_disjoint_domains_share_nothing_and_cover_all():
    hands = [owned_concepts(TRAIN, 1 / 3, index, 3, True) for index in range(3)]
    assert [len(hand) for hand in hands] == [3, 3, 3]
    assert len(frozenset().union(*hands)) == 9
    halves = [owned_concepts(TRAIN, 0.5, index, 2, True) for index in range(2)]
    assert halves[0] | halves[1] == set(TRAIN)
    assert not halves[0] & halves[1]


def test_shared_domains_own_the_same():
    assert owned_concepts(TRAIN, 0.25, 0, 2, False) == owned_concepts(TRAIN, 0.25, 1, 2, False) == set(TRAIN[:2])
    assert owned_concepts(TRAIN, 1.0, 0, 2, False) == set(TRAIN)


@pytest.mark.parametrize("disjoint", [True, False])
def test_a_smaller_fraction_is_a_subset_of_a_larger_one(disjoint):
    hands = [owned_concepts(TRAIN, fraction, 1, 2, disjoint) for fraction in (0.01, 0.1, 0.2, 0.3, 0.5)]
    assert len(hands[0]) == 1
    assert all(small <= large for small, large in itertools.pairwise(hands))


@pytest.mark.parametrize(("fraction", "disjoint"), [(0.0, False), (1.1, False), (0.6, True)])
def test_fractions_out_of_range(fraction, disjoint):
    with pytest.raises(DataError, match="train fraction"):
        owned_concepts(TRAIN, fraction, 0, 2, disjoint)


def test_too_few_concepts():
    with pytest.raises(DataError, match="cannot be dealt to 3 domains"):
        owned_concepts(TRAIN[:2], 0.3, 0, 3, True)
    with pytest.raises(DataError, match="leaves none to train on"):
        split_concepts({"cat": ["a", "b"]}, frozenset("a"), 0.2, 0)
