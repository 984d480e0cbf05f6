"""LeNet-5, VGG16 and ResNet-18: sizes by hand, groups, initial weights, gradients, trace, learning, refusals."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config import IMAGE_MODELS, Model
from models.arrays import get_arrays, set_arrays
from models.factory import build_model
from models.groups import Group, get_tensors, group_names, named_tensors, set_tensors, shared_names, stored_names
from models.size import count, count_macs

EVERY_NAME = pytest.mark.parametrize("name", IMAGE_MODELS)
TINY = {"lenet5": 1.0, "vgg16-bn": 1 / 64, "resnet18": 1 / 64}
"""Widths at which a test is quick: VGG and ResNet-18 with 8 to 64 maps, VGG with 512 hidden features."""


def tiny(name: str, num_classes: int = 5, seed: int = 0, **settings: object) -> nn.Module:
    width = settings.pop("width", TINY[name])
    return build_model(Model(name=name, width=width, **settings), "image", num_classes, seed=seed)


def batch(size: int = 4) -> Tensor:
    return torch.rand(size, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def weights(model: nn.Module, group: Group) -> int:
    """Values of convolutions and linear maps, without biases and norms."""
    return sum(
        tensor.numel()
        for name, tensor in named_tensors(model).items()
        if name in group_names(model, group) and tensor.ndim > 1
    )


def test_sizes_of_lenet() -> None:
    model = tiny("lenet5")
    matrices = 6 * 3 * 25 + 16 * 6 * 25 + 120 * 400 + 84 * 120
    assert weights(model, Group.BACKBONE) == matrices == 60_930
    norms = 4 * (6 + 16)  # scale, shift, running mean and variance
    assert count(model) == {
        Group.BACKBONE: matrices + norms + 120 + 84,
        Group.ADAPTER: 0,
        Group.HEAD: 84 * 5 + 5,
        Group.FROZEN: 0,
    }
    macs = 28 * 28 * 6 * 75 + 10 * 10 * 16 * 150 + 120 * 400 + 84 * 120 + 5 * 84
    assert count_macs(model.eval(), batch(2)) == 2 * macs


def test_sizes_of_resnet() -> None:
    """The usual form for CIFAR has 11,173,962 parameters with 10 classes."""
    model = build_model(Model(name="resnet18"), "image", 10, seed=0)
    maps = (64, 128, 256, 512)
    inside = sum(9 * size * size * (3 if size > 64 else 4) for size in maps)
    between = sum(9 * before * after + before * after for before, after in itertools.pairwise(maps))
    assert weights(model, Group.BACKBONE) == 9 * 3 * 64 + inside + between
    assert sum(parameter.numel() for parameter in model.parameters()) == 11_173_962
    at = {64: 32 * 32, 128: 16 * 16, 256: 8 * 8, 512: 4 * 4}
    macs = sum(at[size] * 9 * size * size * (3 if size > 64 else 4) for size in maps) + 32 * 32 * 27 * 64 + 512 * 10
    macs += sum(at[after] * 10 * before * after for before, after in itertools.pairwise(maps))
    assert count_macs(model.eval(), batch(1)) == macs


def test_sizes_of_vgg() -> None:
    model = build_model(Model(name="vgg16-bn"), "image", 5, seed=0)
    maps = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    convolutions = sum(9 * before * after for before, after in itertools.pairwise(maps))
    hidden = 512 * 4096 + 4096 * 4096
    assert weights(model, Group.BACKBONE) == convolutions + hidden == 14_710_464 + 18_874_368
    assert count(model)[Group.BACKBONE] == convolutions + hidden + 4 * sum(maps[1:]) + 2 * 4096
    assert count(model)[Group.ADAPTER] == 0
    assert count(model)[Group.HEAD] == 5 * 4096 + 5
    assert not any(name.endswith("conv.bias") for name in named_tensors(model))


@EVERY_NAME
def test_width_multiplies_parameters(name: str) -> None:
    small, large = (weights(tiny(name, width=width), Group.BACKBONE) for width in (0.25, 1.0))
    assert 0.2 < small / large < 0.3
    stages = {"lenet5": (3, 8, 60, 42), "vgg16-bn": (32, 64, 128, 256, 256, 2048, 2048), "resnet18": (32, 64, 128, 256)}[name]
    trace = tiny(name, width=0.25).eval().trace(batch(1))
    assert [latents.shape[2] for latents in trace.latents] == list(stages)


@EVERY_NAME
def test_every_tensor_is_a_float_in_a_group(name: str) -> None:
    model = tiny(name)
    names = [set(group_names(model, group)) for group in Group]
    assert set().union(*names) == set(model.state_dict()) == set(stored_names(model))
    assert all(tensor.is_floating_point() for tensor in named_tensors(model).values())
    assert shared_names(model, "backbone") == shared_names(model, "backbone+adapter") == group_names(model, Group.BACKBONE)
    assert sum(one.endswith(("running_mean", "running_var")) for one in shared_names(model, "backbone")) > 0
    set_arrays(model, {one: value.astype("float16") for one, value in get_arrays(model, stored_names(model)).items()})


@EVERY_NAME
def test_initial_weights_depend_on_seed_and_group(name: str) -> None:
    first, wider, other = tiny(name), tiny(name, num_classes=9), tiny(name, seed=1)
    state = torch.random.get_rng_state()
    again = tiny(name)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, named_tensors(again)[one]) for one, value in named_tensors(first).items())
    for one in group_names(first, Group.BACKBONE):
        assert torch.equal(named_tensors(first)[one], named_tensors(wider)[one])
    for one, value in named_tensors(first).items():
        if value.ndim > 1:
            assert not torch.equal(value, named_tensors(other)[one]), one


def test_vgg_draws_weights_by_fan_out() -> None:
    model = tiny("vgg16-bn", width=1 / 4)
    kernel, linear = (named_tensors(model)[f"backbone.blocks.{own}.weight"].detach() for own in ("3.layer0.conv", "5.linear"))
    assert float(kernel.std()) == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)
    assert float(linear.std()) == pytest.approx((2 / 2048) ** 0.5, rel=0.02)


@EVERY_NAME
def test_bytes_and_fractions_are_the_same_images(name: str) -> None:
    model = tiny(name).eval()
    images = (batch() * 255).to(torch.uint8)
    torch.testing.assert_close(model(images), model(images.float() / 255), rtol=0, atol=1e-5)
    assert model.adapter(torch.tensor([0, 255], dtype=torch.uint8), torch.float32).tolist() == [-1.0, 1.0]


@EVERY_NAME
def test_trace(name: str) -> None:
    model, inputs = tiny(name).eval(), batch()
    trace = model.trace(inputs)
    shapes = {
        "lenet5": [(14 * 14, 6), (5 * 5, 16), (1, 120), (1, 84)],
        "vgg16-bn": [(256, 8), (64, 16), (16, 32), (4, 64), (1, 64), (1, 512), (1, 512)],
        "resnet18": [(1024, 8), (256, 16), (64, 32), (16, 64)],
    }[name]
    assert [latents.shape for latents in trace.latents] == [(4, *shape) for shape in shapes]
    assert [math.prod(grid) for grid in trace.grids] == [rows for rows, _ in shapes]
    assert trace.grids[0] == {"lenet5": (14, 14), "vgg16-bn": (16, 16), "resnet18": (32, 32)}[name]
    assert (trace.grids[-1] == ()) == (name != "resnet18")  # features are no map
    assert torch.equal(trace.logits, model(inputs))
    torch.testing.assert_close(trace.logits, model.head.classifier(trace.queries.mean(dim=1)))
    stage = model.backbone(model.adapter(inputs, torch.float32))[0]
    assert torch.equal(trace.latents[0][2, 3 * stage.shape[3] + 1], stage[2, :, 3, 1])  # row 3, column 1


@EVERY_NAME
def test_gradient_reaches_every_parameter(name: str) -> None:
    model = tiny(name, dropout=0.0)
    F.cross_entropy(model(batch(16)), torch.arange(16) % 5).backward()
    unreached = [one for one, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert unreached == []


@EVERY_NAME
def test_loss_falls_on_a_toy_problem(name: str) -> None:
    model = tiny(name, dropout=0.0)
    labels = torch.arange(20) % 5
    inputs = 0.3 * batch(20)
    for i, label in enumerate(labels):
        inputs[i, :, 6 * label : 6 * label + 6] += 0.6
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(20):
        loss = F.cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_dropout_is_that_of_vgg_alone() -> None:
    changed = {}
    for name in IMAGE_MODELS:
        model, inputs = tiny(name, dropout=0.5), batch()
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.eval()
        changed[name] = not torch.equal(model(inputs), model(inputs))
    assert changed == {"lenet5": False, "vgg16-bn": True, "resnet18": False}


@EVERY_NAME
def test_autocast_is_near_float32(name: str) -> None:
    model, inputs = tiny(name).eval(), batch()
    with torch.no_grad():
        expected = model(inputs)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(model(inputs).float(), expected, rtol=0, atol=0.1)


@EVERY_NAME
def test_a_backbone_set_into_another_model_makes_them_equal(name: str) -> None:
    """Running means and variances belong to the backbone: without them the two would differ after training."""
    source, target = tiny(name, seed=1), tiny(name, seed=2).eval()
    source.train()(batch(8) * 0.2)
    source.eval()
    twin = copy.deepcopy(target)
    set_tensors(target, get_tensors(source, group_names(source, Group.HEAD)))
    set_tensors(target, get_tensors(source, shared_names(source, "backbone")))
    assert torch.equal(source(batch()), target(batch()))
    assert not torch.allclose(source(batch()), twin(batch()))


@EVERY_NAME
@pytest.mark.parametrize(
    ("modality", "side", "found"), [("text", 32, "modality 'text'"), ("image", 16, "images of 16 pixels")]
)
def test_other_inputs_are_refused(name: str, modality: str, side: int, found: str) -> None:
    with pytest.raises(ValueError, match=rf"'{name}' takes images of 32 x 32 pixels: found {found}"):
        build_model(Model(name=name), modality, 5, image_size=side, vocab_size=30, max_tokens=12, seed=0)
