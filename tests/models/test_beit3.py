"""The Multiway transformer against blocks of PyTorch, padding, dropout, and sizes by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.beit3 import BEiT3
from models.groups import Group, get_tensors, group_names, named_tensors, set_tensors
from models.size import count
from tests.models.helpers import MODALITIES, batch, tiny

SIZES = {"dim": 32, "layers": 3, "heads": 4, "ff_mult": 2}


def torch_layer(model: nn.Module, i: int) -> nn.TransformerEncoderLayer:
    """PyTorch's own pre-norm block with the weights of one of ours."""
    own = model.state_dict()
    layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
    layer.load_state_dict(
        {
            "self_attn.in_proj_weight": own[f"backbone.layers.{i}.qkv.weight"],
            "self_attn.in_proj_bias": torch.zeros(96),
            "self_attn.out_proj.weight": own[f"backbone.layers.{i}.out.weight"],
            "self_attn.out_proj.bias": own[f"backbone.layers.{i}.out.bias"],
            "norm1.weight": own[f"adapter.experts.{i}.norm.weight"],
            "norm1.bias": own[f"adapter.experts.{i}.norm.bias"],
            "norm2.weight": own[f"adapter.experts.{i}.ff.norm.weight"],
            "norm2.bias": own[f"adapter.experts.{i}.ff.norm.bias"],
            "linear1.weight": own[f"adapter.experts.{i}.ff.up.weight"],
            "linear1.bias": own[f"adapter.experts.{i}.ff.up.bias"],
            "linear2.weight": own[f"adapter.experts.{i}.ff.down.weight"],
            "linear2.bias": own[f"adapter.experts.{i}.ff.down.bias"],
        }
    )
    return layer  # in training mode, as its fast path would replace padding by zeros


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("tied", [False, True])
def test_output_equals_blocks_of_pytorch(modality: str, tied: bool) -> None:
    torch.manual_seed(0)
    model = tiny(modality, name="beit3", tie_layers=tied, **SIZES).eval()
    assert isinstance(model, BEiT3)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)  # biases and norms away from 0 and 1
    inputs = batch(modality)
    x_BND, mask_BN, _ = model.adapter.front(inputs)
    real_BN = torch.ones(x_BND.shape[:2], dtype=torch.bool) if mask_BN is None else mask_BN
    assert bool(real_BN.all()) == (modality != "text")
    with torch.no_grad():
        trace = model.trace(inputs)
        stages = [x_BND]
        for i in range(3):
            stages.append(torch_layer(model, 0 if tied else i)(stages[-1], src_key_padding_mask=~real_BN))
        normalised = model.head.norm(stages[-1])
        means = torch.stack([tokens[real].mean(dim=0) for tokens, real in zip(normalised, real_BN, strict=True)])
    for found, expected in zip(trace.latents, stages, strict=True):
        torch.testing.assert_close(found[real_BN], expected[real_BN], rtol=0, atol=1e-5)
    torch.testing.assert_close(trace.logits, model.head.classifier(means), rtol=0, atol=1e-5)


def test_a_text_of_padding_alone_is_read_as_nothing() -> None:
    model = tiny("text", name="beit3").eval()
    for length in (1, 7):
        found = model(torch.zeros(2, length, dtype=torch.long))
        torch.testing.assert_close(found, model.head.classifier.bias.expand(2, -1))


def test_self_attention_is_shared_and_nothing_else() -> None:
    image, text = (tiny(modality, name="beit3") for modality in ("image", "text"))
    assert group_names(image, Group.BACKBONE) == [
        f"backbone.layers.{i}.{name}" for i in range(2) for name in ("qkv.weight", "out.weight", "out.bias")
    ]
    experts = [name for name in named_tensors(image) if name.startswith("adapter.experts.")]
    assert len(experts) == 2 * (2 + 6)
    assert experts == [name for name in named_tensors(text) if name.startswith("adapter.experts.")]
    assert not torch.equal(image.get_parameter(experts[4]), text.get_parameter(experts[4]))


def test_every_block_reads_its_own_expert() -> None:
    model, inputs = tiny("text", name="beit3", **SIZES).eval(), batch("text")
    before = model.trace(inputs).latents
    for i in range(3):
        name = f"adapter.experts.{i}.ff.down.bias"
        kept = get_tensors(model, [name])
        set_tensors(model, {name: kept[name] + 1})
        changed = [not torch.equal(old, new) for old, new in zip(before, model.trace(inputs).latents, strict=True)]
        assert changed == [False] * (i + 1) + [True] * (3 - i)
        set_tensors(model, kept)


def test_dropout_and_feed_forward_are_those_of_the_settings() -> None:
    model = tiny("image", name="beit3", dropout=0.25, feed_forward="geglu", ff_mult=3)
    rates = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    assert rates == [0.25] * 4
    assert model.get_parameter("adapter.experts.0.ff.up.weight").shape == (2 * 3 * 64, 64)
    assert not torch.equal(model(batch("image")), model(batch("image")))
    for expert in model.adapter.experts:
        expert.ff.dropout.p = 0.0  # what is left is that of the shared attention
    assert not torch.equal(model(batch("image")), model(batch("image")))


@pytest.mark.parametrize(("tied", "blocks"), [(False, 3), (True, 1)])
def test_sizes_by_hand(tied: bool, blocks: int) -> None:
    # D = 32, L = 3, 5 classes; a feed-forward block is LN, 32 -> 64, 64 -> 32.
    norm, square = 64, 1024
    sizes = count(tiny("image", name="beit3", tie_layers=tied, **SIZES))
    assert sizes[Group.BACKBONE] == blocks * (4 * square + 32)
    assert sizes[Group.ADAPTER] == (60 * 32 + 32) + blocks * (2 * norm + (32 * 64 + 64) + (64 * 32 + 32))
    assert sizes[Group.HEAD] == norm + (32 * 5 + 5)
