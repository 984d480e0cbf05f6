"""What holds for every model of tokens: padding, gradients, training, trace, one backbone for several models, tied layers."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from client.joint import share_modules
from models.groups import Group, get_tensors, group_names, named_tensors, set_tensors, shared_names
from models.size import count
from models.trace import Trace
from tests.models.helpers import MODALITIES, TOKEN_MODELS, batch, tiny

EVERY_MODEL = pytest.mark.parametrize(("name", "modality"), [(name, m) for name in TOKEN_MODELS for m in MODALITIES])
EVERY_NAME = pytest.mark.parametrize("name", TOKEN_MODELS)


def toy(modality: str) -> tuple[Tensor, Tensor]:
    """Twenty inputs of five classes that differ in one row of patches, one word, or one stretch of time."""
    torch.manual_seed(0)
    labels = torch.arange(20) % 5
    if modality == "image":
        inputs = 0.3 * torch.rand(20, 3, 16, 16)
        for i, label in enumerate(labels):
            inputs[i, :, 3 * label : 3 * label + 3] += 0.6
    elif modality == "series":
        inputs = torch.randn(20, 6, 48)
        for i, label in enumerate(labels):
            inputs[i, :, 8 * label : 8 * label + 8] += 2
    else:
        inputs = torch.randint(10, 30, (20, 6))
        inputs[:, 2] = labels + 1
    return inputs, labels


def train(model: nn.Module, modality: str, steps: int) -> list[float]:
    """Losses of a few steps on the toy problem."""
    inputs, labels = toy(modality)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@EVERY_NAME
@pytest.mark.parametrize("length", [1, 3, 9])
def test_padding_does_not_change_the_output(name: str, length: int) -> None:
    model = tiny("text", name=name).eval()
    ids = torch.randint(1, 30, (4, length), generator=torch.Generator().manual_seed(0))
    padded = F.pad(ids, (0, 12 - length))
    mixed = torch.cat([padded, torch.full((1, 12), 7)])
    # Padding must have something to say that could be heard.
    model.get_submodule("adapter.front").embed.weight.data[0] = 3.0
    with torch.no_grad():
        torch.testing.assert_close(model(padded), model(ids), rtol=0, atol=1e-5)
        torch.testing.assert_close(model(mixed)[:4], model(ids), rtol=0, atol=1e-5)


@EVERY_NAME
def test_all_padding_is_finite(name: str) -> None:
    model = tiny("text", name=name)
    ids = batch("text")
    ids[1] = 0
    logits = model(ids)
    logits.sum().backward()
    assert torch.isfinite(logits).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)


@EVERY_MODEL
def test_gradient_reaches_every_parameter(name: str, modality: str) -> None:
    model = tiny(modality, name=name, layers=3)
    F.cross_entropy(model(batch(modality, 8)), torch.arange(8) % 5).backward()
    unreached = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert unreached == []


@EVERY_MODEL
def test_loss_falls_on_a_toy_problem(name: str, modality: str) -> None:
    losses = train(tiny(modality, name=name, dropout=0.0), modality, steps=30)
    assert losses[-1] < 0.5 * losses[0]


@EVERY_MODEL
def test_trace(name: str, modality: str) -> None:
    model, inputs = tiny(modality, name=name, layers=3).eval(), batch(modality)
    trace = model.trace(inputs)
    assert isinstance(trace, Trace)
    rows = {"image": 16, "text": 10, "series": 12}[modality] if name == "beit3" else 8
    stages = 3 if name == "perceiver" else 4
    assert [latents.shape for latents in trace.latents] == [(4, rows, 64)] * stages
    assert trace.queries.shape == (4, 1, 64)
    assert torch.equal(trace.logits, model(inputs))
    torch.testing.assert_close(trace.logits, model.head.classifier(trace.queries.mean(dim=1)))
    assert all(not torch.equal(first, second) for first, second in zip(trace.latents, trace.latents[1:], strict=False))


@EVERY_MODEL
def test_autocast_is_near_float32(name: str, modality: str) -> None:
    model, inputs = tiny(modality, name=name).eval(), batch(modality)
    with torch.no_grad():
        expected = model(inputs)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(model(inputs).float(), expected, rtol=0, atol=0.1)


@EVERY_NAME
@pytest.mark.parametrize("tied", [False, True])
def test_a_copy_is_equal_and_apart(name: str, tied: bool) -> None:
    model, inputs = tiny("text", name=name, layers=3, tie_layers=tied).eval(), batch("text")
    twin = copy.deepcopy(model)
    assert list(named_tensors(twin)) == list(named_tensors(model))
    before = model(inputs)
    assert torch.equal(twin(inputs), before)
    train(twin, "text", steps=1)
    assert torch.equal(model(inputs), before)
    assert not torch.equal(twin(inputs), before)


@EVERY_NAME
def test_one_backbone_serves_both_modalities(name: str) -> None:
    image, text = tiny("image", name=name, seed=1), tiny("text", name=name, seed=2).eval()
    own = {group: get_tensors(text, group_names(text, group)) for group in (Group.ADAPTER, Group.HEAD)}
    apart = text(batch("text"))
    group = SimpleNamespace(modality="", classes=())
    learners = [SimpleNamespace(model=model, data=SimpleNamespace(subgroup=group)) for model in (image, text)]
    share_modules(learners, "backbone", "all")  # type: ignore[arg-type]
    assert text.get_submodule("backbone") is image.get_submodule("backbone")
    together = text(batch("text"))
    assert not torch.allclose(together, apart)
    train(image, "image", steps=1)
    assert not torch.allclose(text.eval()(batch("text")), together)
    for tensors in own.values():
        for tensor, value in tensors.items():
            assert torch.equal(named_tensors(text)[tensor], value)


@EVERY_NAME
def test_a_backbone_set_into_another_model_makes_them_equal(name: str) -> None:
    """The shared part holds all that the adapters and heads do not: nothing of a modality is lost on the way."""
    source, target = tiny("text", name=name, seed=1).eval(), tiny("text", name=name, seed=2).eval()
    set_tensors(target, get_tensors(source, group_names(source, Group.ADAPTER, Group.HEAD)))
    assert not torch.allclose(source(batch("text")), target(batch("text")))
    set_tensors(target, get_tensors(source, shared_names(source, "backbone")))
    assert torch.equal(source(batch("text")), target(batch("text")))


@pytest.mark.parametrize("name", TOKEN_MODELS)
@pytest.mark.parametrize("modality", MODALITIES)
def test_tied_layers_travel_once(name: str, modality: str) -> None:
    tied, free = tiny(modality, name=name, layers=4, tie_layers=True), tiny(modality, name=name, layers=4)
    distinct = 2 if name == "perceiver" else 1
    places = [tensor.data_ptr() for tensor in named_tensors(tied).values()]
    assert len(set(places)) == len(places)
    assert {int(one.split(".")[2]) for one in named_tensors(tied) if one.startswith("backbone.layers.")} == set(
        range(distinct)
    )
    short = tiny(modality, name=name, layers=distinct)
    assert count(tied) == count(short)
    assert count(tied)[Group.BACKBONE] < count(free)[Group.BACKBONE]

    tied, short = tied.eval(), short.eval()
    assert list(named_tensors(tied)) == list(named_tensors(short))
    stages = [len(model.trace(batch(modality)).latents) for model in (tied, short)]
    assert stages[0] - stages[1] == 4 - distinct

    other = tiny(modality, name=name, layers=4, tie_layers=True, seed=1).eval()
    set_tensors(other, get_tensors(tied, group_names(tied, Group.ADAPTER, Group.HEAD)))
    names = shared_names(tied, "backbone")
    changed = {one: value + 0.1 * torch.randn_like(value) for one, value in get_tensors(tied, names).items()}
    before = tied(batch(modality))
    for model in (tied, other):
        set_tensors(model, changed, names)
    assert all(torch.equal(value, changed[one]) for one, value in get_tensors(other, names).items())
    assert torch.equal(other(batch(modality)), tied(batch(modality)))
    assert not torch.allclose(tied(batch(modality)), before)
