"""B' is B where nothing is swapped, is another model where something is, and is made of verified arrays alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from client.modeldiff.outputs import outputs
from client.modeldiff.probes import random_pairs
from client.modeldiff.swap import candidate_model, paired, whole_model
from models.groups import Group, group_of, named_tensors
from tests.client.modeldiff.helpers import ALL, CASES, CPU, arrays_of, model_of, probes_of


@pytest.mark.parametrize(("name", "modality"), CASES)
def test_nothing_is_swapped_inside_the_modality(name: str, modality: str) -> None:
    donor, target = model_of(modality, name, seed=1), model_of(modality, name, seed=2)
    probes = probes_of(donor, modality)
    found = outputs(candidate_model(arrays_of(donor), modality, target, modality), probes, CPU)
    expected = outputs(donor, probes, CPU)
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.features, expected.features)
    assert not torch.equal(found.logits, outputs(target, probes, CPU).logits)


@pytest.mark.parametrize("name", ["linceiver-io", "perceiver-io", "perceiver", "beit3"])
@pytest.mark.parametrize("share", ["backbone", ALL])
def test_across_modalities_adapter_and_head_are_the_targets(name: str, share: str) -> None:
    donor, target = model_of("text", name, num_classes=7, seed=1), model_of("image", name, seed=2)
    before = {key: value.clone() for key, value in named_tensors(target).items()}
    model = candidate_model(arrays_of(donor, share), "text", target, "image")
    for key, value in named_tensors(model).items():
        owner = donor if group_of(key) is Group.BACKBONE else target
        assert torch.equal(value, named_tensors(owner)[key]), key
    probes = probes_of(target, "image")
    found, own = outputs(model, probes, CPU), outputs(target, probes, CPU)
    assert not torch.allclose(found.features, own.features)
    assert not torch.allclose(found.logits, own.logits)
    assert all(torch.equal(value, before[key]) for key, value in named_tensors(target).items())


def test_what_did_not_come_is_the_targets() -> None:
    donor, target = model_of("image", seed=1), model_of("image", seed=2)
    for share, mine in (("backbone", {Group.BACKBONE}), ("backbone+adapter", {Group.BACKBONE, Group.ADAPTER})):
        model = candidate_model(arrays_of(donor, share), "image", target, "image")
        for key, value in named_tensors(model).items():
            owner = donor if group_of(key) in mine else target
            assert torch.equal(value, named_tensors(owner)[key]), key


def test_gates_never_travel_and_stay() -> None:
    donor, target = (model_of("image", adaptive_k="prefix", seed=seed) for seed in (1, 2))
    with torch.no_grad():
        next(target.adapter.gate.parameters()).fill_(3.0)
    model = candidate_model(arrays_of(donor), "image", target, "image")
    assert float(next(model.adapter.gate.parameters()).detach()) == 3.0


def test_a_head_may_have_other_classes() -> None:
    donor, target = model_of("image", num_classes=9, seed=1), model_of("image", seed=2)
    probes = probes_of(donor, "image")
    state = torch.random.get_rng_state()
    model = candidate_model(arrays_of(donor), "image", target, "image")
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(outputs(model, probes, CPU).logits, outputs(donor, probes, CPU).logits)
    assert model.head.classifier.out_features == 9
    assert target.head.classifier.out_features == 5


def damaged(kind: str) -> dict[str, np.ndarray]:
    arrays = arrays_of(model_of("image", num_classes=9, seed=1))
    if kind == "missing":
        del arrays["backbone.latents"]
    elif kind == "half an adapter":
        del arrays["adapter.to_kv.weight"]
    elif kind == "unknown":
        arrays["backbone.extra"] = np.zeros(3, np.float32)
    elif kind == "no group":
        arrays["trunk.extra"] = np.zeros(3, np.float32)
    elif kind == "shape":
        arrays["backbone.latents"] = arrays["backbone.latents"][:2]
    elif kind == "kind":
        arrays["backbone.latents"] = arrays["backbone.latents"].astype(np.int64)
    elif kind == "nan":
        arrays["backbone.latents"][0, 0] = np.nan
    elif kind == "head":
        arrays["head.classifier.bias"] = arrays["head.classifier.bias"][:4]
    return arrays


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", r"'backbone\.latents' is missing: found \d+ tensors, expected \d+"),
        ("half an adapter", r"'adapter\.to_kv\.weight' is missing"),
        ("unknown", r"'backbone\.extra' is unknown: expected one of"),
        ("no group", r"'trunk\.extra' is in no group"),
        ("shape", r"found shape \(2, 32\), expected \(4, 32\)"),
        ("kind", r"found torch\.int64, expected torch\.float32"),
        ("nan", r"found 1 of 128 values NaN or infinite"),
        ("head", r"found weight and bias of \(\(9, 32\), \(4,\)\), expected \(K, 32\) and \(K,\)"),
    ],
)
def test_damaged_arrays_are_refused(kind: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        candidate_model(damaged(kind), "image", model_of("image"), "image")


def test_paired_models_see_their_own_modality() -> None:
    image, text = model_of("image"), model_of("text")
    x, y = probes_of(image, "image"), probes_of(text, "text")
    pairs = random_pairs(10, 5, 0)
    own, other = paired(image, x.inputs, text, y.inputs, pairs, CPU)
    assert torch.equal(own.logits, outputs(image, x, CPU).logits)
    assert torch.equal(other.logits, outputs(text, y, CPU).logits)
    with pytest.raises(ValueError, match="found 10 inputs of the target and 9 of the donor"):
        paired(image, x.inputs, text, y.inputs[:9], pairs, CPU)


@pytest.mark.parametrize("name", ["linceiver-io", "perceiver-io", "perceiver", "beit3"])
@pytest.mark.parametrize("share", ["backbone+adapter", ALL])
def test_a_whole_model_is_the_donors(name: str, share: str) -> None:
    donor, target = model_of("text", name, num_classes=5, seed=1), model_of("image", name, seed=2)
    fresh = model_of("text", name, seed=3)
    probes = probes_of(donor, "text")
    model = whole_model(arrays_of(donor, share), "text", fresh, target)
    found, expected = outputs(model, probes, CPU), outputs(donor, probes, CPU)
    assert torch.equal(found.features, expected.features)
    assert torch.equal(found.logits, expected.logits) == (share == ALL)
    for key, value in named_tensors(model).items():
        if group_of(key) is Group.HEAD:
            assert torch.equal(value, named_tensors(donor if share == ALL else target)[key])
    with pytest.raises(ValueError, match="its adapter did not come"):
        whole_model(arrays_of(donor, "backbone"), "text", fresh, target)
