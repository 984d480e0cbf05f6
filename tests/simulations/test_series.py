"""The whole app in one process on series: alone, averaged, beside images and texts; and what is refused before a run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from client.state import load_state
from config import ConfigError, parse, read_toml
from data_partition import watch
from simulations import inprocess
from simulations.runner import check, num_nodes
from strategies.protocol import RunError
from tests.data_partition.series_trees import install_watch, write_geneactiv, write_watch
from tests.simulations.helpers import arrays_of
from tests.simulations.helpers import watch as listen

CONFIGS = Path(__file__).resolve().parents[2] / "simulations"
WATCH = {
    "data.dataset": "watch",
    "data.grouping": "subjects",
    "data.subjects-per-client": 4,
    "data.train-fraction": 1.0,
    "data.window": 20,
    "data.step": 20,
}
SMALL = {"run.rounds": 2, "run.evaluate-every": 0, "train.epochs": 1, "strategy.control": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_watch(tmp_path_factory.mktemp("watch"), 120)


@pytest.fixture(autouse=True)
def _trusted(monkeypatch, folder):
    install_watch(monkeypatch, folder)


def run(root: Path, **flat) -> list[dict]:
    inprocess.run(parse({**SMALL, "run.output-dir": str(root), "run.name": "run", **flat}))
    return json.loads((root / "run" / "results.json").read_text())["clients"]


def test_the_shipped_config_learns_alone(tmp_path):
    """On small recordings, of which the channel that swings is the class."""
    flat = {**read_toml(CONFIGS / "wearable_scratch.toml"), "data.clients": "0,2", "run.rounds": 3}
    small = {"data.window": 20, "data.step": 10, "train.batch-size": 16, "run.evaluate-every": 0}
    clients = run(tmp_path, **{**flat, **small})
    assert [(row["client"], row["modality"], row["classes"]) for row in clients] == [(0, "series", 7), (2, "series", 7)]
    assert min(row["accuracy"] for row in clients) > 0.5  # of people whom nobody has met; chance is 1 in 7


@pytest.mark.parametrize("name", ["linceiver-io", "wrn-16-1"])
def test_clients_average_what_they_share(name, tmp_path, monkeypatch):
    crossed = listen(monkeypatch)
    clients = run(tmp_path, **WATCH, **{"model.name": name, "strategy.name": "shared-fedavg"})
    assert len(clients) == 2
    sent = [arrays_of(message) for message, _ in crossed if arrays_of(message)]
    assert sent
    assert all(key.startswith("backbone.") for arrays in sent for key in arrays)
    assert all(row["bytes"] > 0 for row in clients)


def test_series_share_a_backbone_with_images_and_texts(tmp_path):
    """The adapters differ, and after the last round the backbone of all is what the server sent."""
    flat = {"data.also": "watch", "data.subjects-per-client": 4, "data.window": 20, "data.clients": "0,6,12"}
    config = {**flat, "strategy.name": "shared-fedavg", "train.epochs": 1}
    clients = run(tmp_path, **config)
    assert [(row["client"], row["modality"], row["classes"]) for row in clients] == [
        (0, "image", 12),
        (6, "text", 12),
        (12, "series", 7),
    ]
    token = json.loads((tmp_path / "run" / "manifest.json").read_text())["token"]
    own = {n: load_state(tmp_path / "run" / "clients" / f"{n:03d}" / "federated", token, 9) for n in (0, 6, 12)}
    assert own[12]["adapter.front.embed.weight"].shape == (64, 6 * 4 + 2 * 3)
    latents = [own[n]["backbone.latents"] for n in own]
    assert latents[0].shape == latents[2].shape
    assert not np.array_equal(latents[0], latents[2])  # each trained on after the last average


def test_geneactiv_runs_from_its_folders(tmp_path):
    data_dir = write_geneactiv(tmp_path / "data", subjects=3, samples=1800)
    flat = {**WATCH, "data.dataset": "geneactiv", "data.data-dir": str(data_dir), "data.subjects-per-client": 1}
    assert [row["classes"] for row in run(tmp_path, **flat, **{"strategy.name": "local"})] == [2, 2]


def test_what_does_not_fit_is_refused_before_the_run(tmp_path, monkeypatch):
    mixed = {"data.also": "watch", "data.clients": "0,12", "run.output-dir": str(tmp_path), "run.name": "run"}
    with pytest.raises(
        ConfigError, match=r"'wrn-16-1' takes images, and the clients \[12\] have series, which it takes alone"
    ):
        check(parse({**mixed, "model.name": "wrn-16-1"}))
    with pytest.raises(RunError, match=r"'lenet5' takes images, and the clients \[12\] have series"):
        inprocess.run(parse({**mixed, "model.name": "lenet5"}))
    check(parse({**mixed, "model.name": "wrn-16-1", "data.clients": "12,13"}))
    check(parse(mixed))
    assert num_nodes(parse(mixed)) == 20
    monkeypatch.setattr(watch, "_installed", lambda: None)
    with pytest.raises(ConfigError, match=r"seglearn, which is not installed"):
        check(parse(mixed))
    with pytest.raises(ConfigError, match=r"needs data\.data-dir, which is empty"):
        check(parse({**WATCH, "data.dataset": "pamap2"}))
