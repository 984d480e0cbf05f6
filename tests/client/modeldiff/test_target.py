"""A target and its candidates as scorers see them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from client.continual.train import Optimisation
from client.modeldiff import target as module
from client.modeldiff.outputs import outputs
from client.modeldiff.probes import choose
from client.modeldiff.target import Ground, make_candidate, make_target, tune_without
from client.modeldiff.tune import Budget, tune
from models.arrays import Arrays
from strategies.protocol import Manifest
from tests.client.continual.helpers import separable
from tests.client.modeldiff.helpers import CPU, arrays_of, model_of

QUICK = Budget(epochs=1, how=Optimisation(batch_size=5))


def ground(**changes: object) -> Ground:
    data = separable(1)
    own, fresh = model_of("image", num_classes=3, seed=5), model_of("image", num_classes=3)
    found = Ground(
        "image",
        ("a", "b", "c"),
        own,
        fresh,
        data,
        choose(data.train, 9, 0),
        calibration=QUICK,
        tuning=QUICK,
        alone=QUICK,
        seed=7,
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def donor(modality: str = "image", classes: tuple[str, ...] = ("a", "b", "c")) -> tuple[Manifest, Arrays]:
    return Manifest(4, modality, classes, 0.5, 9, ""), arrays_of(model_of(modality, num_classes=len(classes), seed=1))


def test_target_is_its_own_models_outputs_on_the_probes() -> None:
    here = ground()
    target = make_target(here)
    assert target.num_classes == 3
    assert target.seed == 7
    assert torch.equal(target.labels, here.probes.labels)
    assert torch.equal(target.pairs, here.probes.pairs)
    assert torch.equal(target.own.logits, outputs(here.own, here.probes, CPU).logits)


def test_candidates() -> None:
    here = ground()
    inside, stranger, across = (make_candidate(here, *d) for d in (donor(), donor(classes=tuple("abcde")), donor("text")))
    assert [c.same_modality for c in (inside, stranger, across)] == [True, True, False]
    assert inside.partition_id == 4
    own = model_of("image", num_classes=3, seed=1)
    assert torch.equal(inside.outputs.logits, outputs(own, here.probes, CPU).logits)
    assert stranger.outputs.logits.shape == (9, 5)
    assert across.outputs.logits.shape == (9, 3)
    assert inside.tune() == inside.tune() == tune(own, here.data, QUICK)
    assert 0.0 <= stranger.tune() <= 1.0
    assert 0.0 <= across.tune() <= 1.0


def test_calibrated_candidates_have_the_targets_classes() -> None:
    here = ground(arm="calibrate")
    for found in (donor(), donor(classes=tuple("abcde")), donor("text")):
        candidate = make_candidate(here, *found)
        assert candidate.outputs.logits.shape == (9, 3)
        plain = make_candidate(replace(here, arm="swap"), *found)
        assert not torch.equal(candidate.outputs.features, plain.outputs.features)
        assert candidate.tune() == plain.tune()  # from the donor as it came, not as calibrated


def test_no_donor_goes_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    here, seen = ground(), []
    monkeypatch.setattr(module, "tune", lambda *args: seen.append(args) or tune(*args))
    assert tune_without(here) == tune(here.fresh, here.data, QUICK)
    assert seen[0][0] is here.fresh
