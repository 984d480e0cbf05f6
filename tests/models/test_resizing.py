import pytest
import torch

from config import Model
from models.factory import build_model
from models.groups import named_tensors
from models.resizing import fitted

SIZES = {"dim": 16, "heads": 2, "cross_heads": 2, "latents": 3, "layers": 1, "patch_size": 8, "rank": 4}
HALF = {**SIZES, "dim": 8, "heads": 1, "cross_heads": 1}
IMAGES = torch.rand(2, 3, 32, 32)


def model(seed, settings=SIZES, **changes):
    return build_model(Model(**{**settings, **changes}), "image", 4, seed=seed).eval()


def test_a_smaller_model_begins_as_the_first_channels_and_heads_of_the_trained_one():
    old, fresh = model(1), model(2, HALF)
    new, own, found = named_tensors(fitted(old, fresh)), named_tensors(old), named_tensors(fresh)
    assert torch.equal(new["backbone.latents"], own["backbone.latents"][:, :8])
    assert torch.equal(new["head.classifier.weight"], own["head.classifier.weight"][:, :8])
    keys, values = own["adapter.to_kv.weight"].chunk(2)  # each (16, 16): two heads of 8 channels
    assert torch.equal(new["adapter.to_kv.weight"], torch.cat([keys[:8, :8], values[:8, :8]]))
    q, k, v = own["backbone.layers.0.attn.qkv.weight"].chunk(3)
    assert torch.equal(new["backbone.layers.0.attn.qkv.weight"], torch.cat([q[:8, :8], k[:8, :8], v[:8, :8]]))
    assert not torch.equal(new["backbone.latents"], found["backbone.latents"])  # the fresh one is another, and stays so


def test_a_larger_model_keeps_what_the_trained_one_does_not_have_as_initialised():
    old, fresh = model(1, HALF), model(2)
    new, own, found = named_tensors(fitted(old, fresh)), named_tensors(old), named_tensors(fresh)
    qkv = "backbone.layers.0.attn.qkv.weight"
    for mine, theirs, others in zip(new[qkv].chunk(3), own[qkv].chunk(3), found[qkv].chunk(3), strict=True):
        assert torch.equal(mine[:8, :8], theirs)
        assert torch.equal(mine[8:], others[8:])
        assert torch.equal(mine[:8, 8:], others[:8, 8:])


@pytest.mark.parametrize("changes", [{}, {"feed_forward": "geglu"}, {"name": "perceiver-io"}, {"name": "beit3"}])
def test_of_the_same_size_it_is_the_trained_model(changes):
    old = model(1, **changes)
    assert torch.equal(fitted(old, model(2, **changes))(IMAGES), old(IMAGES))


def test_both_halves_of_a_gated_layer_are_cut_alike():
    old = model(1, feed_forward="geglu")
    value, gate = named_tensors(old)["backbone.ff.up.bias"].data.normal_().chunk(2)
    new = named_tensors(fitted(old, model(2, HALF, feed_forward="geglu")))["backbone.ff.up.bias"]
    assert torch.equal(new, torch.cat([value[:16], gate[:16]]))


def test_a_convolutional_network_is_cut_with_its_running_means():
    settings = {"name": "wrn-16-1", "width": 1.0}
    old, fresh = model(1, settings), model(2, {**settings, "width": 0.25})
    for name, tensor in named_tensors(old).items():
        if name.endswith("running_mean"):
            tensor.normal_()
    new = fitted(old, fresh)
    assert new(IMAGES).shape == (2, 4)
    name = next(name for name in named_tensors(old) if name.endswith("running_mean"))
    own, cut = named_tensors(old)[name], named_tensors(new)[name]
    assert len(cut) < len(own)
    assert torch.equal(cut, own[: len(cut)])


def test_models_that_differ_in_more_are_refused():
    with pytest.raises(ValueError, match="more than width"):
        fitted(model(1, layers=2), model(2, HALF))
