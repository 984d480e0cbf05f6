"""Scorers that compare features or logits with labels or with the target's features."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from data_partition.metrics import balanced_accuracy
from strategies.selection import cka, few_step, h_score, leep, linear_probe, logme
from strategies.selection.features import centred
from tests.strategies.selection.helpers import blobs, candidate, outputs, rotation, target

SUPERVISED = [logme.score, h_score.score, leep.score, linear_probe.score]


def value(score, labels, features):
    return score(target(labels), candidate(outputs(features)))


# CKA


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [
        ([1, 0, -1], [8, 5, 2], 1.0),  # another scale and place
        ([1, 0, -1], [1, -2, 1], 0.0),  # uncorrelated
        ([1, 0, -1], [1, -1, 0], 0.25),  # correlation 1/2, squared
    ],
)
def test_cka_by_hand(own, other, expected):
    own, other = (torch.tensor(rows, dtype=torch.float32)[:, None] for rows in (own, other))
    assert cka.score(target([0, 1, 0], outputs(own)), candidate(outputs(other))) == pytest.approx(expected)


def test_cka_of_two_features_by_hand():
    # X'X = diag(2, 2), Y'Y = 2, Y'X = (2, 0): 4 / (sqrt 8 * 2).
    own = outputs([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    other = outputs([[1.0], [-1], [0], [0]])
    assert cka.score(target([0, 1, 0, 1], own), candidate(other)) == pytest.approx(1 / math.sqrt(2))


def test_cka_of_a_constant_model_is_0():
    labels, own = blobs(2)
    assert cka.score(target(labels, own), candidate(outputs(torch.full((60, 8), 0.1)))) == 0
    assert cka.score(target(labels, own), candidate(own)) == pytest.approx(1)


# LogME


def test_logme_by_hand():
    # Features I: y ~ N(0, s I) with s = |y|^2 / n = 1/2, whatever alpha and beta: -(log(2 pi s) + 1) / 2.
    assert value(logme.score, [0, 1], torch.eye(2)) == pytest.approx(-(math.log(math.pi) + 1) / 2)


def test_logme_of_zero_features_knows_the_frequencies_only():
    expected = np.mean([-(math.log(2 * math.pi * share) + 1) / 2 for share in (0.75, 0.25)])
    assert value(logme.score, [0, 0, 0, 1], torch.zeros(4, 3)) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "width"), [(12, 3), (6, 9)])
def test_logme_is_the_maximum_of_the_evidence(n, width):
    labels, found = blobs(0.7, n=n, width=width, classes=2)
    x, y = found.features.double().numpy(), (labels == 0).double().numpy()

    def negative(log_variances):
        noise, prior = np.exp(log_variances)
        return -multivariate_normal.logpdf(y, np.zeros(n), noise * np.eye(n) + prior * x @ x.T)

    best = min(minimize(negative, start, method="Nelder-Mead").fun for start in ([-1.0, -3.0], [-4.0, -1.0]))
    evidence = logme.log_evidence(torch.tensor(x), torch.tensor(y)[:, None])
    assert float(evidence[0]) == pytest.approx(-best / n, abs=1e-3)


def test_logme_of_exact_labels_is_finite():
    labels = [0, 1] * 10
    exact = torch.eye(2)[labels]
    bound = -(math.log(2 * math.pi * logme.FLOOR) + 1) / 2
    assert 0 < value(logme.score, labels, exact) < bound


# H-score


def test_h_score_by_hand():
    # S = diag(2, 1/2), m = 5/4; Ledoit-Wolf: d^2 = 9/8, b^2 = (8.5 - 4.25) / 4 = 17/16, so a = 17/18 and
    # S_a = diag(23.25, 21.75) / 18; B = diag(2, 0): (1 / 18) * 2 * 18 / 23.25.
    features = [[2.0, 0], [-2, 0], [0, 1], [0, -1]]
    assert value(h_score.score, [0, 1, 2, 2], features) == pytest.approx(2 / 23.25)
    moved = torch.tensor(features, dtype=torch.float64)
    assert h_score.shrinkage(moved, moved.T @ moved / 4) == pytest.approx(17 / 18)


def test_h_score_of_one_feature_is_the_share_of_variance_between_classes():
    # Means 1 and -1, residuals 1 and -1 within: 1 / (1 + 1).
    assert value(h_score.score, [0, 0, 1, 1], [[2.0], [0], [0], [-2]]) == pytest.approx(0.5)


def test_h_score_weighs_classes_by_their_probes():
    # Class means 1 (three probes) and -3 (one): all variance is between.
    assert value(h_score.score, [0, 0, 0, 1], [[1.0], [1], [1], [-3]]) == pytest.approx(1)


# LEEP


def test_leep_by_hand():
    # P(y, z): (.4, .1), (.2, .3); P(y | z): (2/3, 1/4), (1/3, 3/4); both probes
    # .8 * 2/3 + .2 * 1/4 = .4 / 3 + .6 * 3/4 = 7/12.
    logits = torch.tensor([[0.8, 0.2], [0.4, 0.6]]).log()
    assert leep.score(target([0, 1]), candidate(outputs(logits=logits))) == pytest.approx(math.log(7 / 12))


def test_leep_of_equal_guesses_is_minus_the_entropy():
    entropy = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    assert leep.score(target([0, 0, 0, 1]), candidate(outputs(logits=torch.ones(4, 5)))) == pytest.approx(-entropy)


def test_leep_is_for_the_modality_only():
    labels, found = blobs(3)
    assert leep.score(target(labels), candidate(found, same_modality=False)) == -math.inf


def test_leep_of_certain_guesses_is_finite():
    logits = 1e4 * torch.eye(3)[[0, 0, 1]]  # the third class has no mass at all
    assert leep.score(target([0, 1, 1]), candidate(outputs(logits=logits))) == pytest.approx(2 / 3 * math.log(0.5))


# Linear probe


def test_linear_probe_of_separate_classes():
    labels, found = blobs(20)
    score = linear_probe.score(target(labels), candidate(found))
    assert 1 < score <= 1 + linear_probe.TIE_BREAK


def test_linear_probe_fits_what_it_claims():
    # One regression by hand: the loss of the documented model, minimised by another routine.
    labels, found = blobs(0.7, n=30, width=2)
    labels = (labels > 0).long()  # twice as many of one class
    folds = linear_probe.deal(labels, 0)
    x = centred(found.features)
    x = (x / x.square().mean().sqrt()).numpy()
    fitted = (folds != 1).numpy()
    y = labels.numpy()
    weights = np.where(y == 0, fitted.sum() / (2 * (y[fitted] == 0).sum()), fitted.sum() / (2 * (y[fitted] == 1).sum()))

    def loss(parameters):
        w, b = parameters[:4].reshape(2, 2), parameters[4:]
        logits = x[fitted] @ w + b
        chances = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        return -(weights[fitted] * chances[np.arange(fitted.sum()), y[fitted]]).sum() + 0.5 * (w**2).sum()

    best = minimize(loss, np.zeros(6), method="BFGS").x
    logits = x[~fitted] @ best[:4].reshape(2, 2) + best[4:]
    expected = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    chances = linear_probe.held_out(found.features, labels, folds)
    assert chances.exp().sum(1).numpy() == pytest.approx(1)
    assert chances[~torch.from_numpy(fitted)].numpy() == pytest.approx(expected, abs=0.02)


def test_a_probe_is_not_predicted_by_itself():
    labels, found = blobs(0, n=30, width=40)  # more features than probes: fitted ones would all be right
    folds = linear_probe.deal(labels, 0)
    chances = linear_probe.held_out(found.features, labels, folds)
    assert balanced_accuracy(chances.argmax(1), labels, 3) < 0.6
    flipped = labels.clone()
    flipped[folds == 0] = (flipped[folds == 0] + 1) % 3
    again = linear_probe.held_out(found.features, flipped, folds)
    assert torch.allclose(again[folds == 0], chances[folds == 0], atol=0.02)
    assert not torch.allclose(again[folds == 1], chances[folds == 1], atol=0.02)


def test_folds_hold_each_class_alike():
    labels = torch.tensor([0] * 20 + [1] * 9 + [2] * 3)
    folds = linear_probe.deal(labels, 3)
    for wanted in range(3):
        counts = torch.bincount(folds[labels == wanted], minlength=linear_probe.FOLDS)
        assert counts.max() - counts.min() <= 1
    counts = torch.bincount(folds, minlength=linear_probe.FOLDS)
    assert counts.max() - counts.min() <= 1
    assert torch.equal(folds, linear_probe.deal(labels, 3))
    assert not torch.equal(folds, linear_probe.deal(labels, 4))


def test_equal_accuracies_are_ordered_by_likelihood():
    labels, near = blobs(6)
    far = outputs(blobs(20)[1].features)
    scores = [linear_probe.score(target(labels), candidate(found)) for found in (near, far)]
    assert int(scores[0]) == int(scores[1]) == 1
    assert 0 < scores[1] - scores[0] < linear_probe.TIE_BREAK


def test_one_class_with_a_single_probe_is_missed():
    labels = torch.tensor([0] * 10 + [1] * 10 + [2])
    features = 9 * torch.eye(3)[labels]
    assert value(linear_probe.score, labels, features) == pytest.approx(2 / 3, abs=1e-5)


def test_few_step_is_what_tuning_says():
    assert few_step.score(target([0, 1]), candidate(outputs(torch.eye(2)), tune=lambda: 0.625)) == 0.625


# All of them


@pytest.mark.parametrize("score", SUPERVISED)
@pytest.mark.parametrize("width", [8, 100])
def test_classes_that_are_apart_score_higher_than_noise(score, width):
    for seed in range(3):
        labels, noise = blobs(0, width=width, seed=seed)
        weak, strong = (blobs(apart, width=width, seed=seed)[1] for apart in (1, 4))
        scores = [score(target(labels), candidate(found)) for found in (noise, weak, strong)]
        assert scores[0] < scores[1] < scores[2]


@pytest.mark.parametrize("score", [cka.score, logme.score, h_score.score, linear_probe.score])
def test_features_may_be_scaled_and_rotated(score):
    labels, found = blobs(1)
    chosen = target(labels, blobs(1, seed=1)[1])
    moved = outputs(1e-6 * found.features @ rotation(8))
    expected = score(chosen, candidate(found))
    assert score(chosen, candidate(moved)) == pytest.approx(expected, abs=1e-4)
    if score is not logme.score:  # LogME has no constant term
        assert score(chosen, candidate(outputs(found.features + 5))) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("score", [cka.score, logme.score, h_score.score, leep.score])
def test_order_of_probes_does_not_matter(score):
    labels, found = blobs(1)
    own = blobs(1, seed=1)[1]
    places = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    shuffled = outputs(found.features[places], found.logits[places])
    again = score(target(labels[places], outputs(own.features[places])), candidate(shuffled))
    assert again == pytest.approx(score(target(labels, own), candidate(found)))


@pytest.mark.parametrize("score", SUPERVISED)
def test_labels_are_names(score):
    """Renaming classes, or a task that has more classes than the probes show, changes nothing."""
    labels, found = blobs(1)
    renamed = torch.tensor([7, 4, 2])[labels]
    expected = score(target(labels), candidate(found))
    assert score(target(renamed), candidate(found)) == pytest.approx(
        expected, abs=0.05 if score is linear_probe.score else 1e-9
    )


@pytest.mark.parametrize(
    ("score", "one_class", "constant"),
    [
        (logme.score, 0.0, None),
        (h_score.score, 0.0, 0.0),
        (leep.score, 0.0, -math.log(3)),
        (linear_probe.score, 1.0, 1 / 3 + 1e-6 / 3),
    ],
)
def test_edges(score, one_class, constant):
    labels, found = blobs(1)
    assert score(target(torch.full((60,), 2)), candidate(found)) == pytest.approx(one_class, abs=1e-12)
    flat = score(target(labels), candidate(outputs(torch.full((60, 8), 0.1), torch.ones(60, 4))))
    assert math.isfinite(flat)
    if constant is not None:
        assert flat == pytest.approx(constant, abs=1e-9)


@pytest.mark.parametrize("score", [*SUPERVISED, cka.score])
@pytest.mark.parametrize("n", [2, 3, 5])
def test_few_probes_zero_rows_and_many_features(score, n):
    labels, found = blobs(1, n=n, width=64, classes=2)
    features = found.features.clone()
    features[0] = 0
    assert math.isfinite(score(target(labels, outputs(features)), candidate(outputs(features, found.logits))))
