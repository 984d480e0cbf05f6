import dataclasses

import pytest
import torch
from torch import nn

from client import training
from client.learner import moments, restore_moments
from config import Data, Train
from data_partition.client_data import Split
from data_partition.series_augment import change
from tests.models.helpers import batch, tiny


def recipe(mu=0.0, **train):
    return training.Recipe(Train(**train), Data(augment=False), "image", None, mu)


def linear(value=0.0):
    model = nn.Linear(2, 2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)
    return model


X, Y = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])


def test_proximal_term_by_hand():
    model = linear(0.0)
    anchor = {name: torch.full_like(value, 0.5) for name, value in model.named_parameters()}
    plain = training.training_step(model, torch.optim.SGD(model.parameters(), 0.0), X, Y, recipe(), {})
    near = training.training_step(model, torch.optim.SGD(model.parameters(), 0.0), X, Y, recipe(mu=2.0), anchor)
    assert plain == pytest.approx(0.6931, abs=1e-4)
    assert near - plain == pytest.approx(0.5 * 2.0 * 6 * 0.25)  # 6 parameters, each 0.5 away


def test_gradients_are_clipped():
    model = linear(0.0)
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    training.training_step(model, optimizer, 100 * X, Y, recipe(clip_norm=0.1), {})
    moved = torch.cat([p.detach().flatten() for p in model.parameters()]).norm()
    assert moved == pytest.approx(0.1, abs=1e-4)


def test_a_loss_that_is_not_finite_stops_the_client():
    with pytest.raises(FloatingPointError, match=r"lower train\.learning-rate"):
        training.training_step(linear(float("nan")), torch.optim.SGD([nn.Parameter(X)], 1.0), X, Y, recipe(), {})


def test_weight_decay_spares_biases():
    groups = training.make_optimizer(linear(), Train(weight_decay=0.3), 0.02).param_groups
    assert [(group["weight_decay"], [p.ndim for p in group["params"]]) for group in groups] == [(0.3, [2]), (0.0, [1])]


def test_nesterov_momentum_and_weight_decay_by_hand():
    """A matrix w = 2 and a bias b = 2 whose gradients are 0.5, rate 1, momentum 0.9, decay 0.1 of the matrix alone.

    w: g = 0.5 + 0.2 = 0.7, v = 0.7, w = 2 - (0.7 + 0.9 v) = 0.67; g = 0.567, v = 0.63 + g = 1.197, w = 0.67 - (g + 0.9 v).
    b: v = 0.5, b = 2 - 0.95 = 1.05; v = 0.45 + 0.5 = 0.95, b = 1.05 - (0.5 + 0.855).
    """
    model = linear(2.0)
    settings = Train(optimizer="sgd", momentum=0.9, weight_decay=0.1, learning_rate=1.0)
    optimizer = training.make_optimizer(model, settings, 0.02)
    for weight, bias in ((0.67, 1.05), (0.67 - 0.567 - 0.9 * 1.197, 1.05 - 1.355)):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 0.5)
        optimizer.step()
        assert model.weight.tolist() == [[pytest.approx(weight, abs=1e-5)] * 2] * 2
        assert model.bias.tolist() == [pytest.approx(bias, abs=1e-5)] * 2
    plain = linear(2.0)
    optimizer = training.make_optimizer(plain, Train(optimizer="sgd", momentum=0.0, weight_decay=0.0, learning_rate=1.0), 0.02)
    training.training_step(plain, optimizer, X, Y, recipe(clip_norm=0.0), {})
    assert plain.weight.tolist() == [[2.25, 1.75], [1.75, 2.25]]


def test_the_default_is_adamw():
    optimizer = training.make_optimizer(linear(), Train(learning_rate=0.3), 0.02)
    assert type(optimizer) is torch.optim.AdamW
    assert optimizer.defaults == {**torch.optim.AdamW([X], lr=0.3).defaults, "fused": True}


def test_gates_have_a_learning_rate_of_their_own():
    model = tiny("image", adaptive_k="prefix")
    optimizer = training.make_optimizer(model, Train(learning_rate=0.5, schedule="constant", warmup=0.0), 0.02)
    training.set_learning_rate(optimizer, Train(learning_rate=0.5, schedule="constant", warmup=0.0), 0, 10)
    rates = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    assert rates[id(model.adapter.gate.fraction)] == (pytest.approx(0.02), 0.0)
    assert rates[id(model.adapter.to_kv.weight)] == (0.5, 0.05)
    assert len(rates) == len(list(model.parameters()))


def test_price_of_columns_is_in_the_loss_and_gates_stay_in_range():
    model = tiny("image", adaptive_k="prefix", dropout=0.0)
    inputs, labels = batch("image"), torch.arange(4)
    optimizer = torch.optim.SGD(model.parameters(), 10.0)
    priced = dataclasses.replace(recipe(clip_norm=0.0), k_target=4)
    free = training.training_step(model, torch.optim.SGD(model.parameters(), 0.0), inputs, labels, priced, {})
    paid = training.training_step(model, optimizer, inputs, labels, priced, {}, 0.5)
    assert paid - free == pytest.approx(0.5 * (16 - 4), abs=1e-4)
    assert model.adapter.gate.fraction.item() == pytest.approx(1 / 16)


def test_images_are_shifted_as_the_run_says():
    images = torch.full((40, 3, 8, 8), 200, dtype=torch.uint8)

    def changed(**fields):
        how = training.Recipe(Train(), Data(**fields), "image", None)
        return training.augmented(images, how, torch.Generator().manual_seed(0))

    assert (changed() == 200).all()
    assert (changed(shift=0, shift_border="zero") == 200).all()
    black = changed(shift=2, shift_border="zero") == 0
    assert black.any(dim=0).any(dim=0).sum() == 8 * 8 - 4 * 4
    assert changed(augment=False, shift_border="zero") is images


def test_series_are_changed_as_the_run_says():
    windows = torch.randn(40, 2, 20)

    def changed(**fields):
        settings = Data(dataset="watch", grouping="subjects", **fields)
        how = training.Recipe(Train(), settings, "series", None)
        return training.augmented(windows, how, torch.Generator().manual_seed(0))

    assert (changed(series_augment="removal") == 0).any()
    assert not (changed(series_augment="shift") == 0).any()
    assert torch.equal(changed(), change(windows, "mix1", torch.Generator().manual_seed(0)))
    assert changed(augment=False) is windows


def test_an_epoch_visits_every_example_once():
    split = Split(torch.arange(7).float()[:, None], torch.arange(7))
    seen = [label for _, labels in training.batches(split, 3, torch.Generator()) for label in labels.tolist()]
    assert sorted(seen) == list(range(7))
    assert training.steps_per_epoch(split, 3) == 3


@pytest.mark.parametrize(("name", "kept"), [("adamw", 3), ("sgd", 1)])
def test_moments_survive_storage(name, kept):
    model, settings = linear(0.1), Train(optimizer=name)
    optimizer = training.make_optimizer(model, settings, 0.02)
    training.training_step(model, optimizer, X, Y, recipe(), {})
    parameters = dict(model.named_parameters())
    fresh = training.make_optimizer(model, settings, 0.02)
    restore_moments(fresh, parameters, moments(optimizer, parameters))
    for parameter in parameters.values():
        assert len(optimizer.state[parameter]) == kept
        for key, value in optimizer.state[parameter].items():
            assert torch.equal(value, fresh.state[parameter][key])


def test_evaluation_by_hand():
    model = linear(0.0)
    with torch.no_grad():
        model.weight.copy_(torch.eye(2))
    split = Split(torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0, 1, 1]))
    metrics = training.evaluate(model, split, 2, torch.device("cpu"))
    assert metrics["accuracy"] == pytest.approx(0.75)
    assert metrics["balanced-accuracy"] == pytest.approx(0.75)
    assert metrics["num-examples"] == 4


def toy(precision, modality, steps=25):
    """Train a small Linceiver IO on a few inputs it can tell apart; return it and the loss of each step."""
    model, inputs = tiny(modality, num_classes=3, dropout=0.0), batch(modality, 6)
    settings = Train(precision=precision, learning_rate=3e-3)
    how = training.Recipe(settings, Data(augment=False), modality, None)
    optimizer = training.make_optimizer(model, settings, 0.02)
    model.train()
    labels = torch.arange(6) % 3
    losses = [training.training_step(model, optimizer, inputs, labels, how, {}) for _ in range(steps)]
    metrics = training.evaluate(model, Split(inputs, labels), 3, torch.device("cpu"), precision)
    return model, losses, metrics, optimizer


@pytest.mark.parametrize("modality", ["image", "text"])
def test_bfloat16_trains_float32_weights(modality):
    plain, _, _, _ = toy("float32", modality)
    model, losses, metrics, optimizer = toy("bfloat16", modality)
    assert losses[-1] < 0.3 * losses[0]
    assert metrics["accuracy"] == 1.0
    assert metrics["loss"] == pytest.approx(losses[-1], abs=0.1)
    assert {p.dtype for p in model.parameters()} == {p.grad.dtype for p in model.parameters()} == {torch.float32}
    assert {v.dtype for state in optimizer.state.values() for v in state.values()} == {torch.float32}
    assert any(not torch.equal(a, b) for a, b in zip(plain.parameters(), model.parameters(), strict=True))


def test_evaluation_computes_in_the_given_precision():
    model, inputs = tiny("image", num_classes=3), batch("image", 6)
    split, device = Split(inputs, torch.arange(6) % 3), torch.device("cpu")
    plain, half = (training.evaluate(model, split, 3, device, p)["loss"] for p in ("float32", "bfloat16"))
    assert plain == training.evaluate(model, split, 3, device)["loss"]
    assert 0 < abs(plain - half) < 0.02


def test_the_loss_is_computed_in_float32():
    model = linear(0.0)
    seen = []
    model.register_forward_hook(lambda module, given, logits: seen.append(logits.dtype))
    with torch.no_grad():
        model.weight.copy_(torch.eye(2) * 8)
    loss = training.training_step(model, torch.optim.SGD(model.parameters(), 0.0), X, Y, recipe(precision="bfloat16"), {})
    assert seen == [torch.bfloat16]
    assert loss == pytest.approx(torch.nn.functional.softplus(torch.tensor(-8.0)).item(), rel=1e-3)  # 0.000335; 0 in bfloat16
