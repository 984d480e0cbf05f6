"""With ``low_rank = none`` and copied weights, Linceiver IO is perceiver-pytorch's PerceiverIO."""

from __future__ import annotations

import perceiver_pytorch
import pytest
import torch
from torch import Tensor, nn

from models.adapters import Adapter
from models.front_ends import TextFrontEnd
from models.linceiver import Backbone, Head, LinceiverIO

DIM, CROSS_HEADS, CROSS_DIM_HEAD, HEADS, DIM_HEAD, LAYERS, CLASSES = 32, 1, 64, 4, 16, 2, 7


def ours(queries: int, decoder_ff: bool) -> LinceiverIO:
    inner = CROSS_HEADS * CROSS_DIM_HEAD
    cross = {"cross_heads": CROSS_HEADS, "cross_dim_head": CROSS_DIM_HEAD, "ff_mult": 4, "feed_forward": "geglu"}
    backbone = Backbone(DIM, latents=6, layers=LAYERS, heads=HEADS, dim_head=DIM_HEAD, **cross)
    head = Head(DIM, CLASSES, queries=queries, latent_mean="none", decoder_ff=decoder_ff, **cross)
    return LinceiverIO(Adapter(TextFrontEnd(DIM, vocab_size=30, max_tokens=9), DIM, inner), backbone, head).eval()


def theirs(decoder_ff: bool) -> nn.Module:
    return perceiver_pytorch.PerceiverIO(
        depth=LAYERS, dim=DIM, queries_dim=DIM, logits_dim=CLASSES, num_latents=6, latent_dim=DIM, cross_heads=CROSS_HEADS,
        latent_heads=HEADS, cross_dim_head=CROSS_DIM_HEAD, latent_dim_head=DIM_HEAD, decoder_ff=decoder_ff,
    ).eval()  # fmt: skip


def copy_weights(source: LinceiverIO, target: nn.Module) -> None:
    """Copy our weights to theirs; every tensor of theirs must be written."""
    own = source.state_dict()
    names = {
        "latents": "backbone.latents",
        "cross_attend_block.cross_attn.norm.": "backbone.norm.",
        "cross_attend_block.cross_attn.norm_context.": "adapter.norm.",
        "cross_attend_block.cross_attn.fn.to_q.": "backbone.to_q.",
        "cross_attend_block.cross_attn.fn.to_kv.": "adapter.to_kv.",
        "cross_attend_block.cross_attn.fn.to_out.": "backbone.to_out.",
        "cross_attend_block.cross_ff.norm.": "backbone.ff.norm.",
        "cross_attend_block.cross_ff.fn.net.0.": "backbone.ff.up.",
        "cross_attend_block.cross_ff.fn.net.2.": "backbone.ff.down.",
        "decoder_cross_attn.norm.": "head.norm_q.",
        "decoder_cross_attn.norm_context.": "head.norm.",
        "decoder_cross_attn.fn.to_q.": "head.to_q.",
        "decoder_cross_attn.fn.to_kv.": "head.to_kv.",
        "decoder_cross_attn.fn.to_out.": "head.to_out.",
        "decoder_ff.norm.": "head.ff.norm.",
        "decoder_ff.fn.net.0.": "head.ff.up.",
        "decoder_ff.fn.net.2.": "head.ff.down.",
        "to_logits.": "head.classifier.",
    }
    for layer in range(LAYERS):
        block = f"layers.{layer}.self_attns.0."
        names |= {
            f"{block}0.norm.": f"backbone.layers.{layer}.attn.norm.",
            f"{block}0.fn.to_out.": f"backbone.layers.{layer}.attn.out.",
            f"{block}1.norm.": f"backbone.layers.{layer}.ff.norm.",
            f"{block}1.fn.net.0.": f"backbone.layers.{layer}.ff.up.",
            f"{block}1.fn.net.2.": f"backbone.layers.{layer}.ff.down.",
        }
        qkv = own[f"backbone.layers.{layer}.attn.qkv.weight"]
        own[f"q{layer}"], own[f"kv{layer}"] = qkv[: HEADS * DIM_HEAD], qkv[HEADS * DIM_HEAD :]
        names |= {f"{block}0.fn.to_q.weight": f"q{layer}", f"{block}0.fn.to_kv.weight": f"kv{layer}"}
    weights: dict[str, Tensor] = {}
    for name in target.state_dict():
        prefix = next(prefix for prefix in names if name.startswith(prefix))
        weights[name] = own[names[prefix] + name.removeprefix(prefix)]
    target.load_state_dict(weights)


@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("decoder_ff", [False, True])
@pytest.mark.parametrize("padding", [False, True])
def test_output_equals_perceiver_io(queries: int, decoder_ff: bool, padding: bool) -> None:
    torch.manual_seed(0)
    model, reference = ours(queries, decoder_ff), theirs(decoder_ff)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)  # biases and norms away from 0 and 1
    copy_weights(model, reference)
    ids = torch.randint(1, 30, (5, 9))
    if padding:
        ids[0, 4:] = 0
        ids[1, 1:] = 0
    x_BND, mask_BN, _ = model.adapter.front(ids)
    assert mask_BN is not None
    assert bool(mask_BN.all()) is not padding
    with torch.no_grad():
        trace = model.trace(ids)
        expected = reference(x_BND, mask=mask_BN if padding else None, queries=model.head.queries)
        latents = reference(x_BND, mask=mask_BN if padding else None)
    torch.testing.assert_close(trace.latents[-1], latents, rtol=0, atol=1e-5)
    torch.testing.assert_close(trace.logits, expected.mean(dim=1), rtol=0, atol=1e-5)
