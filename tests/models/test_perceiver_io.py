"""Perceiver IO in groups against perceiver-pytorch's own, and sizes by hand."""

from __future__ import annotations

import perceiver_pytorch
import pytest
import torch
from torch import nn

from models.groups import Group, named_tensors
from models.perceiver_io import PerceiverIO
from models.size import count
from tests.models.helpers import MODALITIES, batch, tiny

SIZES = {"dim": 32, "latents": 6, "layers": 3, "heads": 4, "cross_heads": 2}
RENAMED = {
    "latents": "backbone.latents",
    "cross_attend_block.cross_attn.norm_context.": "adapter.norm.",
    "cross_attend_block.cross_attn.fn.to_kv.": "adapter.to_kv.",
    "cross_attend_block.": "backbone.encoder.",
    "layers.": "backbone.layers.",
    "decoder_cross_attn.": "head.decoder.",
    "to_logits.": "head.classifier.",
}


def theirs(tied: bool) -> nn.Module:
    return perceiver_pytorch.PerceiverIO(
        depth=3, dim=32, queries_dim=32, logits_dim=5, num_latents=6, latent_dim=32, cross_heads=2, latent_heads=4,
        cross_dim_head=16, latent_dim_head=8, weight_tie_layers=tied,
    ).eval()  # fmt: skip


def copy_weights(source: nn.Module, target: nn.Module, tied: bool) -> None:
    """Copy our weights to theirs; all of theirs are written and all of ours, front end and query apart, are read."""
    own = dict(source.state_dict())
    weights, read = {}, set()
    for name in target.state_dict():
        prefix = next(prefix for prefix in RENAMED if name.startswith(prefix))
        found = RENAMED[prefix] + name.removeprefix(prefix)
        if tied and found.startswith("backbone.layers."):
            found = "backbone.layers.0." + found.split(".", 3)[3]
        weights[name] = own[found]
        read.add(found)
    target.load_state_dict(weights)
    assert {name for name in own if not name.startswith("adapter.front.")} - read == {"head.queries"}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("modality", MODALITIES)
def test_output_equals_the_package(modality: str, tied: bool) -> None:
    torch.manual_seed(0)
    model, reference = tiny(modality, name="perceiver-io", tie_layers=tied, **SIZES).eval(), theirs(tied)
    assert isinstance(model, PerceiverIO)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)  # biases and norms away from 0 and 1
    copy_weights(model, reference, tied)
    inputs = batch(modality)
    x_BND, mask_BN, _ = model.adapter.front(inputs)
    assert (mask_BN is None) == (modality != "text")
    assert mask_BN is None or not mask_BN.all()
    with torch.no_grad():
        trace = model.trace(inputs)
        logits, stages = reference(x_BND, mask=mask_BN, queries=model.head.queries, return_hiddens=True)
    assert len(trace.latents) == len(stages) == 4
    for found, expected in zip(trace.latents, stages, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(trace.logits, logits[:, 0], rtol=0, atol=1e-5)


def test_sizes_by_hand() -> None:
    # D = 32, M = 6, L = 3, 5 classes; a feed-forward block is LN, 32 -> 2 x 128, 128 -> 32.
    norm, square = 64, 1024
    feed_forward = norm + (32 * 256 + 256) + (128 * 32 + 32)
    encoder = norm + square + (square + 32) + feed_forward
    block = norm + 3 * square + (square + 32) + feed_forward
    sizes = count(tiny("image", name="perceiver-io", **SIZES))
    assert sizes[Group.BACKBONE] == 6 * 32 + encoder + 3 * block == 65_472
    assert sizes[Group.ADAPTER] == (60 * 32 + 32) + norm + 2 * square
    assert sizes[Group.HEAD] == 32 + (2 * norm + 4 * square + 32) + (32 * 5 + 5)


def test_input_side_of_the_encoder_is_the_adapters_alone() -> None:
    names = named_tensors(tiny("text", name="perceiver-io"))
    assert not [name for name in names if name.startswith("backbone.encoder") and ("context" in name or "to_kv" in name)]


def test_runs_without_layers() -> None:
    assert len(tiny("text", name="perceiver-io", layers=0).trace(batch("text")).latents) == 1
    assert len(tiny("text", name="perceiver-io", layers=0, tie_layers=True).trace(batch("text")).latents) == 1
