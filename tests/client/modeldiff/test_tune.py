"""All candidates get the same batches and steps; calibration leaves the backbone as it came."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from client.continual.train import Optimisation, validate
from client.modeldiff import tune as module
from client.modeldiff.swap import candidate_model
from client.modeldiff.tune import Budget, calibrate, start, tune
from models.groups import Group, group_of, named_tensors
from tests.client.continual.helpers import separable
from tests.client.modeldiff.helpers import arrays_of, model_of

QUICK = Budget(epochs=2, how=Optimisation(batch_size=5), seed=3)


def copies(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in named_tensors(model).items()}


def test_tuning_learns_on_a_copy() -> None:
    model, data = model_of("image", num_classes=3), separable(1, size=30)
    before = copies(model)
    untrained = validate(model, model, data)
    accuracy = tune(model, data, Budget(epochs=15, how=Optimisation(batch_size=5)))
    assert accuracy > untrained
    assert accuracy > 0.8
    assert all(torch.equal(value, before[name]) for name, value in named_tensors(model).items())


def test_all_candidates_see_the_same_batches() -> None:
    seen: list[list[Tensor]] = []

    def augment(inputs: Tensor, generator: torch.Generator) -> Tensor:
        seen[-1].append(inputs + torch.rand(1, generator=generator))
        return seen[-1][-1]

    data = replace(separable(1), augment=augment)
    for seed, budget in ((1, QUICK), (2, QUICK), (1, replace(QUICK, seed=4))):
        seen.append([])
        torch.rand(seed)  # whatever ran before
        tune(model_of("image", num_classes=3, seed=seed), data, budget)
    assert len(seen[0]) == 6
    assert all(torch.equal(a, b) for a, b in zip(seen[0], seen[1], strict=True))
    assert not torch.equal(seen[0][0], seen[2][0])


def test_tuning_is_repeatable_and_leaves_the_random_state_alone() -> None:
    model, data = model_of("image", num_classes=3, dropout=0.5), separable(1)
    states: list[dict[str, Tensor]] = []
    random = torch.random.get_rng_state()
    for _ in range(2):
        own = calibrate(model, data, QUICK)
        states.append(copies(own))
        torch.rand(3)
        torch.random.set_rng_state(random)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    tune(model, data, QUICK)
    assert torch.equal(random, torch.random.get_rng_state())


@pytest.mark.parametrize("name", ["linceiver-io", "lenet5"])
def test_calibration_trains_adapter_and_head_alone(name: str) -> None:
    model, data = model_of("image", name, num_classes=3), separable(1, side=32 if name == "lenet5" else 16)
    before = copies(model)
    own = calibrate(model, data, QUICK)
    assert all(torch.equal(value, before[key]) for key, value in named_tensors(model).items())
    changed = {group_of(key) for key, value in named_tensors(own).items() if not torch.equal(value, before[key])}
    assert changed == ({Group.HEAD} if name == "lenet5" else {Group.ADAPTER, Group.HEAD})  # not even running means
    assert all(p.requires_grad for p in own.parameters())
    assert not own.training


def test_what_a_target_begins_with() -> None:
    fresh, own = model_of("image", seed=0), model_of("image", seed=5)
    for modality, same_classes, groups in (
        ("image", True, {Group.BACKBONE, Group.ADAPTER, Group.HEAD}),
        ("image", False, {Group.BACKBONE, Group.ADAPTER}),
        ("text", True, {Group.BACKBONE}),
    ):
        donor = model_of(modality, seed=1)
        model = candidate_model(arrays_of(donor), modality, own, "image")
        begun = start(model, fresh, same_modality=modality == "image", same_classes=same_classes)
        for key, value in named_tensors(begun).items():
            owner = donor if group_of(key) in groups else fresh
            assert torch.equal(value, named_tensors(owner)[key]), key
            assert value is not named_tensors(fresh)[key]


def test_all_groups_are_tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []
    train = module.train
    monkeypatch.setattr(
        module, "train", lambda *args, **kw: found.extend(len(g["params"]) for g in args[2]) or train(*args, **kw)
    )
    model = model_of("image", num_classes=3)
    tune(model, separable(1), QUICK)
    matrices = sum(p.ndim >= 2 for p in model.parameters())
    assert found == [matrices, len(list(model.parameters())) - matrices]
