import math

import numpy as np
import pytest
import torch

from strategies.selection import modeldiff, modeldiff_released
from strategies.selection.modeldiff import ddv, ddv_features, ddv_logits, resampled, similarity
from strategies.selection.ranking import is_tie
from tests.strategies.selection.helpers import blobs, candidate, outputs, random_pairs, rotation, target


def test_ddv_by_hand():
    rows = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [1.0, 1.0]])
    found = ddv(rows, torch.tensor([[0, 1], [0, 2], [0, 3], [1, 1]]))
    assert found.tolist() == pytest.approx([1, 2, 1 - math.sqrt(0.5), 0])
    assert found.dtype == torch.float64


def test_ddv_of_zero_rows():
    rows = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    assert ddv(rows, torch.tensor([[0, 1], [0, 2], [2, 0]])).tolist() == [0, 1, 1]


def test_similarity_by_hand():
    assert similarity(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0])) == pytest.approx(0.8)
    assert similarity(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])) == 0
    assert similarity(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.0])) == 0


def test_score_by_hand():
    # Centred: (-1, 0), (0, 0), (1, 0) and (-1, 1), (-1, -1), (2, 0): DDVs (1, 2) and (1, 1 + 1 / sqrt 2).
    own, other = outputs([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]]), outputs([[-1.0, 1.0], [-1.0, -1.0], [2.0, 0.0]])
    chosen = target([0, 1, 0], own, [[0, 1], [0, 2]])
    b = 1 + math.sqrt(0.5)
    assert modeldiff.score(chosen, candidate(other)) == pytest.approx((1 + 2 * b) / math.sqrt(5 * (1 + b * b)))


@pytest.mark.parametrize("score", [modeldiff.score, modeldiff.score_logits])
def test_a_model_is_like_itself_and_less_like_another(score):
    labels, own = blobs(2)
    chosen = target(labels, own, random_pairs(60))
    assert score(chosen, candidate(own)) == pytest.approx(1)
    assert 0 < score(chosen, candidate(blobs(0, seed=1)[1])) < 0.99


def test_features_may_be_moved_scaled_and_rotated():
    _, own = blobs(2)
    pairs = random_pairs(60)
    moved = outputs(5 * own.features @ rotation(8) + 3)
    assert torch.allclose(ddv_features(moved, pairs), ddv_features(own, pairs), atol=1e-5)


def test_logits_may_be_scaled_and_rotated_but_not_moved():
    _, own = blobs(2)
    pairs = random_pairs(60)
    assert torch.allclose(ddv_logits(outputs(logits=7 * own.logits @ rotation(3)), pairs), ddv_logits(own, pairs), atol=1e-5)
    assert not torch.allclose(ddv_logits(outputs(logits=own.logits + 3), pairs), ddv_logits(own, pairs), atol=1e-2)


def test_order_of_probes_and_of_pairs_does_not_matter():
    labels, own = blobs(2)
    other = blobs(1, seed=1)[1]
    pairs = random_pairs(60)
    places = torch.randperm(60, generator=torch.Generator().manual_seed(2))
    where = places.argsort()  # probe i is now at where[i]
    shuffled = target(labels[places], outputs(own.features[places]), where[pairs].flip(0))
    found = modeldiff.score(shuffled, candidate(outputs(other.features[places])))
    assert found == pytest.approx(modeldiff.score(target(labels, own, pairs), candidate(other)))


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_a_model_that_answers_all_probes_alike_comes_last(value):
    labels, own = blobs(2)
    chosen = target(labels, own, random_pairs(60))
    constant = outputs(value * (1 + 2e-7 * torch.randn(60, 8, generator=torch.Generator().manual_seed(0))))
    assert modeldiff.score(chosen, candidate(constant)) == 0


def test_the_released_rule_prefers_what_is_far():
    labels, own = blobs(2)
    chosen = target(labels, own, random_pairs(60))
    for score in (modeldiff_released.score, modeldiff_released.score_cosine):
        assert score(chosen, candidate(own)) == pytest.approx(0, abs=1e-9)
        assert score(chosen, candidate(blobs(0, seed=1)[1])) > 0.05
        assert score(chosen, candidate(outputs(logits=torch.zeros(60, 3)))) == 1
    far = candidate(blobs(0, seed=1)[1])
    assert modeldiff_released.score_cosine(chosen, far) == pytest.approx(1 - modeldiff.score_logits(chosen, far))


def test_the_released_rule_by_hand():
    # Distances 5 and 2 against 3 and 4: cosine (15 + 8) / (sqrt 29 * 5).
    own, other = outputs(logits=[[0.0, 0], [3, 4], [0, 2]]), outputs(logits=[[0.0, 0], [3, 0], [0, 4]])
    chosen = target([0, 1, 0], own, [[0, 1], [0, 2]])
    assert modeldiff_released.score(chosen, candidate(other)) == pytest.approx(1 - 23 / (5 * math.sqrt(29)))


def test_resamples_tell_a_clear_lead_from_a_tie():
    labels, own = blobs(3)
    chosen = target(labels, own, random_pairs(60, 200))
    near = candidate(outputs(own.features + 0.1 * blobs(0, seed=3)[1].features))
    noise = [candidate(blobs(0, seed=seed)[1]) for seed in (4, 5)]

    def tie(*two):
        first, second = sorted(two, key=lambda one: -modeldiff.score(chosen, one))
        gap = modeldiff.score(chosen, first) - modeldiff.score(chosen, second)
        return is_tie(gap, resampled(chosen, first), resampled(chosen, second))

    assert not tie(near, noise[0])
    assert tie(*noise)
    assert tie(near, near)


def test_the_mean_of_resamples_is_near_the_score_and_their_spread_falls_with_the_pairs():
    labels, own = blobs(2)
    other, spreads = candidate(blobs(1, seed=1)[1]), []
    for number in (50, 800):
        chosen = target(labels, own, random_pairs(60, number))
        found = np.array(resampled(chosen, other))
        spreads.append(found.std())
        assert found.mean() == pytest.approx(modeldiff.score(chosen, other), abs=2 * found.std() / math.sqrt(50))
    assert 2.5 < spreads[0] / spreads[1] < 6.5  # sqrt 16 = 4


def test_resamples_of_two_pairs_by_hand():
    # DDVs (1, 2) and (1, 1): either pair twice gives 1; one of each, half of the time, 3 / sqrt 10. The fourth probe centres.
    own, other = outputs([[1.0, 0], [0, 1], [-1, 0], [0, -1]]), outputs([[1.0, 0], [0, 1], [0, -1], [-1, 0]])
    chosen = target([0, 1, 0, 1], own, [[0, 1], [0, 2]])
    found = resampled(chosen, candidate(other))
    low = 3 / math.sqrt(10)
    assert {round(value, 6) for value in found} == {1.0, round(low, 6)}
    assert np.mean(found) == pytest.approx((1 + low) / 2, abs=0.006)
    assert resampled(chosen, candidate(other)) == found  # the target's seed draws
    with pytest.raises(ValueError, match="no pairs"):
        resampled(target([0, 1, 0, 1], own, np.empty((0, 2), int)), candidate(other))


def test_resamples_of_a_constant_candidate():
    labels, own = blobs(2)
    assert set(resampled(target(labels, own, random_pairs(60)), candidate(outputs(torch.ones(60, 8))))) == {0.0}
