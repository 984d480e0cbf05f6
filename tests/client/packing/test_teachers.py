"""Checkpoints of teachers, and ensembles."""

from __future__ import annotations

import pytest
import torch

from client.continual.train import Optimisation, validate
from client.modeldiff.tune import Budget
from client.packing import teachers as module
from client.packing.ensemble import ensemble_logits
from client.packing.teachers import prototypes_of, train_teacher
from models.groups import Group, group_of
from tests.client.continual.helpers import separable
from tests.client.packing.helpers import CPU, model, same, tensors, texts

BUDGET = Budget(epochs=4, how=Optimisation(batch_size=5), seed=3)
WHOLE = (Group.BACKBONE, Group.ADAPTER, Group.HEAD)


def test_calibration_leaves_the_backbone_and_the_donor_as_they_came() -> None:
    donor, task = model(0), separable(1, size=15)
    before = tensors(donor)
    calibrated = train_teacher(donor, task, BUDGET)
    assert same(before, tensors(donor))
    moved = {group_of(name) for name, value in tensors(calibrated).items() if not torch.equal(value, before[name])}
    assert moved == {Group.ADAPTER, Group.HEAD}
    assert all(parameter.requires_grad for parameter in calibrated.parameters())
    whole = train_teacher(donor, task, BUDGET, WHOLE)
    assert {group_of(name) for name, value in tensors(whole).items() if not torch.equal(value, before[name])} == set(WHOLE)


@pytest.mark.parametrize("best", [1, 3, 4])
def test_the_checkpoint_is_an_epoch_of_the_same_training(monkeypatch: pytest.MonkeyPatch, best: int) -> None:
    task, seen = separable(1, size=15), []

    def watched(net: torch.nn.Module, *args: object) -> float:
        validate(net, net, task)
        seen.append(tensors(net))
        return 0.9 if len(seen) >= best else 0.5  # equal from there on: the first counts

    monkeypatch.setattr(module, "validate", watched)
    found = train_teacher(model(0, dropout=0.2), task, BUDGET, WHOLE, "best-validation")
    assert len(seen) == BUDGET.epochs
    assert same(tensors(found), seen[best - 1])
    last = train_teacher(model(0, dropout=0.2), task, BUDGET, WHOLE, "last")
    assert len(seen) == BUDGET.epochs  # not validated
    assert same(tensors(last), seen[-1])
    assert same(tensors(last), tensors(found)) == (best == BUDGET.epochs)


def test_prototypes_are_mean_features() -> None:
    net, task = model(0).eval(), separable(1, size=9).train
    with torch.no_grad():
        features = net.trace(task.inputs).queries.mean(dim=1)  # type: ignore[operator]
    found = prototypes_of(net, task.inputs, task.labels, 3, CPU)
    torch.testing.assert_close(found[1], features[task.labels == 1].mean(dim=0))


def test_ensembles_by_hand() -> None:
    models = [model(seed, modality="text").eval() for seed in (0, 1)]
    inputs = texts(300)  # more than one batch
    with torch.no_grad():
        logits = torch.stack([net(inputs) for net in models])
    tight = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(ensemble_logits(models, inputs, CPU), logits.mean(dim=0), **tight)
    weighted = ensemble_logits(models, inputs, CPU, weights=[0.25, 0.75])
    torch.testing.assert_close(weighted, 0.25 * logits[0] + 0.75 * logits[1], **tight)
    probable = ensemble_logits(models, inputs, CPU, over="probabilities").softmax(dim=1)
    torch.testing.assert_close(probable, logits.softmax(dim=2).mean(dim=0), **tight)
    for weights in ([1.0], [0.5, 0.6]):
        with pytest.raises(ValueError, match="found 2 models and weights"):
            ensemble_logits(models, inputs, CPU, weights=weights)
    with pytest.raises(ValueError, match="found 0 models"):
        ensemble_logits([], inputs, CPU)
