import pytest
import torch
from torch import nn

from client.continual.ownership import (
    attach_owners,
    claim_free,
    count_owned,
    effective_weights,
    ownable,
    owners,
    pickable,
    private_names,
)
from models.groups import Group, get_tensors, group_of, named_tensors, set_tensors
from tests.client.continual.helpers import CASES, small
from tests.models.helpers import tiny


class Toy(nn.Module):
    """A backbone of one layer with weights 1, 2, 3, 4, used twice, beside other kinds of tensors."""

    def __init__(self):
        super().__init__()
        layer = nn.Linear(4, 1)
        tied = nn.Linear(4, 1, bias=False)
        tied.weight = layer.weight
        others = {"conv": nn.Conv1d(2, 2, 3), "norm": nn.BatchNorm1d(2), "table": nn.Embedding(3, 2)}
        self.backbone = nn.ModuleDict({"layer": layer, "tied": tied, **others})
        self.head = nn.Linear(2, 2)
        self.frozen = nn.Linear(2, 2)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))


NAME = "backbone.layer.weight"


def toy(*owner):
    model = Toy()
    attach_owners(model)
    owners(model)[NAME].copy_(torch.tensor([owner]))
    return model


def test_what_can_be_owned_and_what_is_private():
    model = toy(0, 0, 0, 0)
    assert list(ownable(model)) == [NAME, "backbone.conv.weight"]
    assert owners(model)["backbone.conv.weight"].shape == (2, 2, 3)
    assert private_names(model) == [
        *("backbone.layer.bias", "backbone.conv.bias", "backbone.norm.weight", "backbone.norm.bias"),
        *("backbone.table.weight", "head.weight", "head.bias"),
        *("backbone.norm.running_mean", "backbone.norm.running_var", "backbone.norm.num_batches_tracked"),
    ]
    assert private_names(model, frozenset({Group.HEAD})) == [n for n in private_names(model) if not n.startswith("head.")]


@pytest.mark.parametrize(("name", "modality"), [*CASES, ("perceiver", "text")])
@pytest.mark.parametrize("tied", [False, True])
def test_every_tensor_is_ownable_an_owner_private_or_frozen_and_is_so_once(name, modality, tied):
    model = small(name, modality, tie_layers=tied)
    parts = [*ownable(model), *(n.removesuffix("weight") + "owner" for n in ownable(model)), *private_names(model)]
    assert sorted(parts) == sorted(n for n in named_tensors(model) if group_of(n) is not Group.FROZEN)
    assert all(n.startswith("backbone.") and n.endswith(".weight") for n in ownable(model))
    assert sum(weight.numel() for weight in ownable(model).values()) > 4000


def test_owners_are_tensors_like_any_other():
    model, other = toy(1, 0, 2, 0), toy(0, 0, 0, 0)
    names = ["backbone.layer.owner"]
    set_tensors(other, get_tensors(model, names), names)
    assert owners(other)[NAME].tolist() == [[1, 0, 2, 0]]
    attach_owners(other)
    assert owners(other)[NAME].tolist() == [[1, 0, 2, 0]]


def test_effective_weights_by_hand():
    model = toy(1, 2, 0, 3)
    assert effective_weights(model, 1)[NAME].tolist() == [[1, 0, 0, 0]]
    assert effective_weights(model, 2)[NAME].tolist() == [[1, 2, 0, 0]]
    assert effective_weights(model, 2, torch.tensor([False]))[NAME].tolist() == [[0, 2, 0, 0]]
    assert effective_weights(model, 3, torch.tensor([False, True]))[NAME].tolist() == [[0, 2, 0, 4]]
    assert pickable(model, 3)[NAME].tolist() == [[True, True, False, False]]
    assert model.backbone["layer"].weight.tolist() == [[1, 2, 3, 4]]
    with pytest.raises(ValueError, match="found 1 picks, expected 2"):
        effective_weights(model, 3, torch.tensor([True]))


def test_free_weights_are_claimed_once():
    model = toy(1, 0, 0, 1)
    assert count_owned(model) == {0: 2 + 12, 1: 2}
    assert claim_free(model, 2) == 2 + 12
    assert claim_free(model, 3) == 0
    assert owners(model)[NAME].tolist() == [[1, 2, 2, 1]]
    with pytest.raises(ValueError, match="task 2 came after it"):
        claim_free(model, 1)


@pytest.mark.parametrize("task", [0, 256])
def test_task_ids_fit_8_bits(task):
    with pytest.raises(ValueError, match="expected 1 to 255"):
        claim_free(toy(0, 0, 0, 0), task)


def test_a_model_without_owners_says_so():
    with pytest.raises(ValueError, match="call attach_owners first"):
        owners(tiny("image"))
    with pytest.raises(ValueError, match="no task can own"):
        attach_owners(nn.ModuleDict({"head": nn.Linear(2, 2)}))
