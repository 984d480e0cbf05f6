"""Sketches keep cosines of updates."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from client.modeldiff.sketch import sketch
from strategies.selection.sketches import similarity
from tests.client.modeldiff.helpers import model_of


def trained(initial: nn.Module, shared: float, seed: int) -> nn.Module:
    """An update whose cosine with that of another seed is ``shared``, in expectation."""
    model = copy.deepcopy(initial)
    common, own = (torch.Generator().manual_seed(s) for s in (0, seed))
    with torch.no_grad():
        for parameter in model.parameters():
            a, b = (torch.randn(parameter.shape, generator=g) for g in (common, own))
            parameter += 0.01 * (shared**0.5 * a + (1 - shared) ** 0.5 * b)
    return model


@pytest.mark.parametrize("shared", [0.0, 0.4, 0.8, 1.0])
def test_cosine_is_kept(shared: float) -> None:
    initial = model_of("image")
    a, b = (sketch(trained(initial, shared, seed), initial) for seed in (1, 2))
    assert a.nbytes == 2048
    assert similarity(a, b) == pytest.approx(shared, abs=0.12)  # 4 of 1 / sqrt(1024)
    assert similarity(a, b, same_modality=False) == pytest.approx(shared, abs=0.17)
    assert similarity(a, a) == pytest.approx(1.0)


def test_sums_of_positive_numbers_keep_the_cosine_too() -> None:
    initial, models = model_of("image"), []
    for seed in (1, 2):
        models.append(trained(initial, 0.0, seed))
        with torch.no_grad():
            for parameter, begun in zip(models[-1].parameters(), initial.parameters(), strict=True):
                parameter.copy_(begun + (parameter - begun).abs())
    a, b = (sketch(model, initial) for model in models)
    assert similarity(a, b) == pytest.approx(2 / torch.pi, abs=0.12)  # of two half-normal vectors


def test_across_modalities_backbones_alone_are_compared() -> None:
    image, text = model_of("image"), model_of("text")
    with torch.no_grad():
        for model in (image, text):
            for name, parameter in model.backbone.named_parameters():
                parameter += 0.01 * len(name)
    a, b = sketch(image, model_of("image")), sketch(trained_adapter(text), model_of("text"))
    assert similarity(a, b, same_modality=False) == pytest.approx(1.0, abs=1e-3)
    assert similarity(a, b) < 0.9


def trained_adapter(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in model.adapter.parameters():
            parameter += 0.5
    return model


def test_head_and_what_never_travels_are_left_out() -> None:
    initial = model_of("image", adaptive_k="prefix")
    model = trained(initial, 0.5, 1)
    before = sketch(model, initial)
    with torch.no_grad():
        for part in (model.head, model.adapter.gate):
            for parameter in part.parameters():
                parameter += 1.0
    assert np.array_equal(before, sketch(model, initial))


def test_seed_decides_places_and_signs() -> None:
    initial = model_of("image")
    model = trained(initial, 0.5, 1)
    assert abs(similarity(sketch(model, initial, seed=0), sketch(model, initial, seed=1))) < 0.2


def test_what_cannot_be_compared_is_refused() -> None:
    initial = model_of("image")
    with pytest.raises(ValueError, match=r"norm 0\.0, expected a finite number above 0"):
        sketch(initial, initial)
    with pytest.raises(ValueError, match="is not in the initial model: has it grown"):
        sketch(trained(model_of("text"), 0.0, 1), initial)
    a = sketch(trained(initial, 0.0, 1), initial)
    with pytest.raises(ValueError, match=r"shapes \(2, 512\) and \(2, 64\)"):
        similarity(a, a[:, :64])
    with pytest.raises(ValueError, match="NaN or infinite"):
        similarity(a, a * np.float16("nan"))
