"""Linceiver IO as a whole: padding, gradients, training, trace."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from models.linceiver import LinceiverIO
from models.trace import Trace
from tests.models.helpers import LOW_RANKS, MODALITIES, batch, tiny


@pytest.mark.parametrize("low_rank", LOW_RANKS)
@pytest.mark.parametrize("length", [1, 3, 9])
def test_padding_does_not_change_the_output(low_rank: str, length: int) -> None:
    model = tiny("text", low_rank).eval()
    ids = torch.randint(1, 30, (4, length), generator=torch.Generator().manual_seed(0))
    padded = F.pad(ids, (0, 12 - length))
    mixed = torch.cat([padded, torch.full((1, 12), 7)])
    with torch.no_grad():
        torch.testing.assert_close(model(padded), model(ids), rtol=0, atol=1e-5)
        torch.testing.assert_close(model(mixed)[:4], model(ids), rtol=0, atol=1e-5)


@pytest.mark.parametrize("low_rank", LOW_RANKS)
def test_all_padding_is_finite(low_rank: str) -> None:
    model = tiny("text", low_rank)
    ids = batch("text")
    ids[1] = 0
    logits = model(ids)
    logits.sum().backward()
    assert torch.isfinite(logits).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("low_rank", LOW_RANKS)
def test_gradient_reaches_every_parameter(modality: str, low_rank: str) -> None:
    model = tiny(modality, low_rank)
    F.cross_entropy(model(batch(modality, 8)), torch.arange(8) % 5).backward()
    unreached = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert unreached == []


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("low_rank", LOW_RANKS)
def test_loss_falls_on_a_toy_problem(modality: str, low_rank: str) -> None:
    torch.manual_seed(0)
    model = tiny(modality, low_rank, dropout=0.0)
    labels = torch.arange(20) % 5
    if modality == "image":  # the class is the row of patches that is bright
        inputs = 0.3 * torch.rand(20, 3, 16, 16)
        for i, label in enumerate(labels):
            inputs[i, :, 3 * label : 3 * label + 3] += 0.6
    elif modality == "series":  # the class is the stretch of time that is high
        inputs = torch.randn(20, 6, 48)
        for i, label in enumerate(labels):
            inputs[i, :, 8 * label : 8 * label + 8] += 2
    else:  # the class is one word among others
        inputs = torch.randint(10, 30, (20, 6))
        inputs[:, 2] = labels + 1
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = F.cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_uint8_images_equal_float_images() -> None:
    model = tiny("image").eval()
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    torch.testing.assert_close(model(pixels), model(pixels.float() / 255), rtol=0, atol=1e-5)


def test_patches_are_in_row_order() -> None:
    model = tiny("image")
    assert isinstance(model, LinceiverIO)
    image = torch.zeros(1, 3, 16, 16)
    before, _, grid = model.adapter.front(image)
    image[0, :, 4:8, 8:12] = 1.0  # second row of patches, third column
    after, mask, _ = model.adapter.front(image)
    changed = (after != before).any(dim=-1)[0].nonzero().flatten().tolist()
    assert (grid, mask, changed) == ((4, 4), None, [6])


@pytest.mark.parametrize("modality", MODALITIES)
def test_trace(modality: str) -> None:
    model = tiny(modality).eval()
    assert isinstance(model, LinceiverIO)
    trace = model.trace(batch(modality))
    assert isinstance(trace, Trace)
    assert [latents.shape for latents in trace.latents] == [(4, 8, 64)] * 3
    assert trace.queries.shape[:2] == (4, 1)
    assert torch.equal(trace.logits, model(batch(modality)))


def test_errors_say_what_was_found() -> None:
    with pytest.raises(ValueError, match="18 x 16 pixels"):
        tiny("image")(torch.zeros(1, 3, 18, 16))
    with pytest.raises(ValueError, match="13 tokens, but the model has 12"):
        tiny("text")(torch.ones(1, 13, dtype=torch.long))


@pytest.mark.parametrize("modality", MODALITIES)
def test_runs_without_layers_and_with_geglu(modality: str) -> None:
    assert tiny(modality, layers=0, feed_forward="geglu")(batch(modality)).shape == (4, 5)
