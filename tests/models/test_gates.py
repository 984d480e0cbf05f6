"""Adaptive k: gate values by hand, closed columns, what training does to them, and what slicing leaves."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from models.gates import HardConcreteGate, PrefixGate, SigmoidGate, gates, log_of, make_gate, paid_columns, prefix_gate
from models.groups import named_tensors, shared_names
from models.linceiver import LinceiverIO
from models.low_rank import Basis, keep_columns
from models.size import count_macs, measure
from models.slicing import open_columns, slice_columns
from tests.models.helpers import MODALITIES, batch, tiny

PRUNING = ("prefix", "hard-concrete")
GATED = ("basis", "dense", "dense-before")


def gated(modality: str, low_rank: str, kind: str, **settings: object) -> LinceiverIO:
    """A model of 12 columns of which the gate has closed some, with a bias that depends on the input."""
    model = tiny(modality, low_rank, rank=12, adaptive_k=kind, k_input_bias=True, **settings).eval()
    assert isinstance(model, LinceiverIO)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        gate = model.adapter.gate
        if isinstance(gate, PrefixGate):
            gate.fraction.fill_(0.3)
        elif isinstance(gate, HardConcreteGate):
            gate.log_alpha.copy_(torch.linspace(-4, 4, 12)[torch.randperm(12)])
    return model


def test_prefix_gate_by_hand() -> None:
    assert prefix_gate(torch.tensor(3.0), 6, 2.0).tolist() == [1.0, 1.0, 1.0, 0.5, 0.0, 0.0]
    assert prefix_gate(torch.tensor(6.0), 6, 2.0).tolist() == [1.0] * 6
    assert prefix_gate(torch.tensor(1.0), 3, 1.0).tolist() == [1.0, 0.0, 0.0]


def test_hard_concrete_by_hand() -> None:
    gate = HardConcreteGate(3).eval()
    with torch.no_grad():
        gate.log_alpha.copy_(torch.tensor([0.0, -3.0, 3.0]))
    # sigmoid(0) x 1.2 - 0.1 = 0.5; sigmoid(-3) x 1.2 - 0.1 < 0; sigmoid(3) x 1.2 - 0.1 > 1.
    torch.testing.assert_close(gate.log_gate().exp(), torch.tensor([0.5, 0.0, 1.0]))
    shift = 2 / 3 * math.log(0.1 / 1.1)
    assert gate.cost().item() == pytest.approx(sum(1 / (1 + math.exp(-(a - shift))) for a in (0.0, -3.0, 3.0)))


def test_the_gate_of_the_first_linceiver_starts_where_it_did() -> None:
    gate = SigmoidGate(128)
    assert gate.effective_k() == pytest.approx(79.67, abs=0.01)
    assert len(gate.open_columns()) == 128
    with pytest.raises(ValueError, match="closes no column"):
        gate.keep([0])


@pytest.mark.parametrize("kind", PRUNING)
def test_at_least_one_column_stays_open(kind: str) -> None:
    gate = make_gate(kind, 5, 1.0)
    assert gate is not None
    with torch.no_grad():
        for parameter in gate.parameters():
            parameter -= 100.0
    gate.clamp_()
    assert len(gate.open_columns()) == 1
    for training in (True, False):
        gate.train(training)
        assert (gate.log_gate() > -math.inf).any()


def test_log_of_zero_is_exactly_minus_infinity_with_no_gradient() -> None:
    gate = torch.tensor([0.0, 0.5, 1.0], requires_grad=True)
    logits = log_of(gate)
    assert logits[0] == -math.inf
    F.softmax(logits, dim=0).square().sum().backward()
    assert gate.grad is not None
    assert torch.isfinite(gate.grad).all()
    assert gate.grad[0] == 0.0


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("low_rank", GATED)
@pytest.mark.parametrize("kind", PRUNING)
def test_sliced_model_gives_the_same_output(modality: str, low_rank: str, kind: str) -> None:
    model = gated(modality, low_rank, kind)
    sliced = slice_columns(model)
    columns = open_columns(model)
    assert 1 <= len(columns) < 12
    assert sliced.projection is not None
    assert next(sliced.projection.parameters()).shape[-1] == len(columns)
    inputs = batch(modality)
    torch.testing.assert_close(sliced(inputs), model(inputs), rtol=0, atol=1e-5)
    before, after = measure(model, inputs, repeats=1), measure(sliced, inputs, repeats=1)
    assert after.parameters < before.parameters
    assert after.bytes == 4 * after.parameters
    assert after.macs < before.macs
    assert open_columns(slice_columns(sliced)) == list(range(len(columns)))


@pytest.mark.parametrize("low_rank", GATED)
@pytest.mark.parametrize("kind", PRUNING)
def test_closed_columns_have_no_influence_however_large_their_keys(low_rank: str, kind: str) -> None:
    """A gate that leaked an epsilon would let a large key through."""
    model = gated("image", low_rank, kind)
    inputs = batch("image")
    before = model(inputs)
    assert model.projection is not None
    closed = sorted(set(range(12)) - set(open_columns(model)))
    with torch.no_grad():
        next(model.projection.parameters())[..., closed] *= 1e4
    assert torch.equal(model(inputs), before)


@pytest.mark.parametrize("kind", PRUNING)
def test_closed_columns_get_no_gradient(kind: str) -> None:
    model = gated("image", "basis", kind)
    model(batch("image")).square().sum().backward()
    gradient = model.get_parameter("backbone.projection.mix").grad
    assert gradient is not None
    closed = sorted(set(range(12)) - set(open_columns(model)))
    assert not gradient[:, closed].any()
    assert gradient[:, open_columns(model)].any(dim=0).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert all(p.grad.any() for p in model.adapter.gate.parameters())


def test_open_gate_changes_nothing() -> None:
    plain, gate = tiny("text", rank=12).eval(), tiny("text", rank=12, adaptive_k="hard-concrete").eval()
    torch.testing.assert_close(gate(batch("text")), plain(batch("text")), rtol=0, atol=1e-5)


def test_scaling_gate_is_a_scale_that_the_matrix_can_take_back() -> None:
    model = tiny("image", "dense", rank=12, adaptive_k="sigmoid").eval()
    inputs = batch("image")
    before, k = model(inputs), model.adapter.gate.effective_k()
    with torch.no_grad():
        model.adapter.gate.alpha /= 10
        model.adapter.projection.weight *= 10
    assert model.adapter.gate.effective_k() == pytest.approx(k / 10)
    torch.testing.assert_close(model(inputs), before, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="closes no column"):
        slice_columns(model)


@pytest.mark.parametrize("kind", PRUNING)
def test_price_closes_columns_and_target_stops_it(kind: str) -> None:
    model = tiny("image", rank=12, adaptive_k=kind)
    assert isinstance(model, LinceiverIO)
    rate = 0.01 if kind == "prefix" else 5.0
    optimizer = torch.optim.SGD([p for gate in gates(model) for p in gate.parameters()], lr=rate)
    for _ in range(400):
        optimizer.zero_grad()
        price = paid_columns(model, target=5)
        assert price is not None
        (0.1 * price).backward()
        optimizer.step()
        for gate in gates(model):
            gate.clamp_()
    assert model.adapter.gate.cost().item() == pytest.approx(5.0, abs=0.7)
    assert open_columns(model) == sorted(open_columns(model))
    assert 4 <= len(open_columns(model)) < 12 or kind == "hard-concrete"


def test_a_model_without_a_gate_pays_nothing() -> None:
    model = tiny("image")
    assert isinstance(model, LinceiverIO)
    assert paid_columns(model, 0) is None
    with pytest.raises(ValueError, match="no gate"):
        slice_columns(model)


@pytest.mark.parametrize("share", ["backbone", "backbone+adapter", "backbone+adapter+head", "attention"])
def test_gates_never_travel(share: str) -> None:
    model = tiny("text", adaptive_k="prefix", k_input_bias=True)
    kept = {"adapter.gate.fraction", "adapter.input_bias.weight", "adapter.input_bias.bias"}
    assert kept <= set(named_tensors(model))
    assert not kept & set(shared_names(model, share))


def test_input_bias_depends_on_the_input() -> None:
    model = tiny("image", k_input_bias=True)
    assert isinstance(model, LinceiverIO)
    assert model.adapter.input_bias is not None
    with torch.no_grad():
        model.adapter.input_bias.weight.normal_()
    _, mask, bias = model.keys_values(batch("image"))
    assert mask is None
    assert bias is not None
    assert bias.shape == (4, 16)
    assert not torch.allclose(bias[0], bias[1])


def test_input_bias_counts_beside_a_gate() -> None:
    model = gated("image", "basis", "prefix")
    before = model(batch("image"))
    with torch.no_grad():
        model.adapter.input_bias.bias.copy_(torch.linspace(-3, 3, 12))
    assert not torch.allclose(model(batch("image")), before)


def test_work_on_the_tokens_shrinks_with_the_columns() -> None:
    x, full, kept = torch.randn(2, 1000, 4), Basis(8), Basis(8)
    keep_columns(kept, [0, 3])
    macs = [count_macs(_Rows(projection), x) for projection in (full, kept)]
    assert macs == [2 * (8 * 1000 * 4 + 8 * 8 * 4), 2 * 8 * 1000 + 2 * (2 * 1000 * 4)]


class _Rows(torch.nn.Module):
    """A projection alone."""

    def __init__(self, projection: Basis) -> None:
        super().__init__()
        self.projection = projection

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.projection(x, lambda rows: rows, None, (x.shape[1],))


def test_macs_by_hand() -> None:
    layer = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 2))
    assert count_macs(layer, torch.zeros(7, 3)) == 7 * (15 + 10)
