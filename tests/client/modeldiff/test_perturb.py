"""Perturbed copies stay within their bounds, move the outputs further than chance, and stand behind their originals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from client.modeldiff.embeddings import embedding_module
from client.modeldiff.outputs import outputs
from client.modeldiff.perturb import directions, hill_climb, mutate_tokens, other_words, pgd_embeddings, pgd_images
from client.modeldiff.probes import Probes
from tests.client.modeldiff.helpers import CPU, model_of, probes_of


def moved(model: nn.Module, probes: Probes) -> Tensor:
    """How far the copies' logits are from those of the originals."""
    logits = outputs(model, probes, CPU).logits
    return (logits[probes.pairs[:, 1]] - logits[probes.pairs[:, 0]]).norm(dim=1)


def along(model: nn.Module, before: Probes, after: Probes) -> Tensor:
    """How far the copies' logits went into the direction that is searched in."""
    logits = outputs(model, after, CPU).logits
    return ((logits[len(before) :] - logits[: len(before)]) * directions(model, before)).sum(dim=1)


@pytest.mark.parametrize("kind", [torch.float32, torch.uint8])
def test_gradients_change_images_within_eps(kind: torch.dtype) -> None:
    model = model_of("image")
    probes = probes_of(model, "image")
    if kind == torch.uint8:
        probes = Probes((probes.inputs * 255).to(kind), probes.labels, probes.pairs)
    pairs = pgd_images(model, probes, eps=0.1, steps=8, step_size=0.03, seed=0)
    change = pairs.inputs[10:] - pairs.inputs[:10]
    assert pairs.inputs.dtype == torch.float32
    assert 0.09 < float(change.abs().max()) <= 0.1 + 1e-6
    assert float(pairs.inputs.min()) >= 0
    assert float(pairs.inputs.max()) <= 1
    assert pairs.pairs.tolist() == [[i, 10 + i] for i in range(10)]
    assert torch.equal(pairs.labels, probes.labels.repeat(2))
    noise = pgd_images(model, probes, eps=0.1, steps=0, seed=0)
    assert (along(model, probes, pairs) > along(model, probes, noise)).all()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(pairs.inputs, pgd_images(model, probes, eps=0.1, steps=8, step_size=0.03, seed=0).inputs)


def test_gradients_change_embeddings_within_eps() -> None:
    model = model_of("text")
    probes = probes_of(model, "text")
    pairs = pgd_embeddings(model, probes, eps=0.5, steps=8, step_size=0.1, seed=0)
    assert pairs.offsets is not None
    assert torch.equal(pairs.inputs, probes.inputs.repeat(2, 1))
    assert not pairs.offsets[:10].any()
    assert 0.4 < float(pairs.offsets.abs().max()) <= 0.5 + 1e-6
    assert not pairs.offsets[10:][probes.inputs == 0].any()
    noise = pgd_embeddings(model, probes, eps=0.5, steps=0, seed=0)
    assert noise.offsets is not None
    assert not noise.offsets[10:][probes.inputs == 0].any()
    assert (along(model, probes, pairs) > along(model, probes, noise)).all()
    assert not embedding_module(model)._forward_hooks
    assert moved(model_of("text", seed=1), pairs).min() > 0  # a donor's own adapter takes the same offsets


def test_words_are_replaced_by_other_words_and_padding_stays() -> None:
    probes = probes_of(model_of("text"), "text")
    pairs = mutate_tokens(probes, share=0.0, seed=0)
    before, after = pairs.inputs[:10], pairs.inputs[10:]
    assert ((before != after).sum(dim=1) == 1).all()
    assert torch.equal(before == 0, after == 0)
    every = mutate_tokens(probes, share=1.0, seed=0).inputs[10:]
    assert torch.equal(every != before, before != 0)
    assert set(every.unique().tolist()) <= set(before.unique().tolist())
    assert torch.equal(after, mutate_tokens(probes, share=0.0, seed=0).inputs[10:])
    assert not torch.equal(after, mutate_tokens(probes, share=0.0, seed=1).inputs[10:])


def test_texts_of_one_word_are_refused() -> None:
    tokens = torch.tensor([[3, 3, 0], [3, 0, 0]])
    with pytest.raises(ValueError, match="found 1 different words in 2 texts"):
        other_words(tokens, tokens != 0, torch.Generator())


@pytest.mark.parametrize("modality", ["image", "text"])
def test_climbing_moves_outputs_further_with_more_steps(modality: str) -> None:
    model = model_of(modality)
    probes = probes_of(model, modality)
    few, many = (hill_climb(model, probes, eps=0.2, share=0.05, steps=steps, seed=0) for steps in (1, 30))
    assert float(moved(model, many).mean()) > 1.5 * float(moved(model, few).mean()) > 0
    before, after = many.inputs[:10], many.inputs[10:]
    if modality == "image":
        assert float((after - before).abs().max()) <= 0.2 + 1e-6
        assert float(after.min()) >= 0
        assert float(after.max()) <= 1
    else:
        assert torch.equal(before == 0, after == 0)
    assert torch.equal(before, probes.inputs)


def test_texts_are_no_images() -> None:
    model = model_of("text")
    with pytest.raises(ValueError, match=r"inputs have shape \(10, 10\), expected images"):
        pgd_images(model, probes_of(model, "text"))
