"""Merged parameters by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from client.donors import Donor
from client.packing.merge import average, fisher, fisher_of, merge, task_arithmetic, ties
from config import MERGES
from models.arrays import Arrays, set_arrays
from models.groups import Group
from strategies.protocol import Manifest
from tests.client.continual.helpers import separable
from tests.client.modeldiff.helpers import arrays_of
from tests.client.packing.helpers import model, packing

W, V, MEAN = "backbone.layer.weight", "backbone.norm.bias", "backbone.norm.running_var"


def arrays(weight: list[float], bias: list[float] = (0.0,), variance: list[float] = (1.0,)) -> Arrays:  # type: ignore[assignment]
    return {name: np.array(value, np.float32) for name, value in ((W, weight), (V, bias), (MEAN, variance))}


BASE = arrays([1.0, 1.0, 1.0, 1.0])
MODELS = [arrays([2.0, 1.0, 5.0, 1.0], [0.5], [3.0]), arrays([3.0, 2.0, -1.0, 1.1], [1.5], [1.0])]


def test_average() -> None:
    found = average(MODELS)
    assert found[W].tolist() == pytest.approx([2.5, 1.5, 2.0, 1.05])
    assert found[W].dtype == np.float32
    assert average(MODELS, [0.25, 0.75])[V].tolist() == pytest.approx([1.25])


def test_task_arithmetic() -> None:
    found = task_arithmetic(BASE, MODELS, 0.4)
    assert found[W].tolist() == pytest.approx([1 + 0.4 * 3, 1 + 0.4 * 1, 1 + 0.4 * 2, 1 + 0.4 * 0.1])
    assert found[V].tolist() == pytest.approx([0.8])
    assert found[MEAN].tolist() == [2.0]  # a mean, not 1 + 0.4 (2 + 0)
    mean = average(MODELS)
    assert all(np.allclose(value, mean[name]) for name, value in task_arithmetic(BASE, MODELS, 0.5).items())


def test_ties() -> None:
    # Differences (1, 0, 4, 0, 0.5) and (2, 1, -2, 0.1, 1.5). All kept: signs of the sums are +, +, +, +, +.
    found = ties(BASE, MODELS, keep=1.0, scale=1.0)
    assert found[W].tolist() == pytest.approx([1 + 1.5, 1 + 1, 1 + 4, 1 + 0.1])
    assert found[V].tolist() == pytest.approx([1.0])
    # Two of five kept: (_, _, 4, _, _) with 1, and (2, _, -2, _, _).
    found = ties(BASE, MODELS, keep=0.4, scale=0.5)
    assert found[W].tolist() == pytest.approx([1 + 0.5 * 1.5, 1.0, 1 + 0.5 * 4, 1.0])
    assert found[V].tolist() == [0.0]
    assert found[MEAN].tolist() == [2.0]


def test_fisher() -> None:
    needs = [{W: np.array([3.0, 0.0, 1.0, 1.0])}, {W: np.array([1.0, 0.0, 0.0, 1.0])}]
    found = fisher(MODELS, needs)
    assert found[W].tolist() == pytest.approx([(3 * 2 + 3) / 4, 1.5, 5.0, 1.05], rel=1e-4)
    assert found[V].tolist() == pytest.approx([1.0])  # without information: the mean


def donors() -> list[Donor]:
    used = [np.array([True, False, True, False]), np.array([True, True, False, False])]
    manifest = Manifest(0, "image", ("a", "b"), 0.5, 10, "")
    return [Donor(manifest, values, {W: mask}) for values, mask in zip(MODELS, used, strict=True)]


@pytest.mark.parametrize("how", MERGES)
def test_every_way_has_its_name(how: str) -> None:
    needs = [{W: np.ones(4)}, {W: np.ones(4)}]
    found = merge(packing(how=how), MODELS, base=BASE, fishers=needs, donors=donors())
    expected = {
        "average": average(MODELS),
        "task-arithmetic": task_arithmetic(BASE, MODELS, 0.4),
        "ties": ties(BASE, MODELS, 0.2, 1.0),
        "fisher": average(MODELS),
    }
    if how == "block-union":
        assert found[W].tolist() == [2.0, 2.0, 5.0, 0.0]
    else:
        assert found.keys() == BASE.keys()
        assert all(np.allclose(value, expected[how][name]) for name, value in found.items())


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("distil", ["'distil'", "average, task-arithmetic"]),
        ("ties", ["'ties'", "what all models began as"]),
        ("fisher", ["'fisher'", "Fisher information of each model"]),
        ("block-union", ["'block-union'", "what each donor uses"]),
    ],
)
def test_what_is_missing_is_named(how: str, words: list[str]) -> None:
    with pytest.raises(ValueError, match=r"packing\.how") as raised:
        merge(packing(how=how), MODELS)
    assert all(word in str(raised.value) for word in words)


def test_models_of_other_shapes_are_refused() -> None:
    for wrong in (arrays([1.0]), {W: MODELS[0][W]}):
        with pytest.raises(ValueError, match="model 1 differs from the first") as raised:
            average([MODELS[0], wrong])
        assert "distil them" in str(raised.value)
    with pytest.raises(ValueError, match="found no model"):
        average([])
    with pytest.raises(ValueError, match="of 1 of 2 models"):
        fisher(MODELS, [{W: np.ones(4)}])


def test_merged_models_run() -> None:
    nets, task = [model(seed) for seed in (0, 1)], separable(0, size=9).train
    found = [arrays_of(net) for net in nets]
    needs = [fisher_of(net, task, 4, seed=0) for net in nets]
    assert all(np.array_equal(value, needs[0][name]) for name, value in fisher_of(nets[0], task, 4, seed=0).items())
    assert needs[0].keys() == found[0].keys()
    student = model(2)
    set_arrays(student, fisher(found, needs))
    assert torch.isfinite(student(task.inputs)).all()
    name = next(name for name in found[0] if name.startswith(f"{Group.BACKBONE}.") and needs[0][name].any())
    between = student.state_dict()[name].numpy()
    low, high = np.minimum(found[0][name], found[1][name]), np.maximum(found[0][name], found[1][name])
    assert (low - 1e-6 <= between).all()
    assert (between <= high + 1e-6).all()
