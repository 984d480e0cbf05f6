"""The whole app in one process with convolutional networks, on a small CIFAR-100; and what is refused before a run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from client.state import load_state
from config import ConfigError, parse
from data_partition import cifar100
from simulations import inprocess
from simulations.runner import check, num_nodes
from strategies.protocol import RunError
from tests.data_partition.helpers import write_cifar100

CIFAR = {"data.dataset": "cifar100", "data.grouping": "superclass", "data.train-fraction": 1.0}
SMALL = {"run.rounds": 1, "run.evaluate-every": 0, "train.epochs": 1, "data.clients": "0,7", "train.batch-size": 16}
WIDTH = {"lenet5": 1.0, "vgg16-bn": 1 / 64}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    return write_cifar100(tmp_path_factory.mktemp("cifar100"), train=8, test=2)


@pytest.fixture(autouse=True)
def _small_files(monkeypatch):
    monkeypatch.setattr(cifar100, "ROWS", {"train": 800, "test": 200})


def run(root: Path, data_dir: Path, name: str, **flat) -> dict:
    own = {"model.name": name, "model.width": WIDTH[name], "data.data-dir": str(data_dir)}
    inprocess.run(parse({**CIFAR, **SMALL, **own, "run.output-dir": str(root), "run.name": "run", **flat}))
    return json.loads((root / "run" / "results.json").read_text())


@pytest.mark.parametrize("name", WIDTH)
def test_clients_federate_a_convolutional_network(name, data_dir, tmp_path):
    results = run(tmp_path, data_dir, name, **{"strategy.proximal-mu": 0.1, "strategy.wire-dtype": "float16"})
    assert [(row["client"], row["modality"], row["classes"]) for row in results["clients"]] == [
        (0, "image", 5),
        (7, "image", 5),
    ]
    assert all(row["bytes"] > 0 for row in results["clients"])
    token = json.loads((tmp_path / "run" / "manifest.json").read_text())["token"]
    own = [load_state(tmp_path / "run" / "clients" / f"{client:03d}" / "federated", token, 9) for client in (0, 7)]
    norm = "backbone.blocks.0.layer0.norm.running_mean" if name == "vgg16-bn" else "backbone.blocks.0.layer.norm.running_mean"
    assert not np.array_equal(own[0][norm], own[1][norm])
    assert own[0][norm].any()


@pytest.mark.parametrize(("name", "rate"), [("lenet5", 0.005), ("vgg16-bn", 0.002)])
def test_clients_learn_alone(name, rate, data_dir, tmp_path):
    settings = {"strategy.name": "local", "run.rounds": 4, "train.epochs": 4, "train.learning-rate": rate}
    results = run(tmp_path, data_dir, name, **settings)
    assert min(row["accuracy"] for row in results["clients"]) >= 0.6  # chance is 0.2


@pytest.mark.parametrize("strategy", ["joint", "full-fedavg"])
def test_references_take_an_empty_adapter(strategy, data_dir, tmp_path):
    share = {"strategy.share": "backbone+adapter", "strategy.scope": "modality", "strategy.control": False}
    assert len(run(tmp_path, data_dir, "lenet5", **share, **{"strategy.name": strategy})["clients"]) == 2


def test_the_default_model_reads_it_too(data_dir, tmp_path):
    own = {"model.name": "linceiver-io", "model.width": 1.0, "strategy.control": False}
    assert len(run(tmp_path, data_dir, "lenet5", **own)["clients"]) == 2


def test_clients_with_texts_are_refused_before_the_run(tmp_path):
    flat = {"model.name": "lenet5", "run.output-dir": str(tmp_path), "run.name": "run"}
    with pytest.raises(ConfigError, match=r"'lenet5' takes images, and the clients \[6, 7, 8, 9, 10, 11\].*'0,1,2,3,4,5'"):
        check(parse(flat))
    with pytest.raises(RunError, match=r"the clients \[6\] have texts"):
        inprocess.run(parse({**flat, "data.clients": "0,6"}))
    check(parse({**flat, "data.clients": "0,1,2"}))


def test_files_are_looked_for_before_the_run(data_dir, tmp_path):
    config = parse({**CIFAR, "data.data-dir": str(data_dir)})
    check(config)
    assert num_nodes(config) == 20
    with pytest.raises(ConfigError, match=r"was not found in data\.data-dir"):
        check(parse({**CIFAR, "data.data-dir": str(tmp_path)}))
    with pytest.raises(ConfigError, match="clients 0 to 19"):
        check(parse({**CIFAR, "data.data-dir": str(data_dir), "data.clients": "20"}))
