"""Bytes, warnings and refused replies in the report."""

from simulations.report_ledger import by_kind
from tests.simulations.pages import made, message, shown


def test_ledger_by_hand(tmp_path):
    """Two rounds of training wait 2 s and 4 s; the slowest of each request counts, and a refused reply is part of it."""
    events = [
        message("federated", "train", 1, 0, 1_000_000, 500_000, 1.0),
        {"event": "refused", "arm": "federated", "round": 1, "client": 0, "type": "train", "reason": "no reply in time"},
        message("federated", "train", 1, 6, 1_000_000, 500_000, 2.0),
        {"event": "round", "arm": "federated", "round": 1, "loss": 1.0},
        message("federated", "train", 2, 0, 2_000_000, 500_000, 4.0),
        message("federated", "evaluate", 2, 0, 0, 0, 0.5),
        message("federated", "evaluate", 2, 0, 0, 0, 0.25),
        {"event": "warning", "client": 6, "text": "no validation example of the class x"},
    ]
    page = shown(made(tmp_path, events))
    assert page.table("arm", "type") == [
        ["federated", "train", "3", "4.00", "1.50", "0.09", "6.0"],
        ["federated", "evaluate", "2", "0.00", "0.00", "0.06", "0.8"],
        ["all", "", "5", "4.00", "1.50", "0.15", "6.8"],
    ]
    assert page.table("client", "messages") == [["0", "4", "3.00", "1.00", "0.12"], ["6", "1", "1.00", "0.50", "0.03"]]
    assert page.table("arm", "round") == [["federated", "1", "0", "train", "no reply in time"]]
    assert page.table("client", "text") == [["6", "no validation example of the class x"]]


def test_messages_that_something_came_between_were_not_sent_together():
    events = [message("a", "train", 1, client, 0, 0, 1.0) for client in (0, 6)]
    assert by_kind(events)["a", "train"].seconds == 1.0
    assert by_kind([events[0], {"event": "evaluate"}, events[1]])["a", "train"].seconds == 2.0
