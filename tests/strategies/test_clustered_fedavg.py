import dataclasses

import numpy as np
import pytest
from flwr.app import ArrayRecord

from config import ConfigError, parse
from server.summary import cluster_line, clusters, remarks, results
from strategies import clustered_fedavg
from strategies.job import Job, Position
from strategies.protocol import ARRAYS, CONFIG, RunError, from_arrays
from tests.fakes import client, error, good, mailbox


class Memory:
    """Progress that can be asked again, as on disk."""

    def __init__(self):
        self.saved = {}

    def begin(self, arm):
        return self.saved.get(arm, Position())

    def save(self, arm, server_round, arrays):
        self.saved[arm] = Position(server_round, dict(arrays))

    def finish(self, arm):
        self.saved[arm] = dataclasses.replace(self.begin(arm), finished=True)


# Images: 0 and 2 move along the first axis, 1 and 3 along the second; texts: 4 and 5.
MOVES = {0: (4, 0), 1: (0, 4), 2: (8, 0), 3: (0.5, 6), 4: (1, 1), 5: (3, 3)}
SAME = [*(client(i) for i in range(4)), client(4, "text"), client(5, "text")]
FULL = "backbone+adapter+head"


def initial(one, share):
    tensors = {"backbone.w": 2, "adapter.w": 2, "head.w": len(one.classes)}
    return {name: np.ones(size, np.float32) for name, size in tensors.items() if name.split(".")[0] in share}


class Run:
    """A job whose clients add what they are told to, and what was recorded and sent."""

    def __init__(self, clients=SAME, silent=(), **flat):
        self.events, self.sent, self.progress = [], [], Memory()
        self.clients, self.silent = {one.partition_id: one for one in clients}, silent
        base = {"strategy.name": "clustered-fedavg", "strategy.share": FULL, "run.rounds": 3, "run.evaluate-every": 0}
        config = parse(base | flat)
        box = mailbox(self.answer, self.record, min_replies=config.run.min_replies)
        box.clients, box.nodes = self.clients, {one: 11 + one for one in self.clients}
        self.job = Job(config, "run", "token", box, initial, self.progress)

    def record(self, event, **fields):
        self.events.append({"event": event, **fields})

    def answer(self, message):
        told = message.content[CONFIG]
        one = self.clients[told["partition_id"]]
        self.sent.append(message)
        metrics = {
            "num-examples": one.partition_id + 1,
            "loss": 1.0,
            "partition-id": one.partition_id,
            "balanced-accuracy": 0.5,
        }
        if message.metadata.message_type == "evaluate":
            return good(message, **metrics)
        if one.partition_id in self.silent and not message.content.array_records.get(ARRAYS):
            return error(message, "OSError: gone")
        if not told["share"]:
            return good(message, **metrics)
        came = initial(one, told["share"]) | from_arrays(message.content.array_records.get(ARRAYS, ArrayRecord()))
        moved = {name: np.resize(np.array(MOVES[one.partition_id], np.float32), value.shape) for name, value in came.items()}
        return good(message, {name: came[name] + moved[name] for name in came}, **metrics)

    def go(self):
        clustered_fedavg.run(self.job)
        return self

    @property
    def clusters(self):
        (found,) = [event for event in self.events if event["event"] == "clusters"]
        return found

    def train(self, partition):
        told = [(m.content[CONFIG], m) for m in self.sent if m.metadata.message_type == "train"]
        return [
            (one["round"], one["rounds"], one["share"], sorted(m.content.array_records.get(ARRAYS, {})))
            for one, m in told
            if one["partition_id"] == partition
        ]


def test_clients_train_apart_are_grouped_inside_their_modality_and_averaged_there():
    run = Run().go()
    assert run.clusters["members"] == {"image-0": [0, 2], "image-1": [1, 3], "text-4": [4, 5]}
    assert run.train(0) == [
        (1, 2, FULL, []),
        (3, 1, FULL, ["adapter.w", "backbone.w", "head.w"]),
    ]
    arrays = run.progress.saved["federated"].arrays
    # 1 at first; the mean of 4 and 8 after the warm-up, and the same once more
    assert arrays["image-0/backbone.w"].tolist() == [13.0, 1.0]
    assert arrays["image-1/backbone.w"].tolist() == [1.5, 11.0]
    assert arrays["text-4/head.w"].tolist() == [5.0, 5.0, 5.0]


def test_first_means_are_those_of_the_warm_up():
    run = Run(**{"run.rounds": 2}).go()
    assert run.progress.saved["federated"].arrays["image-0/backbone.w"].tolist() == [7.0, 1.0]
    assert run.train(0) == [(1, 2, FULL, [])]


def test_clusters_are_those_that_were_saved():
    """A resumed run does not cluster again."""
    first = Run().go()
    position = Position(2, {k: v for k, v in first.progress.saved["federated"].arrays.items() if "image-1" not in k})
    again = Run(SAME[:3:2] + SAME[4:])
    again.progress.saved["federated"] = position
    again.go()
    assert "clusters" not in {event["event"] for event in again.events}
    assert {m.content[CONFIG]["round"] for m in again.sent if m.metadata.message_type == "train"} == {3}
    members = {name: again.progress.saved["federated"].arrays[name].tolist() for name in ("members/image-0", "members/text-4")}
    assert members == {"members/image-0": [0, 2], "members/text-4": [4, 5]}


def test_a_cluster_with_different_classes_shares_all_but_the_head_and_says_so():
    mixed = [client(0), client(1), client(2, classes=5), client(3), client(4, "text"), client(5, "text")]
    run = Run(mixed).go()
    assert run.clusters["members"]["image-0"] == [0, 2]
    assert run.clusters["without_head"] == ["image-0"]
    assert run.train(2)[1] == (3, 1, "backbone+adapter", ["adapter.w", "backbone.w"])
    assert run.train(1)[1] == (3, 1, FULL, ["adapter.w", "backbone.w", "head.w"])
    arrays = run.progress.saved["federated"].arrays
    assert "image-0/head.w" not in arrays
    assert "image-1/head.w" in arrays
    # classes 0, 1 and 3 alike, 2 apart; found 0+2 and 1+3: index 1, expected 2 * 3 / 6, largest 2.5
    image = run.clusters["modalities"][0]
    assert image["adjusted_rand_index"] == pytest.approx((1 - 1) / (2.5 - 1))


def test_other_names_or_order_of_classes_are_enough_to_keep_heads():
    other = dataclasses.replace(client(2), classes=("class-1", "class-0", "class-2"))
    run = Run([client(0), client(1), other, client(3)]).go()
    assert run.clusters["without_head"] == ["image-0"]


def test_clusters_by_classes_modality_and_at_random():
    six = [*(client(i, classes=3 + i // 2) for i in range(4)), *(client(4 + i, "text", classes=3 + i) for i in range(2))]
    found = {by: Run(six, **{"strategy.cluster-by": by}).go().clusters["members"] for by in ("classes", "modality", "random")}
    assert found["classes"] == {"image-0": [0, 1], "image-2": [2, 3], "text-4": [4], "text-5": [5]}
    assert found["modality"] == {"image-0": [0, 1, 2, 3], "text-4": [4, 5]}
    assert found["random"]["image-0"] in ([0, 2], [0, 3])
    assert {len(members) for name, members in found["random"].items() if name.startswith("text")} == {1}


def test_the_number_of_clusters_may_be_given():
    run = Run(SAME[:4], **{"strategy.cluster-count": 3}).go()
    assert len(run.clusters["members"]) == 3
    with pytest.raises(RunError, match=r"strategy.cluster-count = 3, but only 2 clients have modality 'text'"):
        Run(**{"strategy.cluster-count": 3}).go()


def test_clusters_on_the_adapter_do_not_look_at_the_backbone():
    run = Run(SAME[:4], **{"strategy.cluster-on": "adapter"})
    inner = run.job.mailbox.grid.answer

    def still(message):
        reply = inner(message)
        if ARRAYS in reply.content and "adapter.w" in reply.content[ARRAYS]:
            flipped = from_arrays(reply.content[ARRAYS])
            if message.content[CONFIG]["partition_id"] in (2, 3):
                flipped["adapter.w"] = flipped["adapter.w"][::-1].copy()
            return good(message, flipped, **dict(reply.content["metrics"]))
        return reply

    run.job.mailbox.grid.answer = still
    assert list(run.go().clusters["members"].values()) == [[0, 3], [1, 2]]


def test_a_client_without_an_update_is_alone_and_takes_part_later():
    run = Run(silent=(2,), **{"run.min-replies": 1}).go()
    assert run.clusters["members"]["image-2"] == [2]
    assert run.clusters["without_update"] == [2]
    assert run.progress.saved["federated"].arrays["image-2/backbone.w"].tolist() == [9.0, 1.0]


def test_looks_at_validation_during_the_warm_up_change_nothing():
    plain, looked = Run().go(), Run(**{"run.evaluate-every": 1}).go()
    assert [(r, n, share) for r, n, share, _ in looked.train(0)] == [(1, 1, ""), (2, 1, FULL), (3, 1, FULL)]
    looks = [(e["round"], e["split"]) for e in looked.events if e["event"] == "evaluate" and e["client"] == 0]
    assert looks == [(1, "val"), (2, "val"), (3, "val"), (3, "test")]
    for name, value in plain.progress.saved["federated"].arrays.items():
        assert np.array_equal(value, looked.progress.saved["federated"].arrays[name])


def test_float16_does_not_change_who_is_with_whom():
    run = Run(**{"strategy.wire-dtype": "float16"}).go()
    assert run.clusters["members"] == {"image-0": [0, 2], "image-1": [1, 3], "text-4": [4, 5]}


def test_results_and_last_lines_tell_the_clusters():
    run = Run().go()
    (found,) = clusters(run.events)
    described = [{"event": "client", "client": i, "modality": "image", "classes": ["a", "b"]} for i in MOVES]
    outcome = results([*described, *run.events], 1.0)
    assert outcome["clusters"] == [found]
    assert remarks(outcome)[-1] == cluster_line(found)
    assert "federated: clusters by updates of the backbone" in cluster_line(found)
    assert "0+2, 1+3, 4+5" in cluster_line(found)
    assert "ARI 1.00" in cluster_line(found)


@pytest.mark.parametrize(
    ("flat", "words"),
    [
        ({"strategy.cluster-warmup": 21}, ["strategy.cluster-warmup = 21", "run.rounds = 20"]),
        ({"strategy.cluster-warmup": 0}, ["strategy.cluster-warmup", "greater than or equal to 1"]),
        ({"strategy.scope": "classes"}, ["strategy.scope = 'classes'", "strategy.cluster-by"]),
        ({"strategy.share": "attention"}, ["'attention'", "'backbone+adapter'"]),
        ({"strategy.cluster-by": "head"}, ["strategy.cluster-by", "updates, classes, random, modality"]),
        ({"strategy.cluster-by": "random", "strategy.cluster-count": 3}, ["strategy.cluster-count = 3", "'random'"]),
        ({"strategy.cluster-on": "adapter"}, ["strategy.cluster-on = 'adapter'", "strategy.share = 'backbone'"]),
    ],
)
def test_config_faults_say_what_to_do(flat, words):
    with pytest.raises(ConfigError) as raised:
        parse({"strategy.name": "clustered-fedavg", **flat})
    for word in words:
        assert word in str(raised.value)
