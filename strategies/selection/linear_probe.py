"""Linear probe: balanced accuracy of a logistic regression on the features, on probes that it was not fitted to.

The probes are dealt into FOLDS folds, class by class, in an order drawn from the target's seed; each fold is predicted by a
regression fitted to the others, with classes weighted alike. The features are centred and brought to one variance on average,
without labels, so moving, scaling or rotating them leaves the score as it is; the penalty is |W|^2 / 2 on the weights
against the sum of the cross-entropies.

    score = balanced accuracy + TIE_BREAK * exp(mean log-likelihood of the held-out labels, each class alike)

The second term is smaller than any difference of accuracies that matters, and orders candidates of equal accuracy.

A class with one probe is never predicted right. Features that are constant score 1 / classes present; with one class every
candidate scores 1.

Source: Alain and Bengio, "Understanding intermediate layers using linear classifier probes", 2016.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from data_partition.metrics import balanced_accuracy, class_weights
from strategies.selection.features import centred, relabelled
from strategies.selection.scorer import Candidate, Target

FOLDS = 5
TIE_BREAK = 1e-6
ITERATIONS = 100
FLAT = 1e-6
"""Relative fall of the loss in a step at which fitting ends."""

Floats = NDArray[np.float64]


def score(target: Target, candidate: Candidate) -> float:
    """Balanced accuracy over the folds; ties are broken by the log-likelihood."""
    labels = relabelled(target.labels)
    num_classes = int(labels.max()) + 1
    if num_classes < 2:
        return 1.0
    folds = deal(labels, target.seed)
    log_chances = held_out(candidate.outputs.features, labels, folds)
    accuracy = balanced_accuracy(log_chances.argmax(1), labels, num_classes)
    of_truth = log_chances.gather(1, labels[:, None])[:, 0]
    likelihood = math.exp(float((class_weights(labels, num_classes)[labels] * of_truth).mean()))
    return accuracy + TIE_BREAK * min(1.0, likelihood)


def deal(labels: Tensor, seed: int) -> Tensor:
    """Fold of each probe: the probes of a class are shuffled, and dealt on where the class before ended; int64 (n,)."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    order = torch.from_numpy(shuffled[np.argsort(labels.numpy()[shuffled], kind="stable")])
    folds = torch.empty_like(order)
    folds[order] = torch.arange(len(labels)) % FOLDS
    return folds


def held_out(features: Tensor, labels: Tensor, folds: Tensor) -> Tensor:
    """Log-probabilities of each probe by the regression fitted to the other folds, float64 (n, C).

    All regressions are fitted at once, as one problem in which they do not touch. The features are first written in the basis
    of their singular vectors, which is shorter where n < F and changes nothing: the penalty is the same in every basis.
    """
    moved = centred(features)
    left, singular, _ = torch.linalg.svd(moved, full_matrices=False)
    size = float(singular.norm()) / math.sqrt(moved.numel())
    x_NR: Floats = (left * singular / (size or 1.0)).numpy()
    x_NR = np.concatenate([x_NR, np.ones((len(x_NR), 1))], axis=1)
    num_classes = int(labels.max()) + 1
    truth_NC: Floats = np.eye(num_classes)[labels.numpy()]
    weights_KN: Floats = np.zeros((FOLDS, len(labels)))
    for fold in range(FOLDS):
        fitted = folds != fold
        weights_KN[fold, fitted] = class_weights(labels[fitted], num_classes)[labels[fitted]]
    shape = (FOLDS, x_NR.shape[1], num_classes)
    penalised = np.ones((1, shape[1], 1))
    penalised[:, -1] = 0  # the bias is free

    def objective(flat: Floats) -> tuple[float, Floats]:
        w_KRC = flat.reshape(shape)
        chances_KNC = log_softmax(x_NR @ w_KRC)
        loss = -float((weights_KN[..., None] * truth_NC * chances_KNC).sum()) + 0.5 * float((penalised * w_KRC**2).sum())
        slope_KNC = weights_KN[..., None] * (np.exp(chances_KNC) - truth_NC)
        return loss, (x_NR.T @ slope_KNC + penalised * w_KRC).ravel()

    start = np.zeros(math.prod(shape))
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS, "ftol": FLAT})
    chances_KNC = log_softmax(x_NR @ found.x.reshape(shape))
    return torch.from_numpy(chances_KNC[folds.numpy(), np.arange(len(labels))])


def log_softmax(logits: Floats) -> Floats:
    """Over the last axis."""
    moved = logits - logits.max(-1, keepdims=True)
    result: Floats = moved - np.log(np.exp(moved).sum(-1, keepdims=True))
    return result
