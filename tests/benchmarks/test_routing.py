"""How the benchmark of routing adds up bytes."""

from benchmarks.routing import Traffic, Watcher, everyone, growth, subgroups, traffic

EVENT = {"event": "message", "framing_up": 1, "framing_down": 2}


def message(kind, arm, up, down):
    return {**EVENT, "type": kind, "arm": arm, "bytes_up": up, "bytes_down": down}


def test_traffic_by_hand():
    watcher = Watcher()
    watcher.sent.update([(0, "donors-x"), (1, "donors-x"), (0, "donors-x")])
    watcher.peak = 1
    events = [
        message("query.sketch", "own", 2000, 0),
        message("query.backbone", "donor", 500, 0),
        {"event": "backbone"},
        message("query.score", "own", 10, 500),
        message("train.task", "control", 7, 7),  # the control needs no donor
        message("train.task", "backpack", 20, 500),
    ]
    found = traffic(2, events, watcher)
    assert found == Traffic(2, 2003, 503, 513, 523, 1, 3, 1, 1)
    assert found.total == 3542


def test_everyone_and_growth_by_hand():
    few = Traffic(4, 40, 400, 600, 80, 4, 6, 0, 1)
    assert few.total == 1120
    assert everyone(few, 4) == 4 * (100 + 20 + 1 * 100)
    assert everyone(few, 40) == 40 * (100 + 20 + 19 * 100)
    more = Traffic(8, 80, 800, 1200, 2320, 8, 12, 0, 1)
    assert growth([few, more]) == [(4400 / 8) / (1120 / 4)]


def test_half_of_the_clients_have_images():
    found = subgroups(48)
    assert [one.partition_id for one in found] == list(range(48))
    assert sum(one.modality == "image" for one in found) == 24
