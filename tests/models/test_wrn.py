"""Wide residual networks: sizes by hand, one block by hand, groups, trace, learning, growth, refusals; images and series."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from client.continual.grow import set_widths, widths
from config import WIDE_RESNETS, Model
from models import wrn
from models.arrays import get_arrays, set_arrays
from models.factory import build_model
from models.groups import Group, get_tensors, group_names, named_tensors, set_tensors, shared_names, stored_names

BOTH = pytest.mark.parametrize("modality", ["image", "series"])
SIZES = {"wrn-16-1": 175_066, "wrn-16-8": 10_961_370, "wrn-28-1": 369_498}
"""Parameters with 10 classes of images; the paper rounds those of WRN-16-8 to 11.0 million."""


def tiny(modality: str, name: str = "wrn-16-1", num_classes: int = 5, seed: int = 0, **settings: object) -> nn.Module:
    model = Model.model_validate({"name": name, "width": 1 / 4, "dropout": 0.0, **settings})
    return build_model(model, modality, num_classes, image_size=16, window=30, channels=6, seed=seed)


def batch(modality: str, size: int = 4, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (size, 3, 16, 16) if modality == "image" else (size, 6, 30)
    return torch.rand(shape, generator=generator)


@pytest.mark.parametrize("name", SIZES)
def test_sizes_of_the_paper(name: str) -> None:
    model = build_model(Model(name=name), "image", 10, seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == SIZES[name]


@pytest.mark.parametrize("name", WIDE_RESNETS)
@pytest.mark.parametrize(("dims", "channels"), [(1, 6), (2, 3)])
def test_convolutions_by_hand(name: str, dims: int, channels: int) -> None:
    backbone, last = wrn.make_backbone(name, dims, channels)
    depth, widening = wrn.depth_and_widening(name)
    maps, kernel = [16, 16 * widening, 32 * widening, 64 * widening], 3**dims
    expected = [channels * 16 * kernel]
    for before, after in itertools.pairwise(maps):
        same = (depth - 4) // 6 * 2 - 1  # all but the first convolution of a stage have as many maps in as out
        expected += [before * after * kernel, *([after * after * kernel] * same)]
    shortcuts = [before * after for before, after in itertools.pairwise(maps) if before != after]
    layers = [layer for layer in backbone.modules() if isinstance(layer, nn.Conv1d | nn.Conv2d)]
    found = sorted(layer.weight.numel() for layer in layers)
    assert found == sorted(expected + shortcuts)
    assert sum(max(layer.kernel_size) == 3 for layer in layers) == depth - 3  # and the classifier
    assert last == 64 * widening


def test_a_block_by_hand() -> None:
    """norm, ReLU, conv, norm, ReLU, conv; the shortcut reads what the first ReLU gives, not what came in."""
    torch.manual_seed(0)
    block = wrn.Block(1, 3, 4, 2, 0.0).eval()
    with torch.no_grad():
        for norm in (block.norm, block.inner.norm):
            for tensor in (norm.weight, norm.bias, norm.running_mean):
                tensor.copy_(torch.randn(tensor.shape))
    maps = torch.randn(2, 3, 9)

    def active(values: Tensor, norm: nn.BatchNorm1d) -> Tensor:
        scaled = (values - norm.running_mean[:, None]) / (norm.running_var[:, None] + norm.eps).sqrt()
        return (scaled * norm.weight[:, None] + norm.bias[:, None]).relu()

    first = active(maps, block.norm)
    inner = active(F.conv1d(first, block.inner.conv0.weight, stride=2, padding=1), block.inner.norm)
    expected = F.conv1d(inner, block.inner.conv1.weight, padding=1) + F.conv1d(first, block.shortcut.weight, stride=2)
    torch.testing.assert_close(block(maps), expected)
    same = wrn.Block(1, 3, 3, 1, 0.0).eval()
    nn.init.zeros_(same.inner.conv1.weight)
    assert torch.equal(same(maps), maps)  # what came in passes untouched


@BOTH
def test_every_tensor_is_a_float_in_a_group(modality: str) -> None:
    model = tiny(modality)
    names = [set(group_names(model, group)) for group in Group]
    assert set().union(*names) == set(model.state_dict()) == set(stored_names(model))
    assert names[1] == set()  # the adapter has no tensor
    assert all(tensor.is_floating_point() for tensor in named_tensors(model).values())
    assert shared_names(model, "backbone") == shared_names(model, "backbone+adapter") == group_names(model, Group.BACKBONE)
    set_arrays(model, {one: value.astype("float16") for one, value in get_arrays(model, stored_names(model)).items()})


@BOTH
def test_trace_has_the_maps_of_three_stages(modality: str) -> None:
    model, inputs = tiny(modality).eval(), batch(modality)
    trace = model.trace(inputs)
    places = {"image": (256, 64, 16), "series": (30, 15, 8)}[modality]
    assert [latents.shape for latents in trace.latents] == [(4, n, maps) for n, maps in zip(places, (8, 16, 32), strict=True)]
    assert torch.equal(trace.logits, model(inputs))
    torch.testing.assert_close(trace.queries[:, 0], trace.latents[-1].mean(dim=1))
    torch.testing.assert_close(trace.logits, model.head.classifier(trace.queries[:, 0]))
    assert float(trace.latents[-1].detach().min()) == 0.0  # the last norm and ReLU are part of it
    assert float(trace.latents[0].detach().min()) < 0.0


def test_series_come_as_they_are_and_images_are_scaled() -> None:
    model = tiny("series")
    values = 3 * torch.randn(2, 6, 30)
    assert torch.equal(model.adapter(values, torch.float32), values)
    images = torch.tensor([[[[0, 255]]]], dtype=torch.uint8)
    assert tiny("image").adapter(images, torch.float32).tolist() == [[[[-1.0, 1.0]]]]


@BOTH
def test_gradient_reaches_every_parameter_and_the_loss_falls(modality: str) -> None:
    model, labels = tiny(modality), torch.arange(10) % 5
    inputs = batch(modality, 10)
    for i, label in enumerate(labels):
        inputs[i, :, 3 * label : 3 * label + 3] += 1.0 if modality == "image" else 0.0
        if modality == "series":
            inputs[i, :, 6 * label : 6 * label + 6] += 2.0 * (1 + label)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for step in range(25):
        loss = F.cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            assert [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()] == []
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


@BOTH
def test_a_backbone_set_into_another_model_makes_them_equal(modality: str) -> None:
    source, target = tiny(modality, seed=1), tiny(modality, seed=2).eval()
    source.train()(batch(modality, 8) * 0.2)
    source.eval()
    before = target(batch(modality))
    set_tensors(target, get_tensors(source, group_names(source, Group.HEAD)))
    set_tensors(target, get_tensors(source, shared_names(source, "backbone")))
    assert torch.equal(source(batch(modality)), target(batch(modality)))
    assert not torch.allclose(before, target(batch(modality)))


def test_initial_weights_depend_on_seed_and_group() -> None:
    first, wider, other = tiny("series"), tiny("series", num_classes=9), tiny("series", seed=1)
    for one in group_names(first, Group.BACKBONE):
        value = named_tensors(first)[one]
        assert torch.equal(value, named_tensors(wider)[one])
        assert value.ndim < 2 or not torch.equal(value, named_tensors(other)[one])
    stem = named_tensors(build_model(Model(name="wrn-16-8"), "image", 2, seed=0))[
        "backbone.blocks.2.block1.inner.conv1.weight"
    ]
    assert float(stem.detach().std()) == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.02)


def test_dropout_and_width_apply() -> None:
    model, inputs = tiny("series", dropout=0.5), batch("series")
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm1d):
            norm.eval()
    assert not torch.equal(model(inputs), model(inputs))
    assert [latents.shape[2] for latents in tiny("series", width=1.0).trace(inputs).latents] == [16, 32, 64]


def test_inner_maps_grow_without_a_change_of_the_output() -> None:
    model, inputs = tiny("series").eval(), batch("series")
    before, now = model(inputs), widths(model)
    assert list(now.values()) == [8, 8, 16, 16, 32, 32]  # one seam inside each block; the stream between keeps its width
    set_widths(model, {name: units + 2 for name, units in now.items()})
    assert list(widths(model).values()) == [10, 10, 18, 18, 34, 34]
    torch.testing.assert_close(model(inputs), before)


@pytest.mark.parametrize("name", ["wrn-16", "wrn-17-1", "wrn-4-1", "wrn-16-0", "resnet18"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"'{name}': expected wrn-d-k"):
        wrn.depth_and_widening(name)


@pytest.mark.parametrize(("modality", "found"), [("text", "'text'"), ("series", "0 channels")])
def test_other_inputs_are_refused(modality: str, found: str) -> None:
    with pytest.raises(ValueError, match=f"'wrn-16-1' takes images or series: found {found}"):
        build_model(Model(name="wrn-16-1"), modality, 5, window=30, seed=0)
