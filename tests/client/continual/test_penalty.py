import pytest
import torch
from torch import nn

from client.continual.penalty import fisher_diagonal, quadratic_penalty
from tests.models.helpers import batch, tiny


def logistic():
    """Two logits (w x, 0) of one number x; p = sigmoid(w x)."""
    model = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0], [0.0]]))
    return model


def test_empirical_fisher_by_hand():
    inputs, labels = torch.tensor([[1.0], [2.0]]), torch.tensor([0, 1])
    found = fisher_diagonal(logistic(), inputs, labels, ["weight"], kind="data")["weight"]
    p = torch.sigmoid(inputs[:, 0])
    expected = (((1 - p[0]) * 1) ** 2 + (p[1] * 2) ** 2) / 2  # the squared gradient of log p(y | x), mean over samples
    assert found[0].item() == pytest.approx(expected.item(), rel=1e-5)


def test_sampled_fisher_is_that_of_the_model_whatever_the_labels():
    inputs = torch.full((4000, 1), 1.0)
    p = torch.sigmoid(torch.tensor(1.0))
    found = [
        fisher_diagonal(logistic(), inputs, labels, ["weight"], generator=torch.Generator().manual_seed(0))["weight"]
        for labels in (torch.zeros(4000, dtype=torch.int64), torch.ones(4000, dtype=torch.int64))
    ]
    assert torch.equal(found[0], found[1])
    assert found[0][0].item() == pytest.approx((p * (1 - p)).item(), rel=0.05)


def test_samples_do_not_cancel():
    inputs, labels = torch.tensor([[1.0], [-1.0]]), torch.tensor([0, 0])
    assert fisher_diagonal(logistic(), inputs, labels, ["weight"], kind="data")["weight"].min() > 0.05


def test_penalty_by_hand():
    now = {"w": torch.tensor([3.0, 1.0], requires_grad=True), "other": torch.zeros(1)}
    value = quadratic_penalty(now, {"w": torch.tensor([2.0, 5.0])}, {"w": torch.tensor([1.0, 1.0])}, 10.0)
    assert value.item() == pytest.approx(0.5 * 10 * 2 * 4)
    value.backward()
    assert now["w"].grad.tolist() == [40.0, 0.0]


def test_the_mode_of_the_model_is_kept_and_unused_parameters_count_nothing():
    model = tiny("text").train()
    names = [name for name, _ in model.named_parameters()]
    found = fisher_diagonal(model, batch("text"), torch.arange(4), names)
    assert model.training
    assert all((value >= 0).all() and value.shape == model.get_parameter(name).shape for name, value in found.items())
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(ValueError, match="found no sample"):
        fisher_diagonal(model, batch("text")[:0], torch.arange(0), names)
