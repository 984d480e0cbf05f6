"""Who learns on top of whom, with clients that answer from tables."""

import math

import numpy as np
import pytest

from strategies.protocol import DONORS, Manifest
from strategies.routing import with_twins
from tests.fakes import client
from tests.strategies.world import EVERYONE, IMAGES, World, orders, scored, world

INSIDE = {0: {1, 2, 3}, 1: {0, 2, 3}, 2: {0, 1, 3}, 3: {0, 1, 2}, 4: {5}, 5: {4}}


def test_the_best_score_goes_first_and_nothing_comes_twice():
    run = world(top=2)
    run.scores = {(0, 3): 0.9, (0, 1): 0.7, (1, 2): 0.8}
    run.go()
    assert orders(run)[0] == [3, 1, 2]
    assert run.routed() == run.chosen() == {0: [3, 1], 1: [2, 0], 2: [0, 1], 3: [0, 1], 4: [5], 5: [4]}
    assert run.twice == 0
    assert set(run.asked("query.backbone").values()) == {1}


def test_a_donor_that_several_want_is_asked_once_for_all_of_them():
    run = world(scorer="random").go()
    wanted = {donor for donors in run.routed().values() for donor in donors}
    assert dict(run.asked("query.backbone")) == dict.fromkeys(wanted, 1)
    assert len(wanted) < len(run.routed())
    assert not run.asked("query.score")


@pytest.mark.parametrize("settings", [{}, {"scorer": "random"}, {"scorer": "random", "abstain": True, "finalists": 3}])
def test_the_same_backbone_of_two_donors_comes_once(settings):
    """Targets score, test and take donor 2 by what they were sent of donor 1."""
    run = world(top=3, **settings)
    run.alike = {2: 1}
    run.go()
    assert set(run.routed()[0]) == {1, 2, 3}
    assert run.twice == 0
    sent = [m for m in run.sent if m.content["config"]["partition_id"] == 0]
    assert len({name for m in sent for name in m.content.array_records if name.startswith(DONORS)}) == 2
    assert not run.of("refused")


class TestAbstention:
    def test_none_wins_where_it_is_as_good(self):
        run = world(abstain=True)
        run.short = {(0, None): 0.5, (1, None): 0.4}
        run.go()
        assert run.routed()[0] == []
        assert run.routed()[1] == [0]
        (event,) = run.of("routing", client=0)
        assert (event["tried"], event["tried_donor"], event["tried_none"]) == ([[1, 0.5]], 0.5, 0.5)

    def test_margin(self):
        run = world(abstain=True, margin=0.2)
        run.short = {(0, None): 0.4, (1, None): 0.2}
        run.go()
        assert (run.chosen()[0], run.chosen()[1]) == ([], [0])

    def test_the_best_finalist_goes_first_and_the_untested_follow(self):
        run = world(abstain=True, finalists=2, top=3)
        run.scores = {(0, 1): 0.9, (0, 2): 0.8, (0, 3): 0.7}
        run.short = {(0, 1): 0.4, (0, 2): 0.6, (0, 3): 0.99, (1, 0): 0.6, (1, 2): 0.1, (1, None): 0.2}
        run.go()
        assert orders(run)[0] == [1, 2, 3]
        assert run.routed()[0] == [2, 1, 3]
        assert run.routed()[1] == [0, 3]  # the finalist that failed the test is out
        assert run.of("routing", client=0)[0]["tried"] == [[1, 0.4], [2, 0.6]]

    @pytest.mark.parametrize("finalists", [1, 2])
    def test_for_a_finalist_that_fails_the_next_one_takes_the_test(self, finalists):
        run = world(abstain=True, finalists=finalists)
        run.scores = {(0, 1): 0.9, (0, 2): 0.8, (0, 3): 0.7}
        run.refuses = lambda kind, target, donor: (target, donor) == (0, 1) and scored(run, 0) > 3
        run.short = {(0, 2): 0.6, (0, 3): 0.9, (0, None): 0.65}
        run.go()
        (event,) = run.of("routing", client=0)
        assert event["tried_none"] == 0.65
        assert [donor for donor, _ in event["tried"]] == [2, 3][:finalists]
        assert run.routed()[0] == [3][: finalists - 1]  # 2 is worse than none
        assert [e["client"] for e in run.of("refused", target=0)] == [1]

    def test_a_finalist_that_failed_does_not_follow_those_that_passed(self):
        run = world(abstain=True, top=3)
        run.scores = {(0, 1): 0.9, (0, 2): 0.8, (0, 3): 0.7}
        run.refuses = lambda kind, target, donor: (target, donor) == (0, 1) and scored(run, 0) > 3
        run.go()
        assert run.chosen()[0] == run.routed()[0] == [2, 3]
        assert len(run.of("refused", target=0)) == 1

    def test_where_nobody_can_be_tested_nobody_is_taken(self):
        run = world(abstain=True, scorer="random")
        run.fails = lambda kind, told: kind == "query.backbone"
        run.go()
        assert set(map(tuple, run.routed().values())) == {()}

    def test_nothing_is_asked_twice(self):
        run = world(abstain=True, scorer="few-step").go()
        names = [m.content["scorers"]["names"] for m in run.sent if m.metadata.message_type == "query.score"]
        assert sorted(map(tuple, names)) == [("few-step",)] * 14 + [("none",)] * 6
        assert run.twice == 0

    def test_a_number_that_is_none_counts_as_a_failure(self):
        run = world(abstain=True)
        run.short = {(0, 1): math.nan, (0, 2): 0.6, (0, None): 0.1}
        run.go()
        assert run.routed()[0] == [2]


class TestShortlist:
    def test_a_target_scores_the_most_similar_alone(self):
        run = world(shortlist=1)
        run.sketch = {0: 0.0, 1: 0.1, 2: 1.0, 3: 1.2}
        run.go()
        assert set(run.asked("query.sketch").values()) == {2}
        assert set(run.asked("query.score").values()) == {1}
        assert run.routed() == {0: [1], 1: [0], 2: [3], 3: [2], 4: [5], 5: [4]}
        (event,) = run.of("shortlist", client=0)
        assert event["donors"] == [[1, pytest.approx(math.cos(0.1), abs=1e-3)]]

    @pytest.mark.parametrize("arm", ["donor", "own"])
    def test_a_client_without_a_sketch_is_passed_over(self, arm):
        run = world(shortlist=2)
        run.fails = lambda kind, told: kind == "query.sketch" and (told["partition_id"], told["arm"]) == (1, arm)
        run.go()
        assert [(e["client"], e["arm"]) for e in run.of("refused")] == [(1, arm)]
        assert any(1 in donors for donors in orders(run).values()) == (arm == "own")
        assert (orders(run)[1] == []) == (arm == "own")

    def test_it_is_of_the_control_where_there_is_no_own_model(self):
        run = world(shortlist=1, own_epochs=0).go()
        arms = {m.content["config"]["arm"] for m in run.sent if m.metadata.message_type in ("query.sketch", "query.score")}
        assert arms == {"donor", "control"}
        assert "own" not in run.progress.saved


class TestClusters:
    def likeness(self, run):
        for pair in ((0, 1), (2, 3)):
            run.scores |= {pair: 0.9, pair[::-1]: 0.9}
        run.scores |= {(0, 2): 0.1, (1, 3): 0.1, (0, 3): 0.1, (1, 2): 0.1}
        run.scores |= {(2, 0): 0.2, (3, 1): 0.2, (3, 0): 0.2, (2, 1): 0.2}
        return run

    @pytest.mark.parametrize("count", [0, 2])
    def test_donors_are_of_the_own_group(self, count):
        run = self.likeness(world(routing="cluster", clusters=count, top=3)).go()
        (event,) = run.of("cluster")
        assert event["clusters"] == ([[0, 1], [2, 3], [4, 5]] if not count else [[0, 1], [2, 3], [4], [5]])
        assert {target: run.routed()[target] for target in IMAGES} == {0: [1], 1: [0], 2: [3], 3: [2]}

    def test_alone_in_a_group_a_target_takes_none(self):
        run = self.likeness(world(routing="cluster", clusters=3)).go()
        alone = [group[0] for group in run.of("cluster")[0]["clusters"] if len(group) == 1]
        assert alone
        assert all(run.routed()[target] == [] for target in alone)

    def test_who_was_not_scored_is_least_alike(self):
        run = self.likeness(world(routing="cluster", clusters=2))
        run.scores |= {(0, 2): 0.4, (2, 0): 0.4, (0, 3): 0.4, (3, 0): 0.4}
        run.refuses = lambda kind, target, donor: kind == "query.score" and {target, donor} == {0, 1}
        run.go()
        assert run.of("cluster")[0]["clusters"][:2] == [[0, 2, 3], [1]]

    def test_other_modalities_are_no_members(self):
        run = self.likeness(world(routing="cluster", across=True)).go()
        assert [4, 5] in run.of("cluster")[0]["clusters"]
        assert all(set(donors) <= INSIDE[target] for target, donors in run.routed().items())


class TestAfterwards:
    def truth(self, run):
        """Donor 3 helps target 0 most; donor 2 helps the others most, and is far from the best for 0."""
        run.reached = {(target, None): 0.5 for target in INSIDE}
        run.reached |= {(0, 1): 0.6, (0, 2): 0.4, (0, 3): 0.8, (1, 2): 0.9, (3, 2): 0.9, (1, 0): 0.1, (1, 3): 0.2, (2, 1): 0.6}
        return run

    def test_oracle(self):
        run = self.truth(world(routing="all-pairs", scorer="oracle")).go()
        assert orders(run)[0] == [3, 1, 2]
        assert run.routed()[1] == [2]

    def test_best_on_average_goes_by_what_others_gained(self):
        run = self.truth(world(routing="all-pairs", scorer="best-on-average")).go()
        # Mean gains without target 0: donor 1: (0.1 + 0) / 2; donor 2: 0.4; donor 3: (-0.3 + 0) / 2.
        assert orders(run)[0] == [2, 1, 3]

    def test_a_pair_that_failed_is_last(self):
        run = self.truth(world(routing="all-pairs", scorer="oracle"))
        run.refuses = lambda kind, target, donor: (target, donor) == (0, 3)
        run.go()
        assert orders(run)[0] == [1, 2, 3]
        assert run.of("refused", target=0, client=3)
        assert run.routed()[0] == [1]

    def test_repeats_are_averaged(self):
        run = self.truth(world(routing="all-pairs", scorer="oracle", repeats=2))
        whole = run.job.mailbox.grid.answer

        def other(message):
            told, kind = message.content["config"], message.metadata.message_type
            run.reached[0, 3] = 0.2 if kind == "evaluate.tasks" and told["arm"].endswith("-1") else 0.8
            return whole(message)

        run.job.mailbox.grid.answer = other
        run.go()
        assert orders(run)[0] == [1, 3, 2]  # 0.6, (0.8 + 0.2) / 2, 0.4
        learned = [m.content["config"] for m in run.sent if m.metadata.message_type == "train.task"]
        repeats = {told["arm"]: told["repeat"] for told in learned}
        assert {arm for arm, repeat in repeats.items() if repeat} == {"control-1", *(f"pair-{i:03d}-1" for i in range(6))}

    @pytest.mark.parametrize("stop", [20, 40, 60, 80])
    def test_a_run_that_is_asked_again_does_nothing_twice(self, stop):
        whole = self.truth(world(routing="all-pairs", scorer="oracle", repeats=2)).go()
        run = self.truth(world(routing="all-pairs", scorer="oracle", repeats=2))
        answer = run.job.mailbox.grid.answer

        def dying(message):
            if len(run.sent) == stop:
                run.job.mailbox.grid.answer = answer
                raise KeyboardInterrupt
            return answer(message)

        run.job.mailbox.grid.answer = dying
        with pytest.raises(KeyboardInterrupt):
            run.go()
        done = [arm for arm, position in run.progress.saved.items() if position.finished]
        before = len(run.sent)
        run.go()
        assert orders(run) == orders(whole)
        assert not {m.content["config"]["arm"] for m in run.sent[before:]} & set(done) - {"donor"}


def test_twins_are_left_out_where_they_are_to_be():
    clients = [*EVERYONE[:4], client(4, "text", classes=2), EVERYONE[5]]
    for exclude, expected in ((False, {1, 2, 3, 4, 5}), (True, {1, 2, 3, 4})):
        run = World(clients, **{"selection.across": True, "selection.exclude-twins": exclude}).go()
        assert set(orders(run)[0]) == expected
        assert orders(run)[0][:3] == [1, 2, 3]


def test_calibrated_scores_are_ordered_over_both_modalities():
    for candidate, expected in (("swap", [1, 2, 3, 4, 5]), ("calibrate", [4, 1, 2, 3, 5])):
        run = world(across=True, candidate=candidate)
        run.scores = {(0, 4): 0.9, (0, 5): 0.1}
        run.go()
        assert orders(run)[0] == expected


def test_a_tie_is_told():
    run = world()
    run.scores = {(0, 1): 0.9, (0, 2): 0.88, (1, 0): 0.9, (1, 2): 0.5}
    whole = run.job.mailbox.grid.answer

    def resampled(message):
        reply = whole(message)
        if message.metadata.message_type == "query.score":
            (donor,) = (Manifest.from_json(line).partition_id for line in message.content[DONORS]["manifests"])
            noise = np.random.default_rng(donor).normal(0.0, 0.05, 50)
            reply.content["metrics"]["resampled"] = [float(value) for value in noise]
        return reply

    run.job.mailbox.grid.answer = resampled
    run.go()
    assert [run.of("routing", client=target)[0]["tie"] for target in (0, 1)] == [True, False]


@pytest.mark.parametrize(
    ("top", "twins", "order", "expected"),
    [
        (3, 1, [3, 1, 2, 5, 4], [3, 1, 5, 2, 4]),
        (3, 2, [3, 1, 2, 5, 4], [3, 5, 4, 1, 2]),
        (2, 2, [3, 1, 2, 5, 4], [5, 4, 3, 1, 2]),
        (3, 0, [3, 1, 2, 5, 4], [3, 1, 2, 5, 4]),
        (3, 1, [3, 1, 2], [3, 1, 2]),  # nobody of the other modality
        (3, 1, [5, 4], [5, 4]),
        (2, 1, [], []),
    ],
)
def test_teachers_by_twins_are_among_the_first(top, twins, order, expected):
    flat = {"selection.combine": "pack", "selection.top": top, "selection.across": True, "packing.twins": twins}
    job = World(**flat).job
    assert with_twins(job, job.mailbox.clients[0], order) == expected
