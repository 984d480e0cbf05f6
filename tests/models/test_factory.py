"""Sizes and initial weights."""

from __future__ import annotations

import pytest
import torch

from config import Model
from models.factory import build_model
from models.groups import Group, get_tensors, group_names, named_tensors
from models.size import count
from tests.models.helpers import TOKEN_MODELS, tiny


def tensors(model: torch.nn.Module, group: Group) -> dict[str, torch.Tensor]:
    return get_tensors(model, group_names(model, group))


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_sizes_of_the_default_model() -> None:
    norm, square = 2 * 64, 64 * 64
    attention, feed_forward = norm + 4 * square + 64, norm + 4 * square + 128 + 64
    backbone = 8 * 64 + (norm + 2 * square + 64 + feed_forward) + 2 * (attention + feed_forward)
    assert backbone == 92_160
    image = build_model(Model(), "image", 12, seed=0)
    text = build_model(Model(), "text", 12, vocab_size=2000, max_tokens=24, seed=0)
    assert count(image)[Group.BACKBONE] == count(text)[Group.BACKBONE] == backbone + 16 * 16
    assert count(image)[Group.ADAPTER] == 60 * 64 + 64 + norm + 2 * square
    assert count(text)[Group.ADAPTER] == 2000 * 64 + 24 * 64 + norm + 2 * square
    assert count(image)[Group.HEAD] == 64 + 3 * norm + 4 * square + 64 + 64 * 12 + 12
    assert count(build_model(Model(low_rank="none"), "image", 12, seed=0))[Group.BACKBONE] == backbone


@pytest.mark.parametrize("name", TOKEN_MODELS)
@pytest.mark.parametrize("tied", [False, True])
def test_backbone_is_the_same_for_every_modality(name: str, tied: bool) -> None:
    sizes = (("image", 5), ("text", 9), ("text", 5))
    image, other, text = (tiny(m, num_classes=n, name=name, tie_layers=tied, layers=3) for m, n in sizes)
    assert same(tensors(image, Group.BACKBONE), tensors(text, Group.BACKBONE))
    assert same(tensors(image, Group.BACKBONE), tensors(other, Group.BACKBONE))
    alike = tensors(text, Group.ADAPTER) | tensors(text, Group.HEAD)
    for own, value in (tensors(image, Group.ADAPTER) | tensors(image, Group.HEAD)).items():
        if own in alike and value.shape == alike[own].shape and value.ndim > 1:
            assert not torch.equal(value, alike[own]), own


def test_groups_are_drawn_apart() -> None:
    image, text = tiny("image", num_classes=5), tiny("text", num_classes=9)
    assert image.get_parameter("backbone.projection.mix").shape == (16, 16)
    assert not torch.equal(image.get_parameter("head.to_q.weight"), text.get_parameter("head.to_q.weight"))
    assert not torch.equal(image.get_parameter("head.to_q.weight"), image.get_parameter("backbone.to_q.weight"))


@pytest.mark.parametrize("name", TOKEN_MODELS)
@pytest.mark.parametrize("modality", ["image", "text"])
def test_adapter_and_head_depend_on_seed_and_modality_alone(name: str, modality: str) -> None:
    first, second = tiny(modality, name=name), tiny(modality, name=name)
    wider, other = tiny(modality, name=name, num_classes=9), tiny(modality, name=name, seed=1)
    for group in (Group.BACKBONE, Group.ADAPTER, Group.HEAD):
        assert same(tensors(first, group), tensors(second, group))
        assert not same(tensors(first, group), tensors(other, group))
    assert same(tensors(first, Group.ADAPTER), tensors(wider, Group.ADAPTER))
    ends = {"head.classifier.weight", "head.classifier.bias"}
    for own in set(group_names(first, Group.HEAD)) - ends:
        assert torch.equal(named_tensors(first)[own], named_tensors(wider)[own])


def test_global_random_state_is_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    first = tiny("image")
    assert torch.equal(torch.rand(4), expected)
    assert same(tensors(first, Group.BACKBONE), tensors(tiny("image"), Group.BACKBONE))


@pytest.mark.parametrize(
    ("modality", "sizes", "message"),
    [
        ("sound", {}, "'sound' is unknown"),
        ("image", {"image_size": 30}, "does not divide the image side of 30"),
        ("text", {"vocab_size": 10}, "found 10 and 0"),
        ("series", {"window": 50, "channels": 6}, "model.series-patch = 4 divides: found 6 channels and a window of 50"),
        ("series", {"window": 48}, "found 0 channels"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(modality: str, sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(Model(), modality, 5, seed=0, **sizes)
