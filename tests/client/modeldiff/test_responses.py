"""Responses to common probes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from client.modeldiff.responses import common_probes, response_sketch
from strategies.selection.sketches import similarity
from tests.client.modeldiff.helpers import CPU, model_of

SIZES = {"side": 16, "vocab_size": 30, "max_tokens": 10, "shape": (6, 40)}


@pytest.mark.parametrize("modality", ["image", "text", "series"])
def test_probes_depend_on_the_seed_alone(modality: str) -> None:
    first, again, other = (common_probes(modality, seed=seed, **SIZES) for seed in (0, 0, 1))
    assert torch.equal(first.inputs, again.inputs)
    assert torch.equal(first.pairs, again.pairs)
    assert not torch.equal(first.inputs, other.inputs)
    if modality == "text":
        assert set(torch.unique(first.inputs).tolist()) == {0, *range(5, 30)}
        assert ((first.inputs != 0).sum(dim=1) >= 3).all()
        assert ((first.inputs == 0).int().diff(dim=1) >= 0).all()  # padding is on the right


@pytest.mark.parametrize("modality", ["image", "text", "series"])
def test_sketch_tells_models_apart_and_fits_two_kilobytes(modality: str) -> None:
    model, other = model_of(modality), model_of(modality, seed=1)
    probes = common_probes(modality, **SIZES)
    a, b = (response_sketch(m, probes, CPU) for m in (model, other))
    assert a.nbytes <= 2048
    assert similarity(a, a) == pytest.approx(1.0)
    assert similarity(a, b) < 0.9


def test_order_of_classes_does_not_matter() -> None:
    model = model_of("text")
    shuffled = copy.deepcopy(model)
    with torch.no_grad():
        shuffled.head.classifier.weight.copy_(model.head.classifier.weight.flip(0))
    probes = common_probes("text", **SIZES)
    assert np.array_equal(response_sketch(model, probes, CPU), response_sketch(shuffled, probes, CPU))


def test_similarity_by_hand() -> None:
    a = np.array([0.0, 1.0, 2.0], np.float16)
    assert similarity(a, a * 2 + 1) == pytest.approx(1.0)
    assert similarity(a, a[::-1]) == pytest.approx(-1.0)
    assert similarity(a, np.ones(3, np.float16)) == 0.0


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shapes \(3,\) and \(2,\)"):
        similarity(np.ones(3, np.float16), np.ones(2, np.float16))
    with pytest.raises(ValueError, match="expected finite ones"):
        similarity(np.full(3, np.nan, np.float16), np.ones(3, np.float16))
    with pytest.raises(ValueError, match="found modality 'text' with 3 token ids and 10 tokens"):
        common_probes("text", vocab_size=3, max_tokens=10)
