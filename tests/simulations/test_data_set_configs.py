"""The shipped configs of real data sets run end to end on small trees in the official formats, with less work."""

from __future__ import annotations

import json

import pytest

from config import PROJECT_ROOT
from data_partition import cifar100
from simulations import runner
from tests.data_partition.helpers import write_cifar100
from tests.data_partition.record_trees import n24news_records, write_n24news
from tests.data_partition.trees import write_oxford

SIMULATIONS = PROJECT_ROOT / "simulations"
LESS = [
    "model.dim=16",
    "model.layers=1",
    "train.epochs=1",
    "continual.epochs=1",
    "selection.donor-epochs=1",
    "selection.own-epochs=1",
    "selection.tune-epochs=1",
    "selection.calibration-epochs=1",
    "continual.prune-epochs=1",
    "continual.retrain-epochs=1",
    "run.rounds=1",
    "run.evaluate-every=0",
    "run.name=small",
]
TREES = {  # how it is written, two clients, their modalities, and the classes of each
    "oxford102": (lambda root: write_oxford(root, groups=1), "0,6", ["image", "text"], 4),
    "n24news": (lambda root: write_n24news(root, n24news_records(6, groups=1)), "0,6", ["image", "text"], 3),
    "cifar100": (lambda root: write_cifar100(root, train=5), "0,1", ["image", "image"], 5),
}


@pytest.mark.parametrize(
    ("name", "strategy"),
    [("oxford102", "linceiver"), ("oxford102", "backpack"), ("n24news", "linceiver"), ("cifar100", "backpack")],
)
def test_a_config_runs(name, strategy, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar100, "ROWS", {"train": 500, "test": 200})
    write, clients, modalities, number = TREES[name]
    write(tmp_path / "files")
    words = [*LESS, f"data.data-dir={tmp_path / 'files'}", f"data.clients={clients}", f"run.output-dir={tmp_path / 'runs'}"]
    config = runner.prepare(SIMULATIONS / f"{name}_{strategy}.toml", words, None, SIMULATIONS / "federations" / "cpu.toml")
    assert config.train.device == "cpu"
    runner.run_all([config], "inprocess")
    results = json.loads((tmp_path / "runs" / "small" / "results.json").read_text())
    assert [row["client"] for row in results["clients"]] == [int(client) for client in clients.split(",")]
    assert [row["modality"] for row in results["clients"]] == modalities
    assert [row["classes"] for row in results["clients"]] == [number, number]
    assert all(0 <= row["accuracy"] <= 1 for row in results["clients"])
    assert json.loads((tmp_path / "runs" / "small" / "manifest.json").read_text())["status"] == "completed"
