"""Probes are the same for a seed, of all classes, and paired without repeats."""

from __future__ import annotations

import pytest
import torch

from client.modeldiff.probes import choose, random_pairs
from data_partition.client_data import Split


def split() -> Split:
    """20 examples of class 0, 3 of class 1, 5 of class 2; an example's number is its input."""
    labels = torch.tensor([0] * 20 + [1] * 3 + [2] * 5)
    return Split(torch.arange(28)[:, None], labels)


def test_classes_are_taken_in_turn() -> None:
    probes = choose(split(), 12, seed=0)
    assert torch.bincount(probes.labels).tolist() == [5, 3, 4] or torch.bincount(probes.labels).tolist() == [4, 3, 5]
    assert torch.equal(probes.labels, split().labels[probes.inputs[:, 0]])
    assert torch.bincount(choose(split(), 100, seed=0).labels).tolist() == [20, 3, 5]


def test_choice_depends_on_the_seed_alone_and_is_nested() -> None:
    inputs = [
        set(choose(split(), count, seed=seed).inputs[:, 0].tolist()) for count, seed in ((12, 0), (12, 0), (9, 0), (12, 1))
    ]
    assert inputs[0] == inputs[1] != inputs[3]
    assert inputs[2] < inputs[0]


def test_pairs_are_of_two_probes_and_do_not_repeat_while_there_are_enough() -> None:
    pairs = random_pairs(6, 15, seed=0)
    assert pairs.shape == (15, 2)
    assert len({frozenset(pair) for pair in pairs.tolist()}) == 15
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert not torch.equal(pairs, random_pairs(6, 15, seed=1))
    again = random_pairs(6, 40, seed=0)
    counts = torch.bincount(again[:, 0] * 6 + again[:, 1])
    assert len(again) == 40
    assert set(counts[counts > 0].tolist()) == {2, 3}


def test_pairs_need_two_probes() -> None:
    with pytest.raises(ValueError, match="found 1 probes, expected at least 2"):
        choose(split(), 1, seed=0)
