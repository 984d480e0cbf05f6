"""Groups cover every tensor of every model once; tensors go out and in exactly."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import nn

from config import Model, Strategy
from models.factory import BUILDERS
from models.groups import Group, get_tensors, group_names, group_of, named_tensors, set_tensors, shared_names
from models.size import count
from tests.models.helpers import LOW_RANKS, MODALITIES, TOKEN_MODELS, tiny

SHARES = get_args(Strategy.model_fields["share"].annotation)


class Tied(nn.Module):
    """Two names for one weight, a persistent buffer and one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.first = nn.Linear(2, 2)
        self.backbone.second = self.backbone.first
        self.backbone.register_buffer("owner", torch.zeros(2, dtype=torch.uint8))
        self.backbone.register_buffer("cache", torch.zeros(2), persistent=False)


@pytest.mark.parametrize(
    ("name", "low_rank"),
    [(name, form) for name in TOKEN_MODELS for form in LOW_RANKS if form == "none" or name == "linceiver-io"],
)
@pytest.mark.parametrize("modality", MODALITIES)
def test_groups_cover_every_tensor_once(name: str, modality: str, low_rank: str) -> None:
    model = tiny(modality, low_rank, name=name)
    by_group = [set(group_names(model, group)) for group in Group]
    assert sum(map(len, by_group)) == len(set().union(*by_group)) == len(model.state_dict())
    assert set().union(*by_group) == set(model.state_dict())
    assert sum(count(model).values()) == sum(parameter.numel() for parameter in model.parameters())


def test_every_name_of_the_config_can_be_built() -> None:
    assert set(BUILDERS) == set(get_args(Model.model_fields["name"].annotation))


@pytest.mark.parametrize("modality", MODALITIES)
def test_share_lets_out_what_it_says(modality: str) -> None:
    model = tiny(modality)
    prefixes = {share: {name.partition(".")[0] for name in shared_names(model, share)} for share in SHARES}
    assert prefixes == {
        "backbone": {"backbone"},
        "attention": {"backbone"},
        "backbone+adapter": {"backbone", "adapter"},
        "backbone+adapter+head": {"backbone", "adapter", "head"},
    }
    attention = get_tensors(model, shared_names(model, "attention"))
    assert list(attention) == [f"backbone.layers.{i}.attn.qkv.weight" for i in range(2)]
    assert sum(value.numel() for value in attention.values()) <= 0.30 * count(model)[Group.BACKBONE]


@pytest.mark.parametrize(
    ("name", "matrices"),
    [
        ("linceiver-io", ["attn.qkv"]),
        ("perceiver-io", ["self_attns.0.0.fn.to_q", "self_attns.0.0.fn.to_kv"]),
        ("perceiver", ["self_attns.0.0.fn.to_q", "self_attns.0.0.fn.to_kv"]),
        ("beit3", ["qkv"]),
    ],
)
@pytest.mark.parametrize("modality", MODALITIES)
def test_attention_is_query_key_and_value_of_self_attention(name: str, matrices: list[str], modality: str) -> None:
    model = tiny(modality, name=name)
    attention = get_tensors(model, shared_names(model, "attention"))
    assert list(attention) == [f"backbone.layers.{i}.{matrix}.weight" for i in range(2) for matrix in matrices]
    assert sum(value.numel() for value in attention.values()) == 2 * 3 * 64 * 64


def test_share_that_is_unknown_or_empty_is_refused() -> None:
    with pytest.raises(ValueError, match="'head'"):
        shared_names(tiny("image"), "head")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"model\.layers > 0"):
        shared_names(tiny("image", layers=0), "attention")


@pytest.mark.parametrize("name", ["decoder.weight", "backbone", "backbones.weight", ""])
def test_name_in_no_group_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="in no group"):
        group_of(name)


def test_stray_parameter_is_refused() -> None:
    model = tiny("image")
    model.extra = nn.Linear(1, 1)
    with pytest.raises(ValueError, match=r"extra\.weight"):
        group_names(model, Group.BACKBONE)
    with pytest.raises(ValueError, match=r"extra\.weight"):
        count(model)


def test_tied_weights_travel_once() -> None:
    model = Tied()
    assert list(named_tensors(model)) == ["backbone.first.weight", "backbone.first.bias", "backbone.owner"]
    assert count(model)[Group.BACKBONE] == 4 + 2 + 2
    set_tensors(model, {"backbone.first.bias": torch.tensor([1.0, 2.0]), "backbone.owner": torch.ones(2, dtype=torch.uint8)})
    assert model.backbone.second.bias.tolist() == [1.0, 2.0]
    assert model.backbone.owner.tolist() == [1, 1]


@pytest.mark.parametrize("name", TOKEN_MODELS)
def test_tensors_go_round_in_place(name: str) -> None:
    source, target = tiny("image", name=name, seed=0), tiny("text", name=name, seed=1)
    names = shared_names(source, "backbone")
    places = {own: tensor.data_ptr() for own, tensor in named_tensors(target).items()}
    set_tensors(target, get_tensors(source, names), names)
    for own, tensor in named_tensors(target).items():
        assert tensor.data_ptr() == places[own]
        assert (own in names) == (own.startswith("backbone."))
        if own in names:
            assert torch.equal(tensor, named_tensors(source)[own])


def test_get_tensors_copies() -> None:
    model = tiny("image")
    taken = get_tensors(model, ["backbone.latents"])["backbone.latents"]
    before = taken.clone()
    with torch.no_grad():
        model.get_parameter("backbone.latents").add_(1)
    assert torch.equal(taken, before)
    assert not taken.requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone.nothing": torch.zeros(1)}, "'backbone.nothing' is unknown"),
        ({"backbone.norm.bias": torch.zeros(65)}, r"'backbone.norm.bias': found shape \(65,\), expected \(64,\)"),
        ({"backbone.norm.bias": torch.zeros(64, dtype=torch.long)}, "found torch.int64, expected torch.float32"),
        ({"backbone.norm.bias": torch.full((64,), torch.nan)}, "'backbone.norm.bias': found 64 of 64 values NaN"),
        ({"backbone.norm.bias": torch.tensor([torch.inf] + [0.0] * 63)}, "found 1 of 64 values NaN or infinite"),
        ({"head.norm.bias": torch.zeros(64)}, "'head.norm.bias' was not expected"),
        ({"backbone.norm.bias": None}, "'backbone.norm.bias' is missing: found 34 tensors, expected 35"),
    ],
)
def test_wrong_tensors_are_refused_before_anything_is_written(change: dict[str, torch.Tensor | None], message: str) -> None:
    model, other = tiny("image", seed=0), tiny("image", seed=1)
    names = shared_names(model, "backbone")
    before = get_tensors(model, model.state_dict())
    tensors = {name: value for name, value in {**get_tensors(other, names), **change}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        set_tensors(model, tensors, names)
    for name, value in get_tensors(model, before).items():
        assert torch.equal(value, before[name])


def test_half_precision_values_are_accepted() -> None:
    model = tiny("image")
    set_tensors(model, {"backbone.norm.bias": torch.full((64,), 0.5, dtype=torch.float16)})
    assert model.get_parameter("backbone.norm.bias").dtype == torch.float32
    assert model.get_parameter("backbone.norm.bias").tolist() == [0.5] * 64
