import json

import pytest

from server import continual_summary
from server.continual_summary import SCORES, average_accuracies, cells, matrix_cells, mean_matrix, results, score, streams
from server.summary import lines
from server.summary import results as summary_of
from simulations import runner

TASKS = [["a", "b"], ["c", "d"], ["e", "f", "g", "h"]]
CLIENTS = [{"event": "client", "client": i, "modality": "image", "classes": [*"abcdefgh"], "tasks": TASKS} for i in (0, 1)]
HAND = {(1, 0): 0.7, (2, 0): 0.9, (2, 1): 0.8, (3, 0): 0.6, (3, 1): 0.5, (3, 2): 0.7}
"""ACC 1.8 / 3; BWT (-.1 - .3) / 2; FGT (.3 + .3) / 2."""


def evaluated(arm, client, after, task, value, split="test", **fields):
    where = {"event": "evaluate", "arm": arm, "client": client, "split": split, "round": 1}
    return {**where, "after": after, "task": task, "balanced_accuracy": value, **fields}


def walk(arm, client, entries, **fields):
    return [evaluated(arm, client, after, task, value, **fields) for (after, task), value in entries.items()]


def test_matrix_and_scores_by_hand():
    before = {(0, 1): 0.4, (0, 2): 0.2, (1, 1): 0.5, (2, 2): 0.1}
    scratch = [evaluated("scratch-tasks", 0, 1, task, value) for task, value in enumerate((0.6, 0.9, 0.4))]
    events = [*CLIENTS, *walk("federated", 0, HAND | before, capacity=1.5), *scratch]
    (one,) = streams(events)
    assert (one.client, one.arm, one.capacity) == (0, "federated", 1.5)
    assert one.matrix == [[0.7, 0.5, None], [0.9, 0.8, 0.1], [0.6, 0.5, 0.7]]
    assert one.average_accuracy == pytest.approx(0.6)
    assert one.backward_transfer == pytest.approx(-0.2)
    assert one.forgetting == pytest.approx(0.3)
    assert one.forward_transfer == pytest.approx(((0.5 - 0.4) + (0.1 - 0.2)) / 2)
    assert one.transfer_gain == pytest.approx((0.1 - 0.1 + 0.3) / 3)


def test_without_references_the_two_forward_scores_are_none():
    (one,) = streams([*CLIENTS, *walk("federated", 0, HAND)])
    assert (one.forward_transfer, one.transfer_gain, one.capacity) == (None, None, None)
    assert one.forgetting == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("lost", "none"),
    [
        ((3, 1), {"average_accuracy", "backward_transfer", "forgetting"}),
        ((2, 0), {"forgetting"}),
        ((2, 1), {"backward_transfer", "forgetting"}),
    ],
)
def test_a_score_that_needs_what_was_not_measured_is_none(lost, none):
    (one,) = streams([*CLIENTS, *walk("federated", 0, {at: value for at, value in HAND.items() if at != lost})])
    assert one.matrix[lost[0] - 1][lost[1]] is None
    scores = ("average_accuracy", "backward_transfer", "forgetting")
    assert {name for name in scores if getattr(one, name) is None} == none


def test_validation_preparation_and_evaluations_outside_streams_do_not_count():
    events = [*CLIENTS, *walk("federated", 0, HAND)]
    noise = [
        *walk("federated", 0, dict.fromkeys(HAND, 0.0), split="val"),
        *walk("without-domain-0", 0, dict.fromkeys(HAND, 0.0)),
        *walk("control", 1, HAND),
        {"event": "evaluate", "arm": "federated", "client": 0, "split": "test", "balanced_accuracy": 0.0},
        {"event": "round", "arm": "federated", "after": 1},
    ]
    assert streams([*events, *noise]) == streams(events)


def test_arms_are_not_mixed_and_a_repeated_measurement_replaces_the_first():
    first = walk("federated", 0, dict.fromkeys(HAND, 0.1), capacity=3.0)
    (one,) = streams([*CLIENTS, *first, *walk("packed", 0, {(1, 0): 0.2}), *walk("packed", 0, {(1, 0): 0.3})])
    assert (one.arm, one.matrix[0][0], one.matrix[2], one.capacity) == ("packed", 0.3, [None] * 3, None)


def test_results_means_and_control():
    other = dict.fromkeys(HAND, 0.5)
    control = [*walk("control", 0, other), *walk("control", 1, other)]
    events = [*CLIENTS, *control, *walk("federated", 1, other), *walk("federated", 0, HAND)]
    found = results(events)
    assert [one["client"] for one in found["clients"]] == [0, 1]
    assert [one["arm"] for one in found["control"]] == ["control"] * 2
    assert found["means"]["forgetting"] == pytest.approx(0.15)
    assert found["means"]["average_accuracy"] == pytest.approx(0.55)
    assert found["control_means"]["forgetting"] == 0.0
    assert found["means"]["transfer_gain"] is None
    json.dumps(found, allow_nan=False)
    outcome = summary_of(events, 1.0)
    assert outcome["streams"] == found
    assert [row["accuracy"] for row in outcome["clients"]] == pytest.approx([0.6, 0.5])
    assert [row["difference"] for row in outcome["clients"]] == pytest.approx([0.1, 0.0])
    assert outcome["clients"][0]["chance"] == pytest.approx((1 / 2 + 1 / 2 + 1 / 4) / 3)


def test_learning_every_task_from_scratch_is_a_control_if_there_is_no_other():
    scratch = [evaluated("scratch-tasks", 0, 1, task, 0.3 + task / 10) for task in range(3)]
    events = [*CLIENTS, *walk("federated", 0, HAND), *scratch]
    assert average_accuracies(events, "control") == {0: pytest.approx(0.4)}
    assert average_accuracies(events[:-1], "control") == {}
    walked = walk("control", 0, dict.fromkeys(HAND, 0.9))
    assert average_accuracies([*events, *walked], "control") == {0: pytest.approx(0.9)}


def test_a_client_without_a_whole_last_row_has_no_accuracy():
    """Its last evaluated task must not pass for its accuracy on all."""
    events = [*CLIENTS, *walk("federated", 0, {(1, 0): 1.0}), *walk("federated", 1, HAND)]
    outcome = summary_of(events, 1.0)
    assert [row["client"] for row in outcome["clients"]] == [1]
    assert [one["average_accuracy"] for one in outcome["streams"]["clients"]] == [None, pytest.approx(0.6)]


def test_a_run_without_streams_says_nothing_of_them():
    plain = [{key: value for key, value in client.items() if key != "tasks"} for client in CLIENTS]
    event = {"event": "evaluate", "arm": "local", "client": 0, "split": "test", "balanced_accuracy": 0.5}
    outcome = summary_of([*plain, event], 1.0)
    assert results([*plain, event]) is None
    assert "streams" not in outcome
    assert len(lines(outcome)) == 3


def test_tasks_that_nobody_described_are_refused():
    with pytest.raises(ValueError, match="client 7 was evaluated on a stream"):
        streams([*CLIENTS, *walk("federated", 7, HAND)])


def test_table_for_log_and_screen(tmp_path, capsys):
    events = [*CLIENTS, *walk("control", 0, dict.fromkeys(HAND, 0.5)), *walk("federated", 0, HAND)]
    outcome = summary_of(events, 1.0)
    assert cells(outcome["streams"]) == [
        ["stream", "ACC", "BWT", "FGT"],
        ["0", "0.600", "-0.200", "+0.300"],
        ["mean", "0.600", "-0.200", "+0.300"],
        ["control", "0.500", "+0.000", "+0.000"],
    ]
    assert lines(outcome)[-9:] == continual_summary.lines(outcome["streams"])
    assert [line.split() for line in lines(outcome)[-6:]] == [
        ["control", "0.500", "+0.000", "+0.000"],
        ["accuracy", "on", "task", "j", "after", "learning", "i", "tasks,", "mean", "over", "clients"],
        ["learned", "task", "0", "task", "1", "task", "2"],
        ["1", "0.700"],
        ["2", "0.900", "0.800"],
        ["3", "0.600", "0.500", "0.700"],
    ]
    (tmp_path / "results.json").write_text(json.dumps(outcome))
    (tmp_path / "manifest.json").write_text("{}")
    runner.show(tmp_path)
    shown = capsys.readouterr().out
    assert "streams of tasks" in shown
    assert "+0.300" in shown


def test_mean_matrix_is_over_the_clients_that_have_an_entry():
    table = [{"matrix": [[0.5, None], [0.25, 1.0]]}, {"matrix": [[1.0, None], [None, 0.5]]}, {"matrix": [[0.0]]}]
    assert mean_matrix(table) == [[0.5, None], [0.25, 0.75]]
    assert matrix_cells(table) == [["learned", "task 0", "task 1"], ["1", "0.500", ""], ["2", "0.250", "0.750"]]
    assert (mean_matrix([]), matrix_cells([])) == ([], [])


def test_forward_transfer_is_the_gain_over_training_from_scratch():
    assert (SCORES["transfer_gain"], SCORES["forward_transfer"]) == ("FWT", "zero-shot")
    scratch = [evaluated("scratch-tasks", 0, 1, task, value) for task, value in enumerate((0.6, 0.9, 0.4))]
    before = {(0, 1): 0.4, (0, 2): 0.2, (1, 1): 0.6, (2, 2): 0.1}
    head, one, *_ = cells(results([*CLIENTS, *walk("federated", 0, HAND | before), *scratch]))
    assert (head[4:], one[4:]) == (["FWT", "zero-shot"], ["+0.100", "+0.050"])


def test_a_score_as_text():
    assert score({"forgetting": None}, "forgetting") == "–"
    assert score({"capacity": 1.5}, "capacity") == "1.500"
