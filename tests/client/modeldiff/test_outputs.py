"""Outputs on probes: features are the mean of the last latents, padding never counts, offsets go away with their hook."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from client.modeldiff import outputs as module
from client.modeldiff.embeddings import embedding_module, embedding_rms, shifted
from client.modeldiff.outputs import outputs
from config import Model
from models.factory import build_model
from tests.client.modeldiff.helpers import CASES, CPU, model_of, probes_of
from tests.models.helpers import save_bert


@pytest.mark.parametrize(("name", "modality"), CASES)
def test_features_and_logits(name: str, modality: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(modality, name)
    probes = probes_of(model, modality)
    model.train()  # dropout must be off all the same
    monkeypatch.setattr(module, "BATCH", 4)
    found = outputs(model, probes, CPU)
    with torch.no_grad():
        trace = model.trace(probes.inputs)
    assert torch.allclose(found.logits, trace.logits, atol=1e-5)
    assert found.features.shape[0] == 10
    if name != "beit3":
        assert torch.allclose(found.features, trace.latents[-1].mean(dim=1), atol=1e-5)


def test_padding_does_not_count() -> None:
    model = model_of("text", "beit3")
    probes = probes_of(model, "text")
    longer = replace(probes, inputs=torch.cat([probes.inputs, torch.zeros(10, 2, dtype=torch.long)], dim=1))
    assert torch.allclose(outputs(model, probes, CPU).features, outputs(model, longer, CPU).features, atol=1e-5)


def test_a_scorer_may_train_on_outputs() -> None:
    model = model_of("image")
    probe = nn.Linear(32, 5)
    probe(outputs(model, probes_of(model, "image"), CPU).features).sum().backward()
    assert probe.weight.grad is not None


def test_outputs_that_are_not_finite_are_refused() -> None:
    model = model_of("image")
    with torch.no_grad():
        model.head.classifier.bias[0] = float("nan")
    with pytest.raises(FloatingPointError, match="10 of 50 logits are NaN"):
        outputs(model, probes_of(model, "image"), CPU)


def test_offsets_are_in_units_of_each_models_own_embeddings() -> None:
    model = model_of("text")
    probes = probes_of(model, "text")
    offsets = torch.zeros(10, 10, 32)
    offsets[:, 0] = 0.5
    found = outputs(model, replace(probes, offsets=offsets), CPU)
    scale = embedding_rms(model, probes.inputs)
    with torch.no_grad():
        by_hand = model.adapter.front.embed.weight[probes.inputs]
        words = by_hand[probes.inputs != 0]
        assert scale == pytest.approx(float(words.square().mean().sqrt()))
        first = probes.inputs[:, 0].unique()
        assert not torch.allclose(found.logits, model(probes.inputs))
    # The first word of every text is changed by hand; a text with that word elsewhere is another text.
    alone = torch.tensor([int(sum((text == word).any() for word in first)) == 1 for text in probes.inputs])
    with torch.no_grad():
        model.adapter.front.embed.weight[first] += 0.5 * scale
        assert alone.any()
        assert torch.allclose(found.logits[alone], model(probes.inputs)[alone], atol=1e-5)


def test_hook_is_removed_after_an_error() -> None:
    model = model_of("text")
    inputs = probes_of(model, "text").inputs
    with (
        pytest.raises(ValueError, match=r"offsets have shape \(10, 10, 3\), expected"),
        shifted(model, torch.zeros(10, 10, 3)),
    ):
        model(inputs)
    assert not embedding_module(model)._forward_hooks


def test_images_have_no_words() -> None:
    with pytest.raises(ValueError, match="the front end is ImageFrontEnd"):
        embedding_module(model_of("image"))


def test_frozen_embeddings_are_those_that_are_shifted(tmp_path: Path) -> None:
    save_bert(tmp_path, 30, 12, 24)
    settings = Model(dim=32, embedding_dir=str(tmp_path))
    model = build_model(settings, "text", 5, vocab_size=30, max_tokens=12, seed=0)
    assert embedding_module(model) is model.frozen
    probes = replace(probes_of(model, "text"), offsets=torch.full((10, 10, 24), 0.3))
    shifted_logits = outputs(model, probes, CPU).logits
    assert not torch.allclose(shifted_logits, outputs(model, replace(probes, offsets=None), CPU).logits)
