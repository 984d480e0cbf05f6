import pytest
import torch

from client.pruning import kept_columns, without_closed_columns
from tests.models.helpers import batch, tiny


def test_costs_with_and_without_the_closed_columns():
    model = tiny("text", adaptive_k="prefix").eval()
    with torch.no_grad():
        model.adapter.gate.fraction.fill_(0.25)
    assert kept_columns(model) == {"columns": [0, 1, 2, 3, 4], "k": 5}  # 4 and the half-open one of the ramp of 2
    sliced, facts = without_closed_columns(model, batch("text"))
    assert (facts["k"], facts["k-max"]) == (5, 16)
    assert facts["parameters-full"] - facts["parameters-kept"] == 11 * 16
    assert facts["bytes-full"] - facts["bytes-kept"] == 4 * 11 * 16
    assert facts["macs-kept"] < facts["macs-full"]
    assert facts["logit-change"] <= 1e-5
    assert sliced.projection.mix.shape == (16, 5)
    assert model.projection.mix.shape == (16, 16)


def test_a_model_without_a_gate_is_left_alone():
    model = tiny("text")
    assert kept_columns(model) == {}
    assert without_closed_columns(model, batch("text")) == (model, {})


def test_the_scaling_gate_reports_its_number_and_keeps_all():
    model = tiny("text", adaptive_k="sigmoid")
    assert kept_columns(model)["columns"] == list(range(16))
    same, facts = without_closed_columns(model, batch("text"))
    assert same is model
    assert facts["effective-k"] == pytest.approx(16 * 0.6225, abs=0.01)
