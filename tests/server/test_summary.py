import pytest

from server.summary import lines, results


def evaluated(arm, client, value, split="test"):
    return {"event": "evaluate", "arm": arm, "client": client, "split": split, "balanced_accuracy": value}


def message(arm, client, size):
    return {"event": "message", "arm": arm, "client": client, "bytes_down": size, "bytes_up": size}


CLIENTS = [{"event": "client", "client": i, "modality": "image", "classes": ["a", "b", "c", "d"]} for i in (0, 1)]


def test_rows_means_and_bytes_by_hand():
    events = [
        *CLIENTS,
        evaluated("control", 0, 0.5),
        evaluated("control", 1, 0.6),
        message("control", 0, 7),
        message("federated", 0, 100),
        message("federated", 0, 100),
        evaluated("federated", 0, 0.7),
        evaluated("federated", 0, 0.9, split="val"),
        evaluated("federated", 1, 0.2),
    ]
    outcome = results(events, 3.0)
    assert [(r["control"], r["accuracy"], r["bytes"]) for r in outcome["clients"]] == [(0.5, 0.7, 400), (0.6, 0.2, 0)]
    assert [r["difference"] for r in outcome["clients"]] == pytest.approx([0.2, -0.4])
    assert outcome["mean_accuracy"] == pytest.approx(0.45)
    assert outcome["mean_difference"] == pytest.approx(-0.1)
    assert (outcome["clients_better"], outcome["clients_above_chance"]) == (1, 1)


def test_without_control():
    outcome = results([*CLIENTS, evaluated("local", 0, 0.5)], 1.0)
    assert outcome["mean_control"] is None
    assert outcome["mean_difference"] is None
    assert "–" in lines(outcome)[1]


def test_late_joiners_are_compared_with_scratch_and_donors_are_left_out():
    events = [*CLIENTS, evaluated("without-domain-0", 1, 0.9), evaluated("scratch-domain-0", 0, 0.2)]
    outcome = results([*events, evaluated("joined-domain-0", 0, 0.3)], 1.0)
    assert [(r["client"], r["control"], r["accuracy"]) for r in outcome["clients"]] == [(0, 0.2, 0.3)]
