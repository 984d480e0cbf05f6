"""The base-to-novel protocol, by hand."""

from __future__ import annotations

import pytest
import torch

from data_partition.base_novel import base_classes, base_rows, harmonic_mean, scores


def test_harmonic_mean_by_hand():
    assert harmonic_mean(0.8, 0.4) == pytest.approx(2 * 0.32 / 1.2)
    assert harmonic_mean(0.5, 0.5) == pytest.approx(0.5)
    assert harmonic_mean(0.0, 0.9) == harmonic_mean(0.0, 0.0) == 0.0


def test_each_half_competes_with_its_own_classes_alone():
    logits = torch.tensor(
        [
            [1.0, 0.0, 9.0, 0.0],  # class 0: right among the base classes, wrong among all
            [0.0, 2.0, 0.0, 0.0],  # class 0: wrong
            [0.0, 2.0, 0.0, 0.0],  # class 1: right
            [9.0, 0.0, 1.0, 0.0],  # class 2: right among the novel classes, wrong among all
            [0.0, 0.0, 1.0, 0.0],  # class 3: wrong
        ]
    )
    found = scores(logits, torch.tensor([0, 0, 1, 2, 3]), base=2)
    assert found["base"] == pytest.approx((0.5 + 1.0) / 2)
    assert found["novel"] == pytest.approx((1.0 + 0.0) / 2)
    assert found["harmonic-mean"] == pytest.approx(2 * 0.75 * 0.5 / 1.25)
    assert found["balanced-accuracy"] == pytest.approx((0.0 + 1.0 + 0.0 + 0.0) / 4)
    assert found["num-examples"] == 5


def test_rows_of_base_classes():
    assert base_rows(torch.tensor([3, 0, 2, 1, 0]), 2).tolist() == [1, 3, 4]


@pytest.mark.parametrize(("classes", "share"), [(3, 0.5), (4, 0.2), (4, 0.8)])
def test_both_halves_need_two_classes(classes, share):
    with pytest.raises(ValueError, match="expected 2 or more of both"):
        base_classes(classes, share)
