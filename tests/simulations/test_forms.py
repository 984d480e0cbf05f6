"""Low-rank forms, adaptive k and centralised training through the whole app in one process."""

import json

import numpy as np
import pytest

from client.state import load_state
from strategies.protocol import METRICS, MIXING_MATRIX
from tests.simulations.helpers import arrays_of, facts, run, watch

GATED = {"model.adaptive-k": "prefix", "model.k-penalty": 1.0, "model.k-warmup": 0.0, "model.k-learning-rate": 0.06}


def test_clients_close_columns_and_the_server_averages_those_that_are_open(tmp_path, monkeypatch):
    crossed = watch(monkeypatch)
    folder = run(tmp_path, **GATED, **{"strategy.control": False, "train.epochs": 4})
    trained = [pair for pair in crossed if pair[0].metadata.message_type == "train"]
    kept = [set(reply.content[METRICS]["columns"]) for _, reply in trained]
    assert kept[0] != kept[1]  # in the first round the two clients close different numbers of columns
    before, after = (arrays_of(message)[MIXING_MATRIX].numpy() for message, _ in (trained[0], trained[2]))
    own = [arrays_of(reply)[MIXING_MATRIX].numpy() for _, reply in trained[:2]]
    for column in range(16):
        votes = [matrix[:, column] for matrix, columns in zip(own, kept, strict=False) if column in columns]
        expected = np.mean(votes, axis=0) if votes else before[:, column]
        np.testing.assert_allclose(after[:, column], expected, atol=1e-7)
    assert not any("gate" in name for pair in crossed for message in pair for name in arrays_of(message))
    tests = [e for e in facts(folder) if e["event"] == "evaluate" and e["split"] == "test"]
    assert [e["k"] < e["k_max"] == 16 for e in tests] == [True, True]
    assert all(e["logit_change"] <= 1e-5 and e["parameters_kept"] < e["parameters_full"] for e in tests)
    results = json.loads((folder / "results.json").read_text())
    assert [row["k"] for row in results["clients"]] == [e["k"] for e in tests]


@pytest.mark.parametrize(
    "settings",
    [
        {"model.low-rank": "dense", "model.rank": 8, "model.stages": "all", "model.sharing": "layerwise"},
        {"model.low-rank": "dense-before", "model.adaptive-k": "hard-concrete"},
        {"model.low-rank": "pool", "model.rank": 8, "model.stages": "all"},
        {"model.low-rank": "basis", "model.adaptive-k": "sigmoid", "model.k-input-bias": True, "model.tie-layers": True},
    ],
    ids=lambda settings: settings["model.low-rank"],
)
@pytest.mark.parametrize("strategy", ["shared-fedavg", "full-fedavg"])
def test_every_form_federates(tmp_path, settings, strategy):
    folder = run(tmp_path, **settings, **{"run.rounds": 1, "strategy.control": False, "strategy.name": strategy})
    rows = json.loads((folder / "results.json").read_text())["clients"]
    assert len(rows) == 2
    assert all(row["bytes"] > 0 for row in rows)


def test_centralised_training_is_one_model_for_clients_that_agree_on_classes(tmp_path):
    whole = {"strategy.share": "backbone+adapter+head", "strategy.scope": "classes", "strategy.control": False}
    folder = run(tmp_path, **whole, **{"strategy.name": "joint", "data.clients": "0,1,6", "run.rounds": 1})
    token = json.loads((folder / "manifest.json").read_text())["token"]
    first, second, text = (load_state(folder / "clients" / f"{i:03d}" / "joint", token, 9) for i in (0, 1, 6))
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert not np.array_equal(first["backbone.latents"], text["backbone.latents"])
