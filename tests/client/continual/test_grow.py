import pytest
import torch
from torch import nn

from client.continual.grow import next_widths, set_widths, widths
from client.continual.memory import Memory, put_back
from client.continual.ownership import attach_owners, claim_free, effective_weights, owners
from client.continual.seams import seams
from client.continual.session import begin
from tests.client.continual.helpers import CASES, inputs_of, learn, small
from tests.models.helpers import batch, tiny

SEAMS = {
    "linceiver-io": {"backbone.ff": 64, "backbone.layers.0.attn": 2, "backbone.layers.0.ff": 64},
    "perceiver-io": {
        "backbone.encoder.cross_ff.fn.net": 128,
        "backbone.layers.0.self_attns.0.0.fn": 2,
        "backbone.layers.0.self_attns.0.1.fn.net": 128,
    },
    "beit3": {"backbone.layers.0": 2},
    "lenet5": {"backbone.blocks.0.layer.conv": 6, "backbone.blocks.1.layer.conv": 16, "backbone.blocks.2.linear": 120},
}


@pytest.mark.parametrize("name", list(SEAMS))
def test_what_can_grow(name):
    found = widths(small(name))
    assert sorted(found.values()) == sorted(SEAMS[name].values())
    if name != "perceiver-io":  # its names are those of the package
        assert found == SEAMS[name]


@pytest.mark.parametrize("feed_forward", ["gelu", "geglu"])
@pytest.mark.parametrize(("name", "modality"), [*CASES, ("perceiver", "image")])
def test_growing_changes_no_logit_by_more_than_a_millionth_and_cutting_back_no_bit(name, modality, feed_forward):
    model = small(name, modality, feed_forward=feed_forward, dropout=0.0).eval()
    inputs = inputs_of(model, modality)
    start = widths(model)
    bits = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        before = model(inputs)
        set_widths(model, {seam: units + 3 for seam, units in start.items()})
        assert widths(model) == {seam: units + 3 for seam, units in start.items()}
        assert (model(inputs) - before).abs().max() <= 1e-6
        set_widths(model, start)
        assert torch.equal(model(inputs), before)
        assert all(torch.equal(value, bits[key]) for key, value in model.state_dict().items())
        trained = model.train()(inputs)
        set_widths(model, {seam: units + 3 for seam, units in start.items()})
        assert (model(inputs) - trained).abs().max() <= 1e-6


@pytest.mark.parametrize("name", ["linceiver-io", "perceiver-io", "beit3"])
def test_new_weights_are_free_then_claimed_without_a_change_and_they_learn(name):
    model, memory = small(name), Memory()
    session = learn(model, memory, 1, "image", keep=1.0)
    model.eval()
    with torch.no_grad():
        before = session(batch("image"))
    set_widths(model, {seam: units + 2 for seam, units in widths(model).items()})
    added = sum(int((owner == 0).sum()) for owner in owners(model).values())
    assert claim_free(model, 2) == added > 0
    session = begin(model, memory, 2)
    assert (session(batch("image")) - before).abs().max() <= 1e-6
    torch.func.functional_call(model, effective_weights(model, 1), (batch("image"),))
    session(batch("image")).square().sum().backward()
    assert session.values.grad.abs().max() > 0
    assert 0.2 < (session.values == 0).float().mean() < 0.9  # new columns begin at zero, new rows do not
    with pytest.raises(ValueError, match="has grown since task 1"):
        put_back(model, memory, 1)


def test_new_rows_are_those_of_a_new_layer_and_depend_on_the_seed():
    rows = []
    for seed in (0, 0, 1):
        model = small()
        set_widths(model, {"backbone.ff": 128}, seed=seed)
        rows.append(model.backbone.ff.up.weight[64:].detach())
        assert (model.backbone.ff.down.weight[:, 64:] == 0).all()
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])
    assert rows[0].std().item() == pytest.approx((1 / 3 / 32) ** 0.5, rel=0.05)  # uniform in ±1/sqrt(32)


def test_a_pair_of_layers_in_a_sequence():
    def build(*between):
        return nn.ModuleDict({"backbone": nn.Sequential(nn.Linear(3, 4), *between, nn.Linear(4, 2))})

    assert widths(build(nn.ReLU(), nn.Dropout(0.1))) == {"backbone": 4}
    assert widths(build(nn.Softmax(-1))) == {}
    assert widths(build(nn.LayerNorm(4))) == {}
    model, inputs = build(nn.Tanh()), torch.randn(5, 3)
    before = model["backbone"](inputs)
    set_widths(model, {"backbone": 9})
    assert torch.allclose(model["backbone"](inputs), before, atol=1e-6)
    tied = build(nn.ReLU())
    tied["head"] = nn.Linear(3, 4)
    tied["head"].weight = tied["backbone"][0].weight
    assert widths(tied) == {}


def chain(*layers):
    return nn.ModuleDict({"backbone": nn.Sequential(*layers)})


def test_a_chain_of_convolutions_by_hand():
    """Two maps of 2 x 2 pixels become three: what is new reads as zero, and begins as a new layer."""
    model = chain(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3), nn.ReLU(), nn.Linear(3, 1)
    )
    attach_owners(model)
    conv, norm, _, _, linear, _, last = model["backbone"]
    inputs = torch.rand(7, 1, 6, 6)
    model["backbone"](inputs)  # statistics move, and the norm counts its batches
    before = model.eval()["backbone"](inputs)
    tensors = [norm.weight, norm.bias, norm.running_mean, norm.running_var]
    old = [tensor.clone() for tensor in (conv.weight, *tensors, linear.weight)]
    assert widths(model) == {"backbone.0": 2, "backbone.4": 3}
    set_widths(model, {"backbone.0": 3})
    assert [tuple(p.shape) for p in (conv.weight, conv.bias, linear.weight)] == [(3, 1, 3, 3), (3,), (3, 12)]
    assert (conv.out_channels, norm.num_features, linear.in_features, last.in_features) == (3, 3, 12, 3)
    tensors = [norm.weight, norm.bias, norm.running_mean, norm.running_var]
    assert [tensor[2].item() for tensor in tensors] == [1.0, 0.0, 0.0, 1.0]
    assert norm.num_batches_tracked == 1
    assert (linear.weight[:, 8:] == 0).all()
    assert (conv.weight[2] != 0).all()
    assert conv.owner.shape == conv.weight.shape
    new = [conv.weight[:2], *(tensor[:2] for tensor in tensors), linear.weight[:, :8]]
    assert all(torch.equal(a, b) for a, b in zip(old, new, strict=True))
    assert torch.allclose(model["backbone"](inputs), before, atol=1e-6)
    norm.running_mean += 0.5
    set_widths(model, {"backbone.0": 1})
    assert model["backbone"](inputs).shape == (7, 1)


def test_what_is_no_chain():
    conv, linear = nn.Conv2d, nn.Linear
    assert widths(chain(conv(1, 4, 3), nn.BatchNorm2d(4, affine=False, track_running_stats=False), conv(4, 2, 3))) == {
        "backbone": 4
    }
    assert widths(chain(nn.Sequential(conv(1, 4, 3), nn.ReLU()), nn.Sequential(nn.AvgPool2d(2), conv(4, 2, 3)))) == {
        "backbone": 4
    }
    for layers in (
        [conv(2, 4, 3, groups=2), conv(4, 2, 3)],
        [conv(2, 4, 3), conv(4, 2, 3, groups=2)],
        [conv(2, 4, 3), nn.GroupNorm(2, 4), conv(4, 2, 3)],
        [nn.ConvTranspose2d(2, 4, 3), conv(4, 2, 3)],
        [conv(2, 4, 3), linear(4, 2)],  # reads the width of an image, not maps
        [conv(2, 4, 3), nn.PixelShuffle(2), conv(1, 2, 3)],
        [linear(2, 4), nn.Flatten(), linear(12, 2)],  # rows of tokens: a feature has no columns beside each other
        [linear(2, 4), nn.MaxPool1d(3, 1, 1), linear(4, 2)],  # pools features
        [conv(2, 4, 3), nn.Flatten(2), linear(4, 2)],
    ):
        assert widths(chain(*layers)) == {}, layers
    shared = conv(2, 2, 3)
    assert widths(chain(shared, nn.ReLU(), shared)) == {}
    model = chain(shared, nn.ReLU(), conv(2, 4, 3), conv(4, 3, 3))
    model["head"] = nn.ModuleList([shared])
    assert widths(model) == {"backbone": 4}  # the rest of the chain
    assert widths(nn.ModuleDict({"backbone": nn.ModuleList([conv(1, 4, 3), conv(4, 2, 3)])})) == {}  # in which order?


def test_the_order_in_which_widths_are_given_does_not_matter():
    grown = []
    for turn in (1, -1):
        model = small("lenet5")
        set_widths(model, dict([(seam, units + 2) for seam, units in widths(model).items()][::turn]), seed=3)
        grown.append(model.state_dict())
    assert all(torch.equal(value, grown[1][name]) for name, value in grown[0].items())


def test_the_head_reads_as_many_features_as_before():
    for name in ("lenet5", "vgg16-bn"):
        model = small(name)
        before = {key: p.shape for key, p in model.named_parameters() if key.startswith("head.")}
        set_widths(model, {seam: 2 * units for seam, units in widths(model).items()})
        assert {key: p.shape for key, p in model.named_parameters() if key.startswith("head.")} == before
        convolutions = sum(isinstance(module, nn.Conv2d) for module in model.modules())
        assert len(widths(model)) == convolutions + 1  # all but the last of two linear layers write for another


def test_adapters_and_projected_attention_do_not_grow():
    assert all(name.startswith("backbone.") for name in seams(tiny("image", name="beit3")))
    projected = tiny("image", low_rank="dense", stages="all")
    assert [name for name in widths(projected) if name.endswith("attn")] == []


def test_the_cap_is_hard_and_never_shrinks():
    start = {"a": 4, "b": 100}
    now = dict(start)
    for _ in range(9):
        now = next_widths(start, now, 0.2, 1.5)
        assert all(now[name] <= 1.5 * start[name] for name in start)
    assert now == {"a": 6, "b": 150} == next_widths(start, now, 0.2, 1.5)
    assert next_widths(start, {"a": 9, "b": 100}, 0.5, 1.5) == {"a": 9, "b": 150}


def test_wrong_widths_change_nothing():
    model = small()
    for units in ({"backbone.ff": 70, "nothing": 3}, {"backbone.ff": 70, "backbone.layers.0.attn": 0}):
        with pytest.raises(ValueError, match="seam"):
            set_widths(model, units)
    assert widths(model)["backbone.ff"] == 64
