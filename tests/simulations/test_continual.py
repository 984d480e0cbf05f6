"""Streams of tasks through the whole app: every method, what is written down, and what a crash leaves."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from client.continual import checkpoint, cpg
from config import PROJECT_ROOT, parse
from data_partition.streams import load_task
from models.storage import load_record
from server.run_folder import RunFolder
from strategies import continual
from tests.simulations.helpers import SMALL as HELPER_SMALL
from tests.simulations.helpers import arrays_of, facts, run, watch

SMALL = {
    "strategy.name": "continual",
    "data.tasks-per-client": 3,
    "run.rounds": 1,
    "run.evaluate-every": 0,
    "train.batch-size": 16,
    "continual.epochs": 2,
    "continual.prune-epochs": 1,
    "continual.prune-every": 1,
    "continual.ratios": "0.5,0.8",
    "continual.retrain-epochs": 1,
    "continual.ewc-samples": 10,
}
MASKED = ("cpg", "packnet", "piggyback")
CHANCE = 1 / 4


def walk(root: Path, name: str = "run", **flat) -> Path:
    return run(root, name, **{**SMALL, **flat})


def results_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def of(events: list[dict], kind: str, **wanted) -> list[dict]:
    return [e for e in events if e["event"] == kind and all(e.get(key) == value for key, value in wanted.items())]


@pytest.mark.parametrize("method", [*MASKED, "finetune", "ewc"])
def test_every_method_walks_the_stream(method, tmp_path, monkeypatch):
    crossed = watch(monkeypatch)
    folder = walk(tmp_path, **{"continual.method": method, "strategy.control": False, "continual.goal": "none"})
    events, outcome = facts(folder), results_of(folder)
    config = parse({"data.tasks-per-client": 3})
    for client, one in zip((0, 6), outcome["streams"]["clients"], strict=True):
        tested = of(events, "evaluate", client=client, split="test")
        assert [(e["after"], e["task"]) for e in tested] == [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)]
        for event in tested:
            assert event["num_examples"] == len(load_task(config.data, client, event["task"]).test)
            assert event["capacity"] > 0
        matrix = one["matrix"]
        assert [[value is None for value in row] for row in matrix] == [[False, True, True], [False, False, True], [False] * 3]
        if method in MASKED:
            assert one["forgetting"] == one["backward_transfer"] == 0.0
            assert [matrix[2][task] for task in range(3)] == [matrix[task][task] for task in range(3)]
        assert len(of(events, "learn", client=client)) == 3
        assert of(events, "continual", client=client, task=2)
    if method == "finetune":
        assert any(one["backward_transfer"] != 0 for one in outcome["streams"]["clients"])
    assert not any(arrays_of(message) for pair in crossed for message in pair)
    assert {row["bytes"] for row in outcome["clients"]} == {0}


def test_cpg_goes_for_what_a_model_of_its_own_reached(tmp_path):
    folder = walk(tmp_path)
    events, outcome = facts(folder), results_of(folder)
    for client in (0, 6):
        alone = [e["validation"] for e in of(events, "learn", arm="scratch", client=client)]
        goals = [e["goal"] for e in of(events, "learn", arm="continual", client=client)]
        assert goals == alone
        for task in range(3):
            states = [e["state"] for e in of(events, "continual", arm="continual", client=client, task=task)]
            assert states[:2] == ["begin", "train"]
            assert states[-2:] == ["choose", "retrain"]
            assert states.count("prune") in (1, 2)
            trained = of(events, "continual", arm="continual", client=client, task=task, state="train")[-1]
            missed = of(events, "continual-note", client=client, task=task, note="goal-not-met")
            assert bool(missed) == (trained["validation"] < goals[task])
            assert len(states) == states.count("grow") * 2 + states.count("prune") + 4
    scratch = {e["client"]: [] for e in of(events, "evaluate", arm="scratch")}
    for event in of(events, "evaluate", arm="scratch"):
        scratch[event["client"]].append(event["balanced_accuracy"])
    for row, one in zip(outcome["clients"], outcome["streams"]["clients"], strict=True):
        assert row["control"] == pytest.approx(np.mean(scratch[row["client"]]))
        diagonal = [one["matrix"][task][task] for task in range(3)]
        assert one["transfer_gain"] == pytest.approx(np.mean(diagonal) - np.mean(scratch[row["client"]]))
    assert outcome["streams"]["means"]["forgetting"] == 0.0


def test_a_margin_moves_the_goal_and_stays_in_range():
    class Job:
        config = parse({"continual.goal-margin": 0.05})

    assert continual._goal(Job, [0.5, 0.98, float("nan")], 0) == 0.55
    assert continual._goal(Job, [0.5, 0.98, float("nan")], 1) == 1.0
    assert continual._goal(Job, [0.5, 0.98, float("nan")], 2) == 0.0
    assert continual._goal(Job, None, 0) == 0.0


def test_later_tasks_are_kept_their_part(tmp_path):
    """Nothing is good enough, and yet half of an equal part of the weights is freed: 1/3, then 1/4, then nothing."""
    settings = {"continual.ratios": "0.3,0.4,0.9", "continual.tolerance": 0.0, "continual.growth-step": 0.0}
    folder = walk(tmp_path, **settings, **{"continual.goal-margin": 1.0, "data.clients": "6", "train.learning-rate": 1e-6})
    chosen = [e["ratio"] for e in of(facts(folder), "continual", arm="continual", state="choose")]
    assert [least <= ratio for least, ratio in zip((1 / 3, 1 / 4, 0), chosen, strict=True)] == [True] * 3


class KilledError(BaseException):
    """Stands for kill -9: nothing may catch it and go on."""


def die_at(monkeypatch, owner, name: str, fatal: int):
    """Let the call number ``fatal`` of a function kill the process, before or after its work in turn."""
    whole, count = getattr(owner, name), 0

    def call(*args, **kwargs):
        nonlocal count
        count += 1
        if count == fatal and fatal % 2:
            raise KilledError
        result = whole(*args, **kwargs)
        if count == fatal:
            raise KilledError
        return result

    monkeypatch.setattr(owner, name, call)
    return lambda: monkeypatch.setattr(owner, name, whole)


def same_end(whole: Path, resumed: Path) -> None:
    assert facts(resumed) == facts(whole)
    for path in whole.rglob("*.safetensors"):
        assert path.read_bytes() == (resumed / path.relative_to(whole)).read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return walk(tmp_path_factory.mktemp("whole"), **{"data.clients": "6"})


@pytest.mark.parametrize("fatal", [1, 2, 4, 5, 9, 12])
def test_killed_between_two_states_of_a_task_it_ends_the_same(whole, fatal, tmp_path, monkeypatch):
    revive = die_at(monkeypatch, checkpoint, "save", fatal)
    with pytest.raises(KilledError):
        walk(tmp_path, **{"data.clients": "6"})
    revive()
    same_end(whole, walk(tmp_path, **{"data.clients": "6", "run.resume": True}))


def test_it_goes_on_where_it_was(whole, tmp_path, monkeypatch):
    """What was done before the crash is not done again."""
    fit, trained = cpg.fit, []
    monkeypatch.setattr(
        cpg, "fit", lambda run, *args, **kwargs: trained.append(run.progress.state) or fit(run, *args, **kwargs)
    )
    revive = die_at(monkeypatch, checkpoint, "save", 4)
    with pytest.raises(KilledError):
        walk(tmp_path, **{"data.clients": "6"})
    before = len(trained)
    revive()
    walk(tmp_path, **{"data.clients": "6", "run.resume": True})
    states = [e["state"] for e in of(facts(whole), "continual", arm="continual")]
    assert before + (len(trained) - before) == len([state for state in states if state in ("train", "prune", "retrain")])


@pytest.mark.parametrize("fatal", [2, 5, 12, 20])
def test_killed_on_the_server_it_ends_the_same(whole, fatal, tmp_path, monkeypatch):
    revive = die_at(monkeypatch, RunFolder, "record", fatal)
    with pytest.raises(KilledError):
        walk(tmp_path, **{"data.clients": "6"})
    revive()
    same_end(whole, walk(tmp_path, **{"data.clients": "6", "run.resume": True}))


def test_two_states_and_no_checkpoints_are_left(whole):
    folder = whole / "clients" / "006" / "continual"
    assert sorted(path.name for path in folder.glob("*.json")) == ["round-0002.json", "round-0003.json"]
    assert not [path for path in folder.rglob("*") if path.is_file() and path.parent != folder]
    arrays, kept = load_record(folder / "round-0003")
    bits = sum(value.nbytes for name, value in arrays.items() if name.endswith((".owned", ".picks")))
    assert list(kept["memory"]["tasks"]) == ["1", "2", "3"]
    assert bits == of(facts(whole), "learn", arm="continual", client=6)[-1]["mask_bytes"]


def test_an_old_run_of_the_same_name_is_not_gone_on_with(whole, tmp_path, monkeypatch):
    revive = die_at(monkeypatch, checkpoint, "save", 4)
    with pytest.raises(KilledError):
        walk(tmp_path, **{"data.clients": "6"})
    revive()
    for path in ("config.toml", "manifest.json", "events.jsonl"):
        (tmp_path / "run" / path).unlink()
    for path in (tmp_path / "run" / "checkpoints").rglob("*.*"):
        path.unlink()
    same_end(whole, walk(tmp_path, **{"data.clients": "6"}))


def test_what_a_task_lacks_is_recorded(tmp_path, monkeypatch):
    from client import stream

    def poor(data, partition, fraction, task=0):
        found = load_task(data, partition, task)
        if task == 1:
            found.train.labels[:] = 0
            found.val.labels[found.val.labels == 2] = 1
        return found

    monkeypatch.setattr(stream, "cached_client", poor)
    folder = walk(tmp_path, **{"data.clients": "6", "continual.method": "packnet", "strategy.control": False})
    names = load_task(parse({"data.tasks-per-client": 3}).data, 6, 1).subgroup.classes
    notes = [(e["note"], e["task"], e["classes"]) for e in of(facts(folder), "continual-note")]
    assert notes == [("one-class", 1, [names[0]]), ("no-validation-example", 1, [names[2]])]
    assert results_of(folder)["streams"]["means"]["forgetting"] == 0.0


def test_without_a_free_weight_it_is_said_and_learned_by_picks(tmp_path):
    settings = {"continual.method": "packnet", "continual.packnet-ratio": 0.0, "strategy.control": False}
    events = facts(walk(tmp_path, **settings, **{"data.clients": "6"}))
    assert [(e["note"], e["task"]) for e in of(events, "continual-note")] == [("no-free-weights", 1), ("no-free-weights", 2)]
    assert [e["owned"] for e in of(events, "continual", state="retrain", task=2)] == [0]


@pytest.mark.parametrize("name", ["perceiver-io", "perceiver", "beit3"])
def test_every_model_walks_and_forgets_nothing(name, tmp_path):
    small = {"model.name": name, "model.layers": 1, "data.train-fraction": 0.1, "data.tasks-per-client": 2}
    settings = {"continual.growth-cap": 1.3, "continual.goal-margin": 1.0}
    folder = walk(tmp_path, **small, **settings)
    assert results_of(folder)["streams"]["means"]["forgetting"] == 0.0
    assert of(facts(folder), "continual", state="grow")
    learned = {e["client"]: e["capacity"] for e in of(facts(folder), "learn", arm="continual", round=2)}
    tested = {e["client"]: e["capacity"] for e in of(facts(folder), "evaluate", arm="continual", after=2)}
    assert learned == tested  # in models of the first widths, also where it grew


def test_killed_for_real_it_ends_the_same(whole, tmp_path):
    """SIGKILL to the whole process while a task is in the middle."""
    flat = {**HELPER_SMALL, **SMALL, "data.clients": "6", "run.output-dir": str(tmp_path), "run.name": "run"}
    program = f"from config import parse\nfrom simulations import inprocess\ninprocess.run(parse({flat!r}))"
    with subprocess.Popen([sys.executable, "-c", program], cwd=PROJECT_ROOT, stderr=subprocess.DEVNULL) as process:
        folder = tmp_path / "run" / "clients" / "006" / "continual"
        while process.poll() is None and not list(folder.glob("task-*/task-2-*.json")):
            os.sched_yield()
        assert process.poll() is None, "the run ended before it could be killed"
        process.kill()
    assert process.returncode == -9
    assert not (tmp_path / "run" / "results.json").exists()
    same_end(whole, walk(tmp_path, **{"data.clients": "6", "run.resume": True}))
