"""FedAvg while clients walk streams: what travels, what is averaged, and what stays bit by bit."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from client.continual import methods
from client.continual.memory import Memory, unpack
from client.continual.ownership import owners
from config import parse
from models.factory import build_model
from models.groups import shared_names
from models.storage import load_record
from server.run_folder import RunFolder
from strategies.protocol import from_arrays, from_masks
from tests.simulations.helpers import arrays_of, facts, run, watch
from tests.simulations.test_continual import KilledError, die_at, of, results_of, same_end

SMALL = {
    "data.tasks-per-client": 2,
    "run.rounds": 2,
    "run.evaluate-every": 0,
    "train.epochs": 1,
    "train.batch-size": 16,
    "data.clients": "0,1,6",
    "continual.prune-epochs": 1,
    "continual.ratios": "0.5,0.8",
    "continual.retrain-epochs": 1,
    "continual.ewc-samples": 10,
}
METHODS = ("cpg", "packnet", "piggyback", "finetune", "ewc")


def walk(root: Path, name: str = "run", **flat) -> Path:
    return run(root, name, **{**SMALL, **flat})


@pytest.mark.parametrize("method", METHODS)
def test_every_method_walks_in_rounds(method, tmp_path):
    folder = walk(tmp_path, **{"continual.method": method})
    events, outcome = facts(folder), results_of(folder)
    assert len(outcome["streams"]["clients"]) == len(outcome["streams"]["control"]) == 3
    for arm in ("federated", "control"):
        assert len(of(events, "learn", arm=arm)) == 6
        tested = of(events, "evaluate", arm=arm, client=6)
        assert [(e["after"], e["task"]) for e in tested] == [(1, 0), (2, 0), (2, 1)]
    assert len(of(events, "train", arm="federated")) == 12  # 3 clients, 2 tasks of 2 rounds
    assert len(of(events, "train", arm="control")) == 6  # rounds without an exchange are one message
    steps = {arm: sum(e["steps"] for e in of(events, "train", arm=arm)) for arm in ("federated", "control")}
    assert steps["federated"] == steps["control"] > 0
    forgotten = [one["forgetting"] for one in outcome["streams"]["clients"]]
    assert (forgotten == [0.0] * 3) == (method not in ("finetune", "ewc"))
    assert all(row["bytes"] > 0 for row in outcome["clients"])


def rounds_of(crossed, number: int) -> list[tuple]:
    return [
        (message, reply)
        for message, reply in crossed
        if message.metadata.message_type == "train.round"
        and message.content["config"]["arm"] == "federated"
        and message.content["config"]["round"] == number
    ]


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A run with PackNet, and every message that crossed in it."""
    with pytest.MonkeyPatch.context() as patch:
        crossed = watch(patch)
        folder = walk(tmp_path_factory.mktemp("packed"), **{"continual.method": "packnet"})
    return folder, crossed


def state(folder: Path, client: int, number: int):
    """A client's model and memory after a number."""
    config = parse({"data.tasks-per-client": 2})
    sizes = {"vocab_size": 2000, "max_tokens": config.data.max_tokens} if client == 6 else {}
    model = build_model(config.model, "text" if client == 6 else "image", 6, seed=0, **sizes)
    arrays, kept = load_record(folder / "clients" / f"{client:03d}" / "federated" / f"round-{number:04d}")
    return model, unpack(model, arrays, kept["memory"])


def test_owned_by_an_earlier_task_is_neither_sent_nor_taken(packed):
    folder, crossed = packed
    for client, (_, reply) in zip((0, 1, 6), rounds_of(crossed, 4), strict=True):
        arrays, masks = from_masks(from_arrays(reply.content.array_records["arrays"]))
        model, memory = state(folder, client, 6)
        assert isinstance(memory, Memory)
        assert memory.latest == 2
        old = {name: (owner == 1).numpy() for name, owner in owners(model).items()}
        assert sum(mask.sum() for mask in old.values()) > 0
        for name, mask in old.items():
            assert not masks[name][mask].any()
            assert not arrays[name][mask].any()
            assert masks[name][~mask].all()
        assert all(masks[name].all() for name in arrays.keys() - old.keys())


def test_the_mean_is_over_those_who_own_a_number(tmp_path, monkeypatch):
    ratios = {"001": 0.3, "006": 0.9}

    def learn(model, memory, work):
        settings = work.config.continual.model_copy(update={"packnet_ratio": ratios.get(work.folder.parts[-3], 0.6)})
        methods.learn_packnet(model, memory, replace(work, config=work.config.model_copy(update={"continual": settings})))

    monkeypatch.setitem(methods.METHODS, "packnet", learn)
    crossed = watch(monkeypatch)
    walk(tmp_path, **{"continual.method": "packnet", "strategy.control": False})
    came = [from_masks(from_arrays(reply.content.array_records["arrays"])) for _, reply in rounds_of(crossed, 4)]
    sent = [arrays_of(message) for message, _ in rounds_of(crossed, 5)]
    name = "backbone.layers.0.attn.qkv.weight"
    masks = np.stack([masks[name] for _, masks in came])
    assert {0, 1, 2, 3} == set(masks.sum(axis=0).flatten().tolist())
    values = np.stack([arrays[name] for arrays, _ in came]).astype(np.float64)
    expected = (values * masks).sum(axis=0) / np.maximum(masks.sum(axis=0), 1)
    for message in sent:
        assert np.array_equal(message[name].numpy(), expected.astype(np.float32))


def test_a_task_begins_without_arrays_and_ends_with_them(packed):
    _, crossed = packed
    assert [bool(arrays_of(message)) for message, _ in rounds_of(crossed, 1)] == [False] * 3
    assert [bool(arrays_of(message)) for message, _ in rounds_of(crossed, 4)] == [False] * 3
    finished = [m for m, _ in crossed if m.metadata.message_type == "train.task" and m.content["config"]["arm"] == "federated"]
    assert len(finished) == 6
    assert all(arrays_of(message) for message in finished)
    assert not any(name.endswith("owner") for pair in crossed for message in pair for name in arrays_of(message))


def test_ledger_is_parameters_and_a_bit_for_each(packed):
    folder, _ = packed
    model = build_model(parse({}).model, "image", 12, seed=0)
    sizes = [dict(model.named_parameters())[name].numel() for name in shared_names(model, "backbone")]
    for event in of(facts(folder), "message", arm="federated", type="train.round"):
        assert event["bytes_up"] == 4 * sum(sizes) + sum(-(-size // 8) for size in sizes)
        assert event["bytes_down"] == (0 if event["round"] in (1, 4) else 4 * sum(sizes))


def test_finetuning_is_plain_fedavg(tmp_path, monkeypatch):
    crossed = watch(monkeypatch)
    walk(tmp_path, **{"continual.method": "finetune", "strategy.control": False, "strategy.wire-dtype": "float16"})
    came = [from_masks(from_arrays(reply.content.array_records["arrays"])) for _, reply in rounds_of(crossed, 4)]
    assert all(mask.all() for _, masks in came for mask in masks.values())
    for message, _ in rounds_of(crossed, 5):
        for name, array in arrays_of(message).items():
            mean = np.mean([arrays[name].astype(np.float64) for arrays, _ in came], axis=0)
            assert np.array_equal(array.numpy(), mean.astype(np.float32).astype(np.float16))


def test_a_shared_first_adapter_is_not_averaged_away(tmp_path):
    share = {"strategy.share": "backbone+adapter", "strategy.scope": "modality", "strategy.control": False}
    folder = walk(tmp_path, **share, **{"continual.method": "packnet", "continual.adapter": "first"})
    assert results_of(folder)["streams"]["means"]["forgetting"] == 0.0
    model, memory = state(folder, 0, 6)
    first = memory.records[1].private["adapter.front.embed.weight"]
    assert torch.equal(dict(model.named_parameters())["adapter.front.embed.weight"], first)


KILLED = {"strategy.control": False, "data.clients": "0,6"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    runs = {method: tmp_path_factory.mktemp(method) for method in ("cpg", "ewc")}
    return {method: walk(root, **KILLED, **{"continual.method": method}) for method, root in runs.items()}


@pytest.mark.parametrize(("method", "fatal"), [("cpg", 8), ("cpg", 33), ("ewc", 19), ("ewc", 38)])
def test_a_killed_run_ends_the_same(method, fatal, whole, tmp_path, monkeypatch):
    flat = {**KILLED, "continual.method": method}
    revive = die_at(monkeypatch, RunFolder, "record", fatal)
    with pytest.raises(KilledError):
        walk(tmp_path, **flat)
    revive()
    same_end(whole[method], walk(tmp_path, **flat, **{"run.resume": True}))


def test_without_an_exchange_it_is_the_control(tmp_path):
    alone = walk(tmp_path, "alone", **{"strategy.name": "local", "continual.method": "packnet"})
    both = walk(tmp_path, "both", **{"continual.method": "packnet"})
    ours, theirs = (json.loads((folder / "results.json").read_text())["streams"] for folder in (alone, both))
    assert [one["matrix"] for one in ours["clients"]] == [one["matrix"] for one in theirs["control"]]
