import math

import numpy as np
import pytest

from config import parse
from strategies import joiner_pick
from strategies.job import Job
from strategies.joiner_pick import Offer, best, offers_of, pick
from strategies.protocol import COMPARE, CONFIG, DONORS, SCORERS, TRAIN, Manifest, from_arrays
from tests.fakes import client, error, good, mailbox
from tests.strategies.test_clustered_fedavg import Memory, initial

BASE = {
    "strategy.name": "late-joiner",
    "strategy.joiner-starts": "cluster,donor",
    "strategy.share": "backbone+adapter+head",
    "run.min-replies": 1,
}
JOINERS = [client(0), client(1), client(2, "text")]
# Away from initial weights of ones: a moves along the first axis, b along the second.
MOVED = {"a": [5.0, 1.0], "b": [1.0, 9.0], "c": [5.0, 1.0]}


def offers(**members):
    tensors = {
        f"{name}/{tensor}": np.resize(np.array(MOVED[name], np.float32), value.shape)
        for name, own in members.items()
        for tensor, value in initial(own[0], "backbone+adapter+head").items()
    }
    return offers_of(members, tensors)


TWO = offers(b=[client(4), client(5, classes=4)], a=[client(6, classes=4), client(7, classes=4)])


class Run:
    """Joiners that move the adapter along ``moves`` and score each offer by ``scores``; ``gone`` never answer."""

    def __init__(self, moves=None, scores=None, gone=(), **flat):
        self.events, self.sent = [], []
        self.moves, self.scores, self.gone = moves or {}, scores or {}, gone
        config = parse(BASE | {f"strategy.{name.replace('_', '-')}": value for name, value in flat.items()})
        box = mailbox(self.answer, lambda event, **fields: self.events.append({"event": event, **fields}), min_replies=1)
        box.clients = {one.partition_id: one for one in JOINERS}
        self.job = Job(config, "run", "token", box, initial, Memory())

    def answer(self, message):
        told = message.content[CONFIG]
        self.sent.append(message)
        one = JOINERS[told["partition_id"]]
        if (message.metadata.message_type, one.partition_id) in self.gone:
            return error(message, "OSError: gone")
        if message.metadata.message_type == COMPARE:
            return good(message, **{name: self.scores[name] for name in message.content[SCORERS]["names"]})
        came = initial(one, told["share"]) if told["share"] else {}
        moved = np.array(self.moves.get(one.partition_id, (1, 0)), np.float32)
        return good(message, {k: v + np.resize(moved, v.shape) for k, v in came.items()}, loss=1.0)

    def pick(self, models=TWO, joiners=JOINERS[:2]):
        picked = pick(self.job, "fold", "cluster", joiners, models)
        return {one: offer.name for one, offer in picked.items()}

    @property
    def picks(self):
        return [event for event in self.events if event["event"] == "pick"]

    def messages(self, kind):
        return [message for message in self.sent if message.metadata.message_type == kind]


def test_a_joiner_picks_what_has_moved_its_way():
    run = Run(moves={0: (1, 0), 1: (1, 3)}, cluster_on="adapter")
    assert run.pick() == {0: "a", 1: "b"}
    first, second = (event["scores"]["updates"] for event in run.picks)
    assert first == {"a": pytest.approx(1.0), "b": pytest.approx(0.0)}
    assert second == {"a": pytest.approx(1 / math.sqrt(10)), "b": pytest.approx(3 / math.sqrt(10))}
    assert not run.messages(COMPARE)


def test_scorers_get_every_model_once_and_the_joiners_own_fraction():
    run = Run(scores={"modeldiff": [0.25, 0.5], "cka": [0.5, 0.25]}, joiner_pick="modeldiff", joiner_also="cka")
    assert run.pick(joiners=JOINERS[:1]) == {0: "b"}
    (message,), (alone,) = run.messages(COMPARE), run.messages(TRAIN)
    assert message.content[CONFIG]["train_fraction"] == alone.content[CONFIG]["train_fraction"] == 0.1
    assert message.content[CONFIG]["arm"] == alone.content[CONFIG]["arm"] == "own-cluster-fold"
    assert alone.content[CONFIG]["share"] == ""
    manifests = [Manifest.from_json(line) for line in message.content[DONORS]["manifests"]]
    assert [(one.partition_id, len(one.classes), one.num_train) for one in manifests] == [(6, 4, 20), (4, 0, 20)]
    for manifest, offer in zip(manifests, TWO, strict=True):
        sent = from_arrays(message.content[f"{DONORS}-{manifest.sha256}"])
        assert {name: value.tolist() for name, value in sent.items()} == {k: v.tolist() for k, v in offer.arrays.items()}
    assert run.picks[0]["scores"] == {"modeldiff": {"a": 0.25, "b": 0.5}, "cka": {"a": 0.5, "b": 0.25}}


def test_what_every_way_would_have_picked_is_recorded():
    run = Run(scores={"modeldiff": [0.5, 0.25]}, joiner_pick="classes", joiner_also="modeldiff,random")
    assert run.pick(joiners=JOINERS[:1]) == {0: "b"}  # half of b has the three classes of the joiner, none of a
    (event,) = run.picks
    assert (event["by"], event["picked"], event["siblings"], event["chance"]) == ("classes", "b", {"a": 0.0, "b": 0.5}, 0.5)
    assert event["right"]["classes"] is True
    assert event["right"]["modeldiff"] is False
    assert event["members"] == {"a": [6, 7], "b": [4, 5]}


def test_nobody_trains_for_a_pick_that_needs_no_model():
    run = Run(joiner_pick="random", joiner_also="classes")
    assert set(run.pick()) == {0, 1}
    assert not run.sent
    drawn = [Run(joiner_pick="random").pick() for _ in range(2)]
    assert drawn[0] == drawn[1]


def test_without_siblings_nothing_is_right():
    run = Run(joiner_pick="random")
    run.pick(offers(a=[client(6, classes=4)], b=[client(7, classes=5)]))
    assert [(event["right"], event["chance"]) for event in run.picks] == [({}, None), ({}, None)]


def test_a_joiner_picks_inside_its_modality_or_not_at_all():
    run = Run()
    assert run.pick(joiners=JOINERS) == {0: "a", 1: "a"}
    assert (run.picks[2]["picked"], run.picks[2]["members"]) == (None, {})


@pytest.mark.parametrize(("kind", "by"), [(TRAIN, "updates"), (COMPARE, "modeldiff")])
def test_a_joiner_that_does_not_answer_picks_nothing(kind, by):
    run = Run(gone={(kind, 0)}, scores={"modeldiff": [0.5, 0.25]}, joiner_pick=by)
    assert run.pick() == {1: "a"}
    assert run.picks[0]["picked"] is None
    assert [event["client"] for event in run.events if event["event"] == "refused"] == [0]


def test_a_score_that_is_no_number_is_never_picked():
    run = Run(scores={"modeldiff": [math.nan, -1.0]}, joiner_pick="modeldiff")
    assert run.pick(joiners=JOINERS[:1]) == {0: "b"}
    assert run.picks[0]["scores"]["modeldiff"] == {"a": None, "b": -1.0}
    assert best({"a": -math.inf}) is None


def test_what_was_picked_is_remembered_whatever_the_order_of_the_models():
    run = Run(moves={1: (1, 3)})
    first = run.pick()
    sent = len(run.sent)
    again = offers(a=[client(6), client(7, classes=4)], b=[client(4), client(5)])
    assert run.pick(again) == first == {0: "a", 1: "b"}
    assert len(run.sent) == sent


def test_a_head_is_for_the_same_classes_alone():
    arrays = {"backbone.w": np.ones(1), "adapter.w": np.ones(1), "head.w": np.ones(1)}
    whole, mixed = (Offer("x", (client(3), client(4, classes=n)), arrays) for n in (3, 4))
    assert sorted(whole.start(client(0), head=True)) == ["adapter.w", "backbone.w", "head.w"]
    assert sorted(whole.start(client(0, classes=4), head=True)) == ["adapter.w", "backbone.w"]
    assert sorted(mixed.start(client(0), head=True)) == ["adapter.w", "backbone.w"]
    assert sorted(whole.start(client(0), head=False)) == ["adapter.w", "backbone.w"]


def test_cosine_of_nothing_is_zero():
    assert joiner_pick.cosine(np.zeros(3), np.ones(3)) == 0.0
