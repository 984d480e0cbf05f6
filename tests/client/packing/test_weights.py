"""Weights by hand, and their sum for any number of teachers."""

from __future__ import annotations

import math

import pytest
import torch

from client.packing.weights import by_cross_entropy, by_similarity, ca_mkd, ebkd, effective, entropy, uniform
from tests.client.packing.helpers import random

SCHEMES = {
    "uniform": lambda K: uniform(K),
    "similarity": lambda K: by_similarity(random(K), 0.1),
    "cross-entropy": lambda K: by_cross_entropy(random(K).abs(), 0.1),
    "ebkd": lambda K: ebkd(random(7, K).abs()),
    "ebkd, all certain": lambda K: ebkd(torch.zeros(7, K)),
    "ca-mkd": lambda K: ca_mkd(5 * random(7, K).abs()),
    "ca-mkd, one hopeless": lambda K: ca_mkd(torch.cat([torch.full((7, 1), 1e4), random(7, K - 1).abs()], dim=1)),
}


@pytest.mark.parametrize("name", list(SCHEMES))
@pytest.mark.parametrize("teachers", [1, 2, 3, 5, 11])
def test_weights_sum_to_one(name: str, teachers: int) -> None:
    weights = SCHEMES[name](teachers)
    assert weights.shape[-1] == teachers
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]), rtol=0, atol=1e-6)
    assert (effective(weights) >= 1 - 1e-5).all()
    assert (effective(weights) <= teachers + 1e-4).all()


def test_weights_by_hand() -> None:
    assert by_similarity(torch.tensor([0.0, 0.5 * math.log(3)]), 0.5).tolist() == pytest.approx([0.25, 0.75])
    assert by_cross_entropy(torch.tensor([0.5 * math.log(3), 0.0]), 0.5).tolist() == pytest.approx([0.25, 0.75])
    assert ebkd(torch.tensor([[0.1, 0.3, 0.6]])).flatten().tolist() == pytest.approx([0.45, 0.35, 0.2])
    assert ca_mkd(torch.tensor([[0.0, math.log(2), math.log(2)]])).flatten().tolist() == pytest.approx([0.4, 0.3, 0.3])


def test_the_temperature_goes_from_one_teacher_to_all() -> None:
    similarities = torch.tensor([0.1, 0.9, 0.5])
    assert by_similarity(similarities, 1e-3).tolist() == pytest.approx([0.0, 1.0, 0.0])
    assert by_similarity(similarities, 1e6).tolist() == pytest.approx([1 / 3] * 3, abs=1e-5)


def test_entropy_is_on_one_scale() -> None:
    assert entropy(torch.zeros(2, 5)).tolist() == pytest.approx([1.0, 1.0])
    assert entropy(torch.zeros(2, 12)).tolist() == pytest.approx([1.0, 1.0])
    assert entropy(torch.tensor([[1e4, 0.0]])).tolist() == pytest.approx([0.0])
    assert entropy(torch.tensor([[math.log(3), 0.0]])).tolist() == pytest.approx(
        [-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(2)]
    )


def test_effective_teachers_by_hand() -> None:
    assert effective(torch.tensor([[1.0, 0.0], [0.5, 0.5]])).tolist() == pytest.approx([1.0, 2.0])
