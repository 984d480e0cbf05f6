"""A federated run with frozen embeddings: they stay on the disk they were read from."""

import numpy as np
import pytest
from safetensors.numpy import load

from client.learner import cached_model, make_learner
from config import ConfigError, parse
from models.arrays import get_arrays
from models.groups import Group, group_names
from server.run_folder import read_events
from simulations import inprocess
from simulations.runner import check
from strategies.protocol import Instruction, RunError
from tests.models.helpers import save_bert


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("bert")
    save_bert(path, 2000, 32, 16)
    return path


def settings(folder, **flat):
    small = {"run.rounds": 1, "run.evaluate-every": 1, "run.name": "run", "train.epochs": 1, "data.clients": "0,6"}
    return parse({**small, "model.embedding-dir": str(folder), "train.restart-optimizer": False, **flat})


@pytest.mark.parametrize("share", ["backbone", "backbone+adapter"])
def test_frozen_tensors_are_in_no_message_and_no_file(folder, tmp_path, monkeypatch, share):
    crossed = set()
    handle = inprocess.InProcessGrid._handle

    def watch(self, message):
        reply = handle(self, message)
        crossed.update(name for m in (message, reply) for record in m.content.array_records.values() for name in record)
        return reply

    monkeypatch.setattr(inprocess.InProcessGrid, "_handle", watch)
    scope = "all" if share == "backbone" else "modality"
    inprocess.run(settings(folder, **{"run.output-dir": str(tmp_path), "strategy.share": share, "strategy.scope": scope}))
    assert {name.partition(".")[0] for name in crossed} == set(share.split("+"))
    files = sorted(tmp_path.rglob("*.safetensors"))
    states = [load(path.read_bytes()) for path in files]
    assert len([path for path in files if "clients" in path.parts]) == 4  # 2 clients, 2 arms
    assert not [name for state in states for name in state if "frozen" in name]
    text = load((tmp_path / "run/clients/006/federated/round-0001.safetensors").read_bytes())
    assert text["adapter.front.embed.weight"].shape == (64, 16)
    assert "optimizer.adapter.front.embed.weight.exp_avg" in text


def test_a_client_uses_its_folder_and_keeps_no_second_copy(folder, tmp_path):
    config = settings(folder)
    told = Instruction(6, "run", "token", "federated", "hash", share="backbone")
    learner = make_learner(config, told, tmp_path, {}, 1)
    names = group_names(learner.model, Group.FROZEN)
    model, initial = cached_model(config.model, config.data, "text", learner.num_classes, config.run.seed)
    assert model is learner.model
    assert len(names) == 5
    assert not set(names) & set(initial)
    on_disk = load((folder / "model.safetensors").read_bytes())["embeddings.word_embeddings.weight"]
    assert np.array_equal(get_arrays(model, names)["frozen.word_embeddings.weight"], on_disk)
    private = make_learner(config, told, tmp_path, {}, 1, private=True).model
    for (name, first), (_, second) in zip(model.named_parameters(), private.named_parameters(), strict=True):
        assert (first.data_ptr() == second.data_ptr()) == name.startswith("frozen.")


def test_a_folder_that_was_replaced_is_read_again(tmp_path):
    config = settings(tmp_path)
    made = []
    for rows_of_positions in (24, 25):
        save_bert(tmp_path, 2000, rows_of_positions, 16)
        made.append(cached_model(config.model, config.data, "text", 3, 0)[0])
    assert [len(model.get_parameter("frozen.position_embeddings.weight")) for model in made] == [24, 25]


def test_a_wrong_folder_stops_the_run_before_it_starts(folder, tmp_path):
    for flat, message in (
        ({"data.max-tokens": 33}, "data.max-tokens = 33, but .* 32 positions"),
        ({"model.embedding-dir": str(tmp_path)}, "config.json is missing"),
    ):
        with pytest.raises(ConfigError, match=message):
            check(settings(folder, **flat))
        with pytest.raises(RunError, match=message):
            inprocess.run(settings(folder, **{**flat, "run.output-dir": str(tmp_path / "runs")}))
    assert not [event for path in tmp_path.rglob("events.jsonl") for event in read_events(path)]
    check(settings(folder))
    check(settings(tmp_path / "none", **{"data.clients": "0,1"}))  # images only


def test_joint_training_stores_no_frozen_tensors(folder, tmp_path):
    flat = {"strategy.name": "joint", "data.clients": "6,7", "train.restart-optimizer": True, "run.output-dir": str(tmp_path)}
    inprocess.run(settings(folder, **flat))
    states = [load(path.read_bytes()) for path in tmp_path.rglob("clients/*/joint/*.safetensors")]
    assert len(states) == 2
    assert not [name for state in states for name in state if "frozen" in name]
