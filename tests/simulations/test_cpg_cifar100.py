"""simulations/cpg_cifar100.toml says what CPG's experiment says."""

import json

from client.continual.grow import next_widths
from client.continual.methods import optimisation
from client.continual.train import Optimisation
from config import PROJECT_ROOT, parse, read_toml
from data_partition import cifar100
from data_partition.cifar100 import SUPERCLASSES
from data_partition.streams import task_subgroups
from data_partition.subgroups import subgroups
from models.convnet import scaled
from server.run_folder import read_events
from simulations import inprocess
from tests.data_partition.helpers import write_cifar100

CONFIG = parse(read_toml(PROJECT_ROOT / "simulations" / "cpg_cifar100.toml"))


def test_tasks_are_the_superclasses_in_their_order():
    (client,) = subgroups(CONFIG.data)
    assert [task.classes for task in task_subgroups(CONFIG.data, client)] == list(SUPERCLASSES.values())


def test_optimisation():
    scores = ((0.5, 0.2), (0.7, 0.0))
    paper = Optimisation(32, 1e-2, 5e-4, 4e-5, 0.0, "sgd", 0.9, "steps", (0.5, 0.8), 0.1, scores)
    assert optimisation(CONFIG) == paper


def test_one_growth_gives_the_widths_of_one_and_a_half_times_the_parameters():
    first = {str(size): size for size in (64, 128, 256, 512, 4096)}
    grown = next_widths(first, first, CONFIG.continual.growth_step, CONFIG.continual.growth_cap)
    assert grown == {name: scaled(size, 1.5) for name, size in first.items()}
    assert next_widths(first, grown, CONFIG.continual.growth_step, CONFIG.continual.growth_cap) == grown


def test_it_runs_on_files_in_the_official_format(tmp_path, monkeypatch):
    """All 20 tasks, with a narrow network, few images and one epoch of everything."""
    monkeypatch.setattr(cifar100, "ROWS", {"train": 600, "test": 100})
    data_dir = write_cifar100(tmp_path / "data", train=6, test=1)
    less = {"epochs": 1, "prune-epochs": 1, "retrain-epochs": 1, "ratios": "0.5", "prune-every": 1, "goal-margin": 1.0}
    small = {"model.width": 1 / 64, "data.data-dir": str(data_dir), "data.val-fraction": 0.34, "run.evaluate-every": 0}
    flat = {**read_toml(PROJECT_ROOT / "simulations" / "cpg_cifar100.toml"), **small}
    flat |= {f"continual.{key}": value for key, value in less.items()}
    inprocess.run(parse({**flat, "run.output-dir": str(tmp_path), "run.name": "run"}))
    (one,) = json.loads((tmp_path / "run" / "results.json").read_text())["streams"]["clients"]
    assert len(one["matrix"]) == 20
    assert one["forgetting"] == 0.0
    events = read_events(tmp_path / "run" / "events.jsonl")
    grown = [e for e in events if e["event"] == "continual" and e["state"] == "grow"]
    assert grown
    assert max(grown[-1]["width"].values()) == next_widths({"": 512}, {"": 512}, 0.5, 1.2248)[""]
