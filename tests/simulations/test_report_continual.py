"""Continual learning in the report: accuracy matrices, scores of streams, and the facts of each client."""

import re

from server.summary import results as results_of
from simulations import runner
from tests.server.test_continual_summary import CLIENTS, HAND, walk
from tests.simulations.pages import made, sections, shown


def test_streams_by_hand(tmp_path):
    """ACC (.6 + .5 + .7) / 3, and R of the mean with a client that has .5 everywhere."""
    same = dict.fromkeys(HAND, 0.5)
    events = [*CLIENTS, *walk("control", 0, same), *walk("federated", 0, HAND), *walk("federated", 1, same)]
    outcome = results_of(events, 1.0)
    page = shown(made(tmp_path, events, outcome))
    assert sections(page) == ["Run", "Settings", "Result", "Streams of tasks"]
    assert page.table("stream") == [
        ["0", "0.600", "-0.200", "+0.300"],
        ["1", "0.500", "+0.000", "+0.000"],
        ["mean", "0.550", "-0.100", "+0.150"],
        ["control", "0.500", "+0.000", "+0.000"],
    ]
    assert page.names.count("rect") == 5 * (9 + 3)  # matrices of two means and three clients: 9 cells, and 3 frames
    for value in ("1 learned, task 0: 0.600", "2 learned, task 1: 0.650", "3 learned, task 2: 0.600"):
        assert value in page.text
    assert "1 learned, task 1" not in page.text
    assert "0 is none." in page.text
    assert "of equal size" not in page.text  # nobody measured FWT


def test_a_run_shows_the_mean_matrix_at_its_end(tmp_path, capsys):
    events = [*CLIENTS, *walk("federated", 0, HAND), *walk("federated", 1, dict.fromkeys(HAND, 0.5))]
    runner.show(made(tmp_path, events, results_of(events, 1.0)))
    screen = capsys.readouterr().out
    assert "accuracy on task j after learning i tasks, mean over clients" in " ".join(screen.split())
    body = screen.rpartition("learned")[2].splitlines()
    assert [re.findall(r"[\d.]+", line) for line in body if line.startswith("│")] == [
        ["1", "0.600"],
        ["2", "0.700", "0.650"],
        ["3", "0.550", "0.500", "0.600"],
    ]


def fact(task, state, **fields):
    return {"event": "continual", "arm": "cpg", "client": 3, "task": task, "method": "cpg", "state": state, **fields}


FACTS = [
    fact(0, "begin", owned=1000, free=0, validation=None),
    fact(0, "prune", stage=1, ratio=0.5, validation=0.8125, owned=600, free=400),
    {"event": "continual-note", "arm": "cpg", "client": 3, "task": 0, "note": "goal-not-met", "goal": 0.9},
    fact(1, "begin", owned=400, free=0),
    fact(1, "retrain", validation=0.75, owned=150, free=250, width={"latent": 64, "<b>": 2}),
    fact(1, "done"),
    {"event": "continual", "client": 10},
]


def test_facts_of_continual_learning_by_hand(tmp_path):
    page = shown(made(tmp_path, FACTS))
    assert sections(page) == ["Run", "Settings", "Continual learning"]
    first, second = [one for one in page.tables if one[0][0] == "task"]
    assert first == [
        ["task", "state", "stage", "ratio", "validation", "owned", "free", "goal", "width"],
        ["0", "begin", "–", "–", "–", "1,000", "0", "–", "–"],
        ["0", "prune", "1", "0.500", "0.812", "600", "400", "–", "–"],
        ["0", "note: goal-not-met", "–", "–", "–", "–", "–", "0.900", "–"],
        ["1", "begin", "–", "–", "–", "400", "0", "–", "–"],
        ["1", "retrain", "–", "–", "0.750", "150", "250", "–", "latent 64, <b> 2"],
        ["1", "done", *["–"] * 7],
    ]
    assert second[1:] == [["–"] * 7]
    assert page.classes.count("note") == 1
    assert "client 3, cpg, facts: 5, notes: 1" in page.text
    for told in ("client 3, task 0: 600 of 1,000", "client 3, task 1: 150 of 1,000", "client 3, free: 250 of 1,000"):
        assert told in page.text
    assert "client 10, task" not in page.text
