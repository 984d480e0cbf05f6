"""Donors that die, lie, or that a target refuses, with clients that answer from tables."""

import math

import pytest
from flwr.app import ConfigRecord

from strategies.protocol import Manifest, RunError
from tests.strategies.world import orders, world


def fails_once_scored(donor):
    """The donor dies when a target is to learn on top of it."""
    count = {"pulls": 0}

    def fails(kind, told):
        if kind != "query.backbone" or told["partition_id"] != donor:
            return False
        count["pulls"] += 1
        return count["pulls"] > 1

    return fails


def test_a_donor_that_dies_when_it_is_wanted_makes_way_for_the_next():
    """What was scored is kept by targets, so the donor is wanted once more only by one that no longer has it."""
    run = world()
    run.scores = {(0, 3): 0.9, (0, 1): 0.7}
    run.fails = fails_once_scored(3)
    run.refuses = lambda kind, target, donor: kind == "train.task" and (target, donor) == (0, 3)
    run.go()
    assert [(e["client"], e["target"]) for e in run.of("refused")] == [(3, 0)]
    assert run.chosen()[0] == [3]
    assert run.routed()[0] == [1]
    assert run.learned[0, "backpack"] == [1]


@pytest.mark.parametrize("combine", [{}, {"routing": "cluster"}, {"shortlist": 2}, {"abstain": True}])
def test_the_next_best_of_a_donor_that_dies(combine):
    """The best donor of target 0 dies when it is first asked."""
    run = world(**combine)
    run.scores, run.sketch = {(0, 3): 0.9, (0, 1): 0.7}, {3: 0.1, 1: 0.2, 2: 1.5}
    run.fails = lambda kind, told: kind == "query.backbone" and told["partition_id"] == 3
    run.go()
    assert {e["client"] for e in run.of("refused")} == {3}
    assert "gone" in run.of("refused")[0]["reason"]
    assert run.routed()[0] == [1]


def test_a_rule_passes_over_a_donor_that_dies():
    whole = world(scorer="random", top=1).go()
    dead = whole.routed()[0][0]
    run = world(scorer="random", top=1)
    run.fails = lambda kind, told: kind == "query.backbone" and told["partition_id"] == dead
    run.go()
    assert run.chosen() == whole.chosen()
    assert run.routed()[0] == [orders(whole)[0][1]]
    assert {e["client"] for e in run.of("refused")} == {dead}


def test_what_came_before_the_refused_one_does_not_come_again():
    run = world(scorer="same-modality-random", top=2)
    (first, second, third) = orders(world(scorer="same-modality-random", top=2).go())[0]
    run.refuses = lambda kind, target, donor: (kind, target, donor) == ("train.task", 0, second)
    run.go()
    assert run.routed()[0] == [first, third]
    assert run.twice == 0


def test_what_was_refused_comes_again_where_another_donor_sends_the_same():
    """A target that refuses donor 1 may hold it no longer: donor 2, which is the same, is not to be taken from its disk."""
    run = world()
    run.alike = {2: 1}
    run.refuses = lambda kind, target, donor: (kind, target, donor) == ("train.task", 0, 1)
    run.go()
    assert [(e["client"], e["target"]) for e in run.of("refused")] == [(1, 0)]
    assert run.routed()[0] == [2]


def test_all_refused_is_none():
    run = world()
    run.refuses = lambda kind, target, donor: (kind, target) == ("train.task", 0)
    run.go()
    assert run.routed()[0] == []
    assert {e["client"] for e in run.of("refused", target=0)} == {1, 2, 3}


def test_whatever_a_target_names_one_donor_is_gone():
    """A target that refuses a donor which it was not sent does not keep the broker busy for ever."""
    run = world(top=1)
    whole = run.job.mailbox.grid.answer

    def strange(message):
        reply = whole(message)
        if "facts" in reply.content:
            reply.content["facts"]["donor"] = 77
        return reply

    run.job.mailbox.grid.answer = strange
    run.refuses = lambda kind, target, donor: (kind, target, donor) == ("train.task", 0, 1)
    run.go()
    assert run.routed()[0] == [2]


def test_a_target_that_refuses_nothing_stops_the_run():
    run = world(abstain=True)
    whole = run.job.mailbox.grid.answer

    def strange(message):
        reply = whole(message)
        told = message.content["config"]
        if told["arm"] == "backpack" and message.metadata.message_type == "train.task" and told["partition_id"] == 0:
            reply.content["facts"] = ConfigRecord({"reason": "nothing suits", "donor": 0})
        return reply

    run.job.mailbox.grid.answer = strange
    run.short = {(0, None): 1.0}
    with pytest.raises(RunError, match="client 0 refuses a donor, and was sent none: nothing suits"):
        run.go()


LIES = {"validation": math.nan, "num_train": "many", "modality": "text", "partition_id": 2, "classes": (1, 2)}


@pytest.mark.parametrize("field", LIES)
def test_a_manifest_that_is_none_is_refused(field):
    run = world()
    run.lies = lambda donor, fields: {**fields, field: LIES[field]} if donor == 1 else fields
    run.go()
    assert {e["client"] for e in run.of("refused")} == {1}
    assert not any(1 in donors for donors in run.routed().values())


@pytest.mark.parametrize("validation", ["NaN", '"0.5"', "1.5", "null"])
def test_a_manifest_says_what_is_wrong(validation):
    text = Manifest(1, "image", ("a",), 0.25, 9, "x").to_json().replace("0.25", validation)
    with pytest.raises(ValueError, match="expected a number from 0 to 1"):
        Manifest.from_json(text)
