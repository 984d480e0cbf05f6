"""FedWeIT through the whole app: who gets what, the mean of the bases, and what a crash or a liar does."""

import json

import numpy as np
import pytest

from client import weit_stream
from config import ConfigError, parse
from models.factory import build_model
from models.groups import ownable
from server.run_folder import RunFolder
from strategies.protocol import from_arrays
from tests.simulations.helpers import arrays_of, facts, run, watch
from tests.simulations.test_continual import KilledError, die_at, of, results_of, same_end

SMALL = {
    "strategy.name": "fedweit",
    "data.tasks-per-client": 2,
    "run.rounds": 2,
    "run.evaluate-every": 0,
    "train.epochs": 1,
    "train.batch-size": 16,
    "data.clients": "0,1,6",
    "continual.weit-threshold": 1e-3,
    "strategy.control": False,
}


def walk(root, name="run", **flat):
    return run(root, name, **{**SMALL, **flat})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        crossed = watch(patch)
        folder = walk(tmp_path_factory.mktemp("weit"))
    return folder, [pair for pair in crossed if pair[0].metadata.message_type == "train.round"]


def names() -> set[str]:
    return set(ownable(build_model(parse({}).model, "image", 6, seed=0)))


def test_only_weights_of_the_backbone_travel_as_the_base(finished):
    _, crossed = finished
    for message, reply in crossed:
        told = message.content["config"]
        down = message.content.array_records.get("arrays")
        assert set(reply.content.array_records["arrays"]) == names()
        assert (down is None) == (told["round"] == 1)
        assert down is None or set(down) == names()
        assert ("adaptive" in reply.content) == (told["server_round"] == 2)


def test_the_next_base_is_the_mean_of_the_masked_ones(finished):
    _, crossed = finished
    for number in (2, 3, 4):
        came = [from_arrays(r.content["arrays"]) for m, r in crossed if m.content["config"]["round"] == number - 1]
        sent = [from_arrays(m.content["arrays"]) for m, _ in crossed if m.content["config"]["round"] == number]
        for name in names():
            mean = np.mean([arrays[name].astype(np.float64) for arrays in came], axis=0).astype(np.float32)
            assert all(np.array_equal(arrays[name], mean) for arrays in sent)


def test_each_client_gets_what_is_special_to_the_others_once(finished):
    _, crossed = finished
    special = {m.content["config"]["partition_id"]: r.content["adaptive"] for m, r in crossed if "adaptive" in r.content}
    assert special.keys() == {0, 1, 6}
    for message, _ in crossed:
        told = message.content["config"]
        records = {name for name in message.content.array_records if name != "arrays"}
        others = {f"adaptive-{client:05d}" for client in (0, 1, 6) if client != told["partition_id"]}
        assert records == (others if told["round"] == 3 else set())
        for name in records:
            ours, theirs = (
                from_arrays(message.content[name]),
                {m.content["config"]["partition_id"]: r for m, r in crossed if m.content["config"]["round"] == 2},
            )
            sent = from_arrays(theirs[int(name[-5:])].content["adaptive"])
            assert all(np.array_equal(ours[key], sent[key]) for key in sent)
            assert ours.keys() == sent.keys()
            assert any(len(value) for key, value in ours.items() if key.endswith(".values"))


def test_scores_and_events(finished):
    folder, _ = finished
    events, outcome = facts(folder), results_of(folder)
    assert len(outcome["streams"]["clients"]) == 3
    assert len(of(events, "learn")) == 6
    assert len(of(events, "train")) == 12
    for one in outcome["streams"]["clients"]:
        assert one["matrix"][0][1] is None
        assert one["capacity"] > 1
    assert [e["state"] for e in of(events, "continual", client=6)] == ["train"] * 2


def test_the_control_learns_from_scratch_with_as_many_steps(tmp_path):
    folder = walk(tmp_path, **{"strategy.control": True, "data.clients": "0,6"})
    events = facts(folder)
    alone = sum(e["steps"] for e in of(events, "learn", arm="scratch"))
    assert alone == sum(e["steps"] for e in of(events, "train", arm="federated")) > 0
    assert results_of(folder)["streams"]["means"]["transfer_gain"] is not None


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return walk(tmp_path_factory.mktemp("whole"), **{"data.clients": "0,6"})


@pytest.mark.parametrize("fatal", [7, 16, 24, 31])
def test_a_killed_run_ends_the_same(fatal, whole, tmp_path, monkeypatch):
    revive = die_at(monkeypatch, RunFolder, "record", fatal)
    with pytest.raises(KilledError):
        walk(tmp_path, **{"data.clients": "0,6"})
    revive()
    same_end(whole, walk(tmp_path, **{"data.clients": "0,6", "run.resume": True}))


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (lambda parts: {}, "missing or unknown"),
        (lambda parts: {k: v[:-1] if k.endswith(".values") else v for k, v in parts.items()}, "positions and values"),
        (lambda parts: {k: v * np.nan if k.endswith(".values") else v for k, v in parts.items()}, "not finite"),
    ],
)
def test_broken_adaptive_parameters_are_refused_and_the_run_goes_on(break_it, reason, tmp_path, monkeypatch):
    whole = weit_stream.train_round

    def lie(config, told, *args):
        metrics, base, adaptive, lines = whole(config, told, *args)
        return metrics, base, break_it(adaptive) if told.partition_id == 1 and adaptive else adaptive, lines

    monkeypatch.setattr(weit_stream, "train_round", lie)
    crossed = watch(monkeypatch)
    folder = walk(tmp_path)
    refused = of(facts(folder), "refused")
    assert [e["client"] for e in refused] == [1, 1]
    assert all(reason in e["reason"] for e in refused)
    given = {name for message, _ in crossed for name in message.content.array_records if name.startswith("adaptive-")}
    assert given == {"adaptive-00000", "adaptive-00006"}
    assert json.loads((folder / "manifest.json").read_text())["status"] == "completed"
    assert arrays_of(crossed[-1][0]) == {}


@pytest.mark.parametrize(
    ("flat", "words"),
    [
        ({"strategy.fraction-train": 0.5}, "fraction-train = 0.5"),
        ({"strategy.share": "attention"}, "'attention'"),
        ({"continual.adapter": "first"}, "'first' is not for"),
    ],
)
def test_what_it_does_not_do_is_refused(flat, words):
    with pytest.raises(ConfigError, match=words):
        parse({**SMALL, **flat})
