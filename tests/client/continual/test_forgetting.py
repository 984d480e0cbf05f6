"""The promise: whatever later tasks do, the logits of earlier ones are bit-equal."""

import numpy as np
import pytest
import torch
from torch import nn

from client.continual import memory as memory_module
from client.continual import session as session_module
from client.continual.grow import widths
from client.continual.memory import ForgottenError, Memory, pack, task_model, unpack
from client.continual.ownership import attach_owners, owners
from models.arrays import get_arrays, set_arrays
from models.groups import stored_names
from models.storage import load_record, save_record
from strategies.protocol import from_arrays, to_arrays
from tests.client.continual.helpers import CASES, changed, learn, logits_of, small
from tests.models.helpers import batch


def three_tasks(model, memory, modality, **settings):
    """Learn three tasks; after each, compare with what the earlier ones were."""
    before = {}
    for task in (1, 2, 3):
        learn(model, memory, task, modality, **settings)
        after = logits_of(model, memory, modality, verify=True)
        assert changed(before, after) == []
        before = after
    return before


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize(("name", "modality"), CASES)
def test_earlier_tasks_do_not_change(name, modality, optimizer):
    model, memory = small(name, modality), Memory()
    logits = three_tasks(model, memory, modality, optimizer=optimizer)
    assert not torch.equal(logits[1], logits[2])
    assert not torch.equal(logits[2], logits[3])


@pytest.mark.parametrize(("name", "modality"), [*CASES, ("perceiver", "image")])
def test_nor_when_the_model_grows_is_stored_and_travels(name, modality, tmp_path):
    model, memory = small(name, modality), Memory()
    start = widths(model)
    logits = three_tasks(model, memory, modality)
    learn(model, memory, 4, modality, grow=True)
    assert all(width > start[seam] for seam, width in widths(model).items())
    assert changed(logits, logits_of(model, memory, modality)) == []
    logits = logits_of(model, memory, modality)

    save_record(tmp_path / "state", *pack(model, memory))
    loaded = small(name, modality, seed=7)
    arrays, facts = load_record(tmp_path / "state")
    remembered = unpack(loaded, arrays, facts)
    assert changed(logits, logits_of(loaded, remembered, modality, verify=True)) == []
    again, same_facts = pack(loaded, remembered)
    assert same_facts == {key: value for key, value in facts.items() if key != "sha256"}
    assert again.keys() == arrays.keys()
    assert all(np.array_equal(again[key], arrays[key]) for key in arrays)

    travelled = from_arrays(to_arrays(get_arrays(loaded, stored_names(loaded))))
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.zero_()
    set_arrays(loaded, travelled)
    assert changed(logits, logits_of(loaded, remembered, modality, verify=True)) == []
    learn(loaded, remembered, 5, modality, grow=True)
    assert changed(logits, logits_of(loaded, remembered, modality)) == []


def test_a_shared_adapter_stays_with_the_first_task():
    model, memory = small(modality="text"), Memory("first")
    logits = three_tasks(model, memory, "text")
    assert any(name.startswith("adapter.") for name in memory.records[1].private)
    assert not any(name.startswith("adapter.") for task in (2, 3) for name in memory.records[task].private)
    assert len(logits) == 3


class Convolutions(nn.Module):
    """Layers with weights to own, and statistics that move in training, in the backbone and in the adapter."""

    def __init__(self):
        super().__init__()
        self.adapter = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.backbone = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3))
        self.head = nn.Linear(6, 5)

    def forward(self, inputs):
        return self.head(self.backbone(self.adapter(inputs)).mean(dim=(2, 3)))


@pytest.mark.parametrize("adapter", ["private", "first"])
def test_convolutions_and_batch_statistics(adapter):
    torch.manual_seed(0)
    model, memory = Convolutions(), Memory(adapter)
    attach_owners(model)
    three_tasks(model, memory, "image")
    assert list(owners(model)) == ["backbone.0.weight", "backbone.3.weight"]
    statistics = [memory.private(task)["adapter.1.running_mean"] for task in (1, 2)]
    assert torch.equal(*statistics) == (adapter == "first")
    assert torch.equal(model.adapter[1].running_mean, statistics[0]) == (adapter == "first")


def test_the_model_of_a_task_computes_what_was_trained():
    model, memory = small(), Memory()
    learn(model, memory, 1, "image")
    session = learn(model, memory, 2, "image")
    model.eval()
    with torch.no_grad():
        trained = session(batch("image", seed=99))
    assert torch.equal(trained, logits_of(model, memory, "image")[2])
    assert not any("owner" in name for name in task_model(model, memory, 1).state_dict())


@pytest.mark.parametrize("value", [1e4, float("nan")])
def test_free_weights_compute_nothing(value):
    model, memory = small(), Memory()
    three_tasks(model, memory, "image")
    session = session_module.begin(model, memory, 3)
    model.eval()
    before, trained = logits_of(model, memory, "image"), session(batch("image"))
    with torch.no_grad():
        for name, owner in owners(model).items():
            assert (owner == 0).any()
            model.get_parameter(name)[owner == 0] = value
    assert changed(before, logits_of(model, memory, "image", verify=True)) == []
    assert torch.equal(trained, session_module.begin(model, memory, 3)(batch("image")))


def test_a_task_that_may_write_all_weights_is_caught(monkeypatch):
    model, memory = small(), Memory()
    learn(model, memory, 1, "image")
    before = logits_of(model, memory, "image")

    def write_all(session):
        with torch.no_grad():
            for weight in session_module.ownable(session.model).values():
                weight += 1e-6

    monkeypatch.setattr(session_module, "write_back", write_all)
    learn(model, memory, 2, "image")
    assert changed(before, logits_of(model, memory, "image")) == [1]
    with pytest.raises(ForgottenError, match="task 1 no longer computes"):
        task_model(model, memory, 1)


def test_an_evaluation_without_owners_is_caught(monkeypatch):
    model, memory = small(), Memory()
    learn(model, memory, 1, "image")
    before = logits_of(model, memory, "image")
    monkeypatch.setattr(memory_module, "effective_weights", lambda model, task, picks: session_module.ownable(model))
    learn(model, memory, 2, "image")
    assert changed(before, logits_of(model, memory, "image")) == [1]


def test_a_private_tensor_that_is_lost_is_caught():
    model, memory = small(), Memory()
    learn(model, memory, 1, "image")
    before = logits_of(model, memory, "image")
    learn(model, memory, 2, "image")
    memory.records[1].private["backbone.latents"] = memory.records[2].private["backbone.latents"]
    assert changed(before, logits_of(model, memory, "image")) == [1]
    with pytest.raises(ForgottenError):
        task_model(model, memory, 1)


def test_an_optimizer_reaches_no_weight_of_another_task():
    model, memory = small(), Memory()
    learn(model, memory, 1, "image")
    mine = {name: owner == 1 for name, owner in owners(model).items()}
    before = {name: model.get_parameter(name).detach().clone() for name in mine}
    learn(model, memory, 2, "image", optimizer="sgd", steps=10)
    for name, mask in mine.items():
        assert torch.equal(before[name][mask], model.get_parameter(name)[mask])
        assert not torch.equal(before[name][~mask], model.get_parameter(name)[~mask])
