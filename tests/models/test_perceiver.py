"""Perceiver in groups against perceiver-pytorch's own, dropout, and sizes by hand."""

from __future__ import annotations

import re

import perceiver_pytorch
import pytest
import torch
from torch import nn

from models.groups import Group, named_tensors
from models.perceiver import Perceiver
from models.size import count
from tests.models.helpers import MODALITIES, batch, tiny

SIZES = {"dim": 32, "latents": 6, "layers": 3, "heads": 4, "cross_heads": 2}


def theirs(tied: bool) -> nn.Module:
    return perceiver_pytorch.Perceiver(
        num_freq_bands=0, max_freq=1.0, depth=3, input_channels=32, input_axis=1, num_latents=6, latent_dim=32, cross_heads=2,
        latent_heads=4, cross_dim_head=16, latent_dim_head=8, num_classes=5, weight_tie_layers=tied, fourier_encode_data=False,
    ).eval()  # fmt: skip


def our_name(name: str, tied: bool) -> str:
    """Our name of one of their tensors; tied, their layers 1 and 2 are one."""
    if match := re.fullmatch(r"layers\.(\d)\.(.*)", name):
        layer, rest = min(int(match[1]), 1) if tied else int(match[1]), match[2]
        for theirs_, ours in (("cross_attn.norm_context.", "norm."), ("cross_attn.fn.to_kv.", "to_kv.")):
            if rest.startswith(theirs_):
                return f"adapter.readings.{layer}.{ours}{rest.removeprefix(theirs_)}"
        return f"backbone.layers.{layer}.{rest}"
    return {"to_logits.1": "head.norm", "to_logits.2": "head.classifier"}.get(name[:11], "backbone." + name[:11]) + name[11:]


def copy_weights(source: nn.Module, target: nn.Module, tied: bool) -> None:
    """Copy our weights to theirs; all of theirs are written and all of ours, front end apart, are read."""
    own = dict(source.state_dict())
    names = {name: our_name(name, tied) for name in target.state_dict()}
    target.load_state_dict({name: own[found] for name, found in names.items()})
    assert {name for name in own if not name.startswith("adapter.front.")} == set(names.values())


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("modality", MODALITIES)
def test_output_equals_the_package(modality: str, tied: bool) -> None:
    torch.manual_seed(0)
    model, reference = tiny(modality, name="perceiver", tie_layers=tied, **SIZES).eval(), theirs(tied)
    assert isinstance(model, Perceiver)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)  # biases and norms away from 0 and 1
    copy_weights(model, reference, tied)
    inputs = batch(modality)
    x_BND, mask_BN, _ = model.adapter.front(inputs)
    assert (mask_BN is None) == (modality != "text")
    assert mask_BN is None or not mask_BN.all()
    with torch.no_grad():
        trace = model.trace(inputs)
        logits, stages = reference(x_BND, mask=mask_BN, return_hiddens=True)
    assert len(trace.latents) == len(stages) - 1 == 3  # theirs begin with the learned latents
    for found, expected in zip(trace.latents, stages[1:], strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(trace.logits, logits, rtol=0, atol=1e-5)


def test_dropout_is_in_attention_and_feed_forward() -> None:
    model = tiny("image", name="perceiver", dropout=0.25)
    rates = {name: module.p for name, module in model.named_modules() if isinstance(module, nn.Dropout)}
    assert set(rates.values()) == {0.25}
    assert {name.partition(".layers.0.")[2] for name in rates if ".layers.0." in name} == {
        "cross_attn.fn.dropout",
        "cross_ff.fn.net.3",
        "self_attns.0.0.fn.dropout",
        "self_attns.0.1.fn.net.3",
    }
    assert not torch.equal(model(batch("image")), model(batch("image")))


@pytest.mark.parametrize(("tied", "blocks"), [(False, 3), (True, 2)])
def test_sizes_by_hand(tied: bool, blocks: int) -> None:
    # D = 32, M = 6, L = 3, 5 classes; a feed-forward block is LN, 32 -> 2 x 128, 128 -> 32.
    norm, square = 64, 1024
    feed_forward = norm + (32 * 256 + 256) + (128 * 32 + 32)
    cross, own = norm + square + (square + 32), norm + 3 * square + (square + 32)
    sizes = count(tiny("image", name="perceiver", tie_layers=tied, **SIZES))
    assert sizes[Group.BACKBONE] == 6 * 32 + blocks * (cross + own + 2 * feed_forward)
    assert sizes[Group.ADAPTER] == (60 * 32 + 32) + blocks * (norm + 2 * square)
    assert sizes[Group.HEAD] == norm + (32 * 5 + 5)


def test_input_side_of_every_block_is_the_adapters_alone() -> None:
    names = named_tensors(tiny("text", name="perceiver"))
    wrong = re.compile(r"backbone\..*(norm_context|cross_attn\.fn\.to_kv).*")
    assert not [name for name in names if wrong.fullmatch(name)]
    assert len([name for name in names if name.endswith("to_kv.weight") and name.startswith("adapter.")]) == 2
