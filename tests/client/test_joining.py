from dataclasses import replace

import numpy as np
import pytest

from client import joining
from client.joining import score_models
from client.learner import make_learner, train
from config import parse
from models.arrays import get_arrays
from models.groups import shared_names
from strategies.protocol import Instruction, Manifest, RunError, digest

CONFIG = parse({"strategy.name": "late-joiner", "selection.probes": 12, "selection.pairs": 30})
TOLD = Instruction(0, "run", "token", "own", "hash", share="backbone+adapter+head", train_fraction=0.05)


@pytest.fixture
def own(tmp_path):
    learner = make_learner(CONFIG, TOLD, tmp_path, {}, 1, private=True)
    train(learner, {})
    return learner


def model_of(arrays, classes=("a",)):
    return Manifest(7, "image", tuple(classes), float("nan"), 9, digest(arrays)), arrays


def scores(learner, *models, names=("modeldiff",)):
    manifests = [manifest for manifest, _ in models]
    sent = {manifest.sha256: arrays for manifest, arrays in models}
    return score_models(CONFIG, learner.instruction, learner.folder, manifests, sent, names)


def test_a_model_is_most_like_itself_and_scores_keep_their_order(own):
    same = own.shared()
    rng = np.random.default_rng(0)
    other = {name: value + rng.normal(size=value.shape).astype(np.float32) for name, value in same.items()}
    found = scores(own, model_of(other), model_of(same), names=["modeldiff", "modeldiff-logits"])
    for name in ("modeldiff", "modeldiff-logits"):
        assert found[name][1] == pytest.approx(1.0)
        assert found[name][0] < 0.99
    assert (found["partition-id"], found["num-examples"]) == (0, len(own.data.train))


def test_a_model_without_a_head_and_in_half_precision_will_do(own):
    bare = {name: value.astype(np.float16) for name, value in own.shared().items() if not name.startswith("head.")}
    assert scores(own, model_of(bare))["modeldiff"] == [pytest.approx(1.0, abs=1e-3)]


def test_probes_are_the_joiners_own_few_examples(own, monkeypatch):
    seen = []
    choose = joining.choose
    monkeypatch.setattr(joining, "choose", lambda split, *rest: seen.append(len(split)) or choose(split, *rest))
    scores(own, model_of(own.shared()))
    assert seen == [len(own.data.train)]
    everything = make_learner(CONFIG, replace(TOLD, train_fraction=0.0), own.folder, {}, 1)
    assert seen[0] < len(everything.data.train)


def test_trying_a_model_out_starts_from_fresh_parts_and_changes_nothing(own):
    before = get_arrays(own.model, shared_names(own.model, TOLD.share))
    first = scores(own, model_of(own.shared()), names=["few-step"])
    assert first == scores(own, model_of(own.shared()), names=["few-step"])
    again = make_learner(CONFIG, TOLD, own.folder, {}, 2, private=True)
    assert all(np.array_equal(before[name], value) for name, value in again.shared().items())


def test_its_fresh_model_is_the_one_it_was_given(own):
    fresh = get_arrays(joining.ground_of(own).fresh, shared_names(own.model, TOLD.share))
    begun = make_learner(CONFIG, TOLD, own.folder / "another", {}, 1, private=True).shared()
    assert all(np.array_equal(begun[name], value) for name, value in fresh.items())
    assert any(not np.array_equal(own.shared()[name], value) for name, value in fresh.items())


def test_without_a_model_of_its_own_it_cannot_compare(own, tmp_path):
    with pytest.raises(RunError, match="client 0 has no model of its own"):
        score_models(CONFIG, TOLD, tmp_path / "another", [], {}, ["modeldiff"])


def test_a_model_that_does_not_fit_is_refused(own):
    wrong = own.shared() | {"backbone.latents": np.zeros((3, 3), np.float32)}
    with pytest.raises(ValueError, match=r"backbone\.latents"):
        scores(own, model_of(wrong))
