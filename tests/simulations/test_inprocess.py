"""The whole app in one process: what crosses the wire, repeatability, resuming, and every shipped config."""

import json
from pathlib import Path

import numpy as np
import pytest

from client import learner
from client.messages import hosts
from config import PROJECT_ROOT, parse, read_toml
from models.factory import build_model
from models.groups import shared_names
from server.run_folder import RunFolder
from simulations import inprocess
from strategies.protocol import RunError
from tests.models.helpers import TOKEN_MODELS
from tests.simulations.helpers import SMALL, arrays_of, facts, run, watch

WITH_SHIPPED_DATA = [
    path
    for path in sorted((PROJECT_ROOT / "simulations").glob("*.toml"))
    if parse(read_toml(path)).data.dataset == "emojipairs"
]


def messages(folder: Path, arm: str, kind: str) -> list[dict]:
    return [e for e in facts(folder) if e["event"] == "message" and e["arm"] == arm and e["type"] == kind]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One small run, and every message that crossed in it."""
    with pytest.MonkeyPatch.context() as patch:
        crossed = watch(patch)
        folder = run(tmp_path_factory.mktemp("runs"))
    return folder, crossed


def backbone_size() -> int:
    model = build_model(parse({}).model, "image", 12, seed=0)
    tensors = dict(model.named_parameters())
    return sum(tensors[name].numel() for name in shared_names(model, "backbone"))


def test_only_the_backbone_crosses_the_wire(finished):
    _, crossed = finished
    trained = [pair for pair in crossed if pair[0].metadata.message_type == "train" and arrays_of(pair[0])]
    assert trained
    for message, reply in trained:
        assert arrays_of(message).keys() == arrays_of(reply).keys()
    names = {name for pair in crossed for message in pair for name in arrays_of(message)}
    assert names
    assert all(name.startswith("backbone.") for name in names)


def test_what_crosses_is_what_was_trained_and_differs_between_clients(finished):
    _, crossed = finished
    replies = [reply for message, reply in crossed if message.metadata.message_type == "train" and arrays_of(message)]
    first, second = (arrays_of(reply)["backbone.latents"].numpy() for reply in replies[:2])
    assert not np.array_equal(first, second)


def test_nothing_but_instructions_and_metrics_crosses_in_the_control(finished):
    folder, _ = finished
    assert {(m["bytes_down"], m["bytes_up"]) for m in messages(folder, "control", "train")} == {(0, 0)}


def test_ledger_is_parameters_times_four_each_way(finished):
    folder, _ = finished
    size = 4 * backbone_size()
    train = messages(folder, "federated", "train")
    assert len(train) == 4  # 2 clients, 2 rounds
    for message in train:
        assert (message["bytes_down"], message["bytes_up"]) == (size, size)
        assert message["framing_down"] <= 0.05 * size
        assert message["framing_up"] <= 0.05 * size


def test_ledger_is_half_in_float16(tmp_path):
    folder = run(tmp_path, **{"strategy.wire-dtype": "float16", "strategy.control": False})
    for message in messages(folder, "federated", "train"):
        assert (message["bytes_down"], message["bytes_up"]) == (2 * backbone_size(), 2 * backbone_size())
        assert message["framing_up"] <= 0.05 * message["bytes_up"]


def test_table_counts_bytes_and_subtracts_the_control(finished):
    folder, _ = finished
    results = json.loads((folder / "results.json").read_text())
    for row in results["clients"]:
        sent = [m for m in facts(folder) if m["event"] == "message" and m["client"] == row["client"]]
        assert row["bytes"] == sum(m["bytes_down"] + m["bytes_up"] for m in sent if m["arm"] == "federated")
        assert row["difference"] == pytest.approx(row["accuracy"] - row["control"])
    assert json.loads((folder / "manifest.json").read_text())["status"] == "completed"


def test_one_seed_gives_identical_events(finished, tmp_path):
    assert facts(run(tmp_path)) == facts(finished[0])


def test_another_seed_gives_other_results(finished, tmp_path):
    assert facts(run(tmp_path, **{"run.seed": 1})) != facts(finished[0])


def test_test_split_is_read_once_per_arm_and_client(finished):
    looks = [(e["arm"], e["client"]) for e in facts(finished[0]) if e["event"] == "evaluate" and e["split"] == "test"]
    assert sorted(looks) == [("control", 0), ("control", 6), ("federated", 0), ("federated", 6)]


@pytest.mark.parametrize("path", WITH_SHIPPED_DATA, ids=lambda path: path.stem)
def test_every_shipped_config_runs_one_round(path, tmp_path):
    clients = {"clustered_late_joiner": "0,1,2,6,7", "late_joiner": "0,1,2,6,7", "comkd_clip": "0,1"}.get(path.stem, "0,6")
    clients = "6,7" if path.stem.startswith("pack_") else clients
    small = {"run.rounds": 1, "train.epochs": 1, "data.clients": clients, "run.output-dir": str(tmp_path), "run.name": "run"}
    small["strategy.cluster-warmup"] = 1
    tasks = {"epochs": 1, "prune-epochs": 1, "retrain-epochs": 1, "ratios": "0.6", "growth-step": 0.0, "ewc-samples": 5}
    small |= {f"continual.{key}": value for key, value in tasks.items()}
    small |= {"selection.donor-epochs": 1, "selection.own-epochs": 1, "selection.tune-epochs": 1}
    small |= {"packing.epochs": 1, "packing.teacher-epochs": 1, "clip.pretrain-epochs": 1, "clip.prompt-epochs": 1}
    inprocess.run(parse({**read_toml(path), **small}))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [row["client"] for row in results["clients"]] == [int(part) for part in clients.split(",")]


@pytest.mark.parametrize("name", [name for name in TOKEN_MODELS if name != parse({}).model.name])
def test_every_model_runs_and_sends_its_self_attention_alone(name, tmp_path):
    small = {"run.rounds": 1, "run.evaluate-every": 0, "data.train-fraction": 0.05, "strategy.control": False}
    folder = run(tmp_path, **small, **{"model.name": name, "model.layers": 1, "strategy.share": "attention"})
    assert {(m["bytes_down"], m["bytes_up"]) for m in messages(folder, "federated", "train")} == {(4 * 3 * 64 * 64,) * 2}
    assert len(json.loads((folder / "results.json").read_text())["clients"]) == 2


class Killed(BaseException):
    """Stands for kill -9: nothing may catch it and go on."""


@pytest.mark.parametrize("fatal", [3, 9, 14, 22, 27, 34])
@pytest.mark.parametrize("restart", [True, False])
def test_a_killed_run_resumes_to_the_same_bits(tmp_path, monkeypatch, fatal, restart):
    settings = {"train.restart-optimizer": restart, "run.rounds": 3}
    whole = run(tmp_path / "whole", **settings)
    record, count = RunFolder.record, 0

    def die(self, event, **fields):
        nonlocal count
        count += 1
        if count == fatal:
            raise Killed
        record(self, event, **fields)

    monkeypatch.setattr(RunFolder, "record", die)
    with pytest.raises(Killed):
        run(tmp_path / "cut", **settings)
    monkeypatch.setattr(RunFolder, "record", record)
    resumed = run(tmp_path / "cut", **settings, **{"run.resume": True})
    assert facts(resumed) == facts(whole)
    for path in whole.rglob("*.safetensors"):
        assert path.read_bytes() == (resumed / path.relative_to(whole)).read_bytes()


def test_resuming_with_other_settings_is_refused(finished, tmp_path):
    with pytest.raises(RunError, match=r"train\.epochs was 1, is 2"):
        run(finished[0].parent, **{"run.resume": True, "train.epochs": 2})


def test_nothing_to_resume(tmp_path):
    with pytest.raises(RunError, match="there is no run"):
        run(tmp_path, **{"run.resume": True})


def test_a_taken_name_is_not_written_over(tmp_path):
    first = run(tmp_path, **{"run.rounds": 1, "strategy.control": False})
    before = (first / "events.jsonl").read_bytes()
    run(tmp_path, **{"run.rounds": 1, "strategy.control": False})
    assert (first / "events.jsonl").read_bytes() == before
    assert (tmp_path / "run-2" / "results.json").exists()


def fail_in_training(monkeypatch, clients):
    train = learner.train

    def broken(one, shared):
        if one.instruction.partition_id in clients:
            raise OSError(f"disk of client {one.instruction.partition_id} is gone")
        return train(one, shared)

    monkeypatch.setattr(learner, "train", broken)


def test_a_client_that_raises_fails_the_run_and_says_why(tmp_path, monkeypatch):
    fail_in_training(monkeypatch, {6})
    with pytest.raises(RunError, match=r"(?s)1 valid replies of 2 asked.*client 6: OSError: disk of client 6 is gone"):
        run(tmp_path)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["status"] == "failed"
    assert "disk of client 6 is gone" in manifest["error"]


def test_min_replies_tolerates_it(tmp_path, monkeypatch):
    fail_in_training(monkeypatch, {6})
    folder = run(tmp_path, **{"run.min-replies": 1, "strategy.control": False})
    assert {e["client"] for e in facts(folder) if e["event"] == "refused"} == {6}
    assert json.loads((folder / "manifest.json").read_text())["status"] == "completed"


def test_all_raising_fails_even_with_min_replies(tmp_path, monkeypatch):
    fail_in_training(monkeypatch, {0, 6})
    with pytest.raises(RunError, match="0 valid replies of 2"):
        run(tmp_path, **{"run.min-replies": 1})


def test_other_source_is_refused_before_round_1(tmp_path, monkeypatch):
    monkeypatch.setattr("strategies.mailbox.SOURCE_HASH", "feedbeef")
    with pytest.raises(RunError, match=r"other source than the server.*feedbeef"):
        run(tmp_path)


def test_fewer_nodes_than_clients_still_host_them_all(finished, tmp_path):
    folder = run(tmp_path, **{"federation.clients": 2})
    assert facts(folder) == facts(finished[0])


def test_a_fraction_of_the_clients_is_asked_each_round(tmp_path):
    folder = run(tmp_path, **{"data.clients": "0,1,6,7", "strategy.fraction-train": 0.5, "strategy.control": False})
    asked = {r: sorted(m["client"] for m in messages(folder, "federated", "train") if m["round"] == r) for r in (1, 2)}
    assert [len(clients) for clients in asked.values()] == [2, 2]


def test_proximal_term_keeps_clients_near_the_average(tmp_path):
    def moved(name, mu):
        folder = run(
            tmp_path, name, **{"strategy.proximal-mu": mu, "strategy.control": False, "run.rounds": 1, "train.epochs": 4}
        )
        checkpoint = next((folder / "checkpoints" / "federated").glob("*.safetensors"))
        from safetensors.numpy import load

        start = build_model(parse({}).model, "image", 12, seed=0).state_dict()
        end = load(checkpoint.read_bytes())
        return sum(float(((end[f"all/{n}"] - v.numpy()) ** 2).sum()) for n, v in start.items() if n.startswith("backbone"))

    assert moved("near", 100.0) < 0.5 * moved("free", 0.0)


def test_unknown_client(tmp_path):
    with pytest.raises(RunError, match=r"data.clients names \[12\].*clients 0 to 11"):
        run(tmp_path, **{"data.clients": "0,12"})


def test_hosting():
    from flwr.app import Context, RecordDict

    def hosted(**node):
        context = Context(run_id=1, node_id=1, node_config=node, state=RecordDict(), run_config={})
        return [p for p in range(6) if hosts(context, p)]

    assert hosted(**{"partition-id": 1, "num-partitions": 2}) == [1, 3, 5]
    assert hosted(**{"partition-id": 4}) == [4]
    with pytest.raises(RunError, match="partition-id=0"):
        hosted()


@pytest.mark.parametrize("restart", [True, False])
def test_rounds_in_one_message_equal_rounds_in_many(tmp_path, restart):
    """A client's own tensors (and AdamW's moments, if kept) survive from message to message."""

    def final(name, every):
        settings = {"strategy.name": "local", "run.rounds": 3, "run.evaluate-every": every, "train.restart-optimizer": restart}
        folder = run(tmp_path, name, **settings)
        return [path.read_bytes() for path in sorted(folder.glob("clients/*/local/round-0003.safetensors"))]

    one, many = final("one", 3), final("many", 1)
    assert len(one) == 2
    assert one == many


def test_adapter_and_head_stay_with_their_client(finished):
    from safetensors.numpy import load

    folder, _ = finished
    image, text = (
        load((folder / "clients" / p / "federated" / "round-0002.safetensors").read_bytes()) for p in ("000", "006")
    )
    start = build_model(parse({}).model, "image", 12, seed=0).state_dict()
    for name in ("adapter.front.embed.weight", "head.classifier.weight"):
        assert not np.array_equal(image[name], start[name].numpy())
    assert not np.array_equal(image["backbone.latents"], text["backbone.latents"])


def test_the_evaluated_model_is_the_one_after_the_last_round(finished):
    from strategies.protocol import Instruction

    folder, _ = finished
    token = json.loads((folder / "manifest.json").read_text())["token"]
    config = parse({**SMALL, "run.output-dir": str(folder.parent), "run.name": "run"})
    told = Instruction(0, "run", token, "control", "hash", split="test")
    losses = [
        learner.evaluate(learner.make_learner(config, told, folder / "clients" / "000" / "control", {}, before))["loss"]
        for before in (3, 2)
    ]
    (event,) = [
        e
        for e in facts(folder)
        if e["event"] == "evaluate" and e["arm"] == "control" and e["split"] == "test" and e["client"] == 0
    ]
    assert event["loss"] == losses[0]
    assert event["loss"] != losses[1]
