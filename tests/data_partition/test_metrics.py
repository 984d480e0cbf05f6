from __future__ import annotations

import pytest
import torch

from data_partition.metrics import balanced_accuracy, class_weights


def test_balanced_accuracy_by_hand():
    # class 0: 1 of 4 right, class 1: 1 of 1, class 2: 1 of 2; class 3 is absent and does not count
    labels = torch.tensor([0, 0, 0, 0, 1, 2, 2])
    predictions = torch.tensor([0, 1, 2, 3, 1, 2, 0])
    assert balanced_accuracy(predictions, labels, 4) == pytest.approx((0.25 + 1 + 0.5) / 3)


def test_always_the_largest_class_is_chance():
    assert balanced_accuracy(torch.zeros(10, dtype=torch.int64), torch.tensor([0] * 9 + [1]), 2) == 0.5


def test_balanced_accuracy_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="expected one shape"):
        balanced_accuracy(torch.tensor([]), torch.tensor([]), 2)


def test_class_weights_by_hand():
    labels = torch.tensor([0, 0, 0, 2])
    weights = class_weights(labels, 3)
    assert weights.tolist() == pytest.approx([2 / 3, 0.0, 2.0])
    assert weights[labels].mean().item() == pytest.approx(1.0)
    assert weights.dtype == torch.float32
