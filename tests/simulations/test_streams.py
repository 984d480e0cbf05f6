"""A stream of tasks through the whole app, walked by the plainest strategy there is: one round a task, no exchange."""

import json

import pytest

from config import ConfigError, parse
from data_partition import streams
from data_partition.streams import load_task
from server.run_folder import read_events
from simulations import inprocess, runner
from strategies import table
from strategies.protocol import EVALUATE, TRAIN

SMALL = {"run.rounds": 2, "train.epochs": 1, "data.clients": "0,6", "data.tasks-per-client": 2, "strategy.name": "local"}


def walk(job):
    """Train each task for a round, then evaluate the tasks met so far."""
    clients = job.mailbox.clients.values()
    for learned in (1, 2):
        told = [job.instruction(client, "local", round=learned, task=learned - 1) for client in clients]
        replies = job.mailbox.ask([job.message(TRAIN, one, None) for one in told], lambda client: {})
        job.record_training(replies, "local", learned)
        for task in range(learned):
            told = [job.instruction(client, "local", round=learned, task=task, split="test") for client in clients]
            job.evaluate([job.message(EVALUATE, one, None) for one in told], after=learned)


@pytest.fixture
def config(monkeypatch, tmp_path):
    monkeypatch.setitem(table.STREAMS, "local", walk)
    return parse({**SMALL, "run.output-dir": str(tmp_path), "run.name": "stream"})


def run(config):
    runner.check(config)
    inprocess.run(config)
    return runner.folder(config)


def test_tasks_cross_the_wire_and_come_back_as_a_matrix(config):
    folder = run(config)
    events = read_events(folder / "events.jsonl")
    outcome = json.loads((folder / "results.json").read_text())
    for row, one in zip(outcome["clients"], outcome["streams"]["clients"], strict=True):
        client = row["client"]
        tasks = [load_task(config.data, client, task) for task in range(2)]
        described = next(e for e in events if e["event"] == "client" and e["client"] == client)
        assert described["tasks"] == [list(task.subgroup.classes) for task in tasks]
        assert described["train"] == sum(len(task.train) for task in tasks)
        tested = [e for e in events if e["event"] == "evaluate" and e["client"] == client]
        assert [(e["after"], e["task"], e["num_examples"]) for e in tested] == [
            (after, task, len(tasks[task].test)) for after, task in ((1, 0), (2, 0), (2, 1))
        ]
        first, old, new = (e["balanced_accuracy"] for e in tested)
        assert one["matrix"] == [[first, None], [old, new]]
        assert row["accuracy"] == one["average_accuracy"] == pytest.approx((old + new) / 2)
        assert one["backward_transfer"] == pytest.approx(old - first)
        assert row["chance"] == pytest.approx(1 / 6)
    assert not [e for e in events if e["event"] == "warning"]


def test_a_class_without_validation_is_recorded(config, monkeypatch):
    def warned(client):
        return ("no validation example of the class x",) if client.subgroup.modality == "text" else ()

    monkeypatch.setattr(streams, "empty_classes", warned)
    events = read_events(run(config) / "events.jsonl")
    found = [(e["client"], e["text"]) for e in events if e["event"] == "warning"]
    assert found == [(6, f"task {task}: no validation example of the class x") for task in range(2)]


def test_a_strategy_for_one_task_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(ConfigError, match="'joint' trains one task a client"):
        runner.check(parse({**SMALL, "strategy.name": "joint", "run.output-dir": str(tmp_path), "run.name": "stream"}))
