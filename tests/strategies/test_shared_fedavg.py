import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord

from config import parse
from strategies.job import Job, Position
from strategies.late_joiner import folds
from strategies.protocol import (
    ARRAYS,
    CONFIG,
    SOURCE_HASH,
    Instruction,
    RunError,
    check_source,
    from_arrays,
    source_hash,
    to_arrays,
)
from strategies.shared_fedavg import SharedFedAvg, clusters, sample
from tests.fakes import client, good, mailbox


class NoProgress:
    """Remembers nothing."""

    def begin(self, arm):
        return Position()

    def save(self, arm, server_round, arrays):
        pass

    def finish(self, arm):
        pass


CLIENTS = [client(0), client(1), client(2, "text")]
SENT = []


def trainer(message):
    """Add partition id + 1 to what came, with partition id + 1 examples."""
    SENT.append(message)
    told = message.content[CONFIG]
    amount = told["partition_id"] + 1
    metrics = {"num-examples": amount, "loss": 1.0, "partition-id": told["partition_id"], "balanced-accuracy": 0.5}
    if message.metadata.message_type == "evaluate":
        return good(message, **metrics)
    arrays = {name: value + np.float32(amount) for name, value in from_arrays(message.content[ARRAYS]).items()}
    return good(message, arrays, **metrics)


def make_job(**flat):
    SENT.clear()
    config = parse({"run.rounds": 1, "run.evaluate-every": 0, **{k.replace("__", "."): v for k, v in flat.items()}})
    box = mailbox(trainer)
    box.clients = {c.partition_id: c for c in CLIENTS}
    return Job(config, "run", "token", box, lambda c, share: {"backbone.w": np.zeros(2, np.float32)}, NoProgress())


def test_plain_mean_of_all_clients():
    arrays = SharedFedAvg(make_job(), "federated", CLIENTS).run()
    assert arrays["all/backbone.w"].tolist() == [2.0, 2.0]  # (1 + 2 + 3) / 3


def test_mean_weighted_by_examples():
    arrays = SharedFedAvg(make_job(strategy__weighting="examples"), "federated", CLIENTS).run()
    assert arrays["all/backbone.w"][0] == pytest.approx((1 * 1 + 2 * 2 + 3 * 3) / 6)


def test_scope_modality_averages_each_modality_apart():
    arrays = SharedFedAvg(make_job(strategy__scope="modality"), "federated", CLIENTS).run()
    assert {name: value[0] for name, value in arrays.items()} == {"image/backbone.w": 1.5, "text/backbone.w": 3.0}


def test_a_cluster_that_was_not_sampled_keeps_its_arrays():
    strategy = SharedFedAvg(make_job(strategy__scope="modality"), "federated", CLIENTS)
    arrays = to_arrays({"image/backbone.w": np.ones(2, np.float32), "text/backbone.w": np.full(2, 9, np.float32)})
    messages = [m for m in strategy.configure_train(1, arrays, ConfigRecord(), None) if m.content[CONFIG]["partition_id"] < 2]
    averaged, _ = strategy.aggregate_train(1, [trainer(m) for m in messages])
    assert isinstance(averaged, ArrayRecord)
    assert list(averaged) == ["image/backbone.w"]


def test_messages_name_client_arm_and_round_and_carry_no_cluster_prefix():
    SharedFedAvg(make_job(), "federated", CLIENTS).run()
    told = [Instruction.from_record(m.content[CONFIG]) for m in SENT if m.metadata.message_type == "train"]
    assert [(t.partition_id, t.arm, t.round, t.share, t.source_hash) for t in told] == [
        (i, "federated", 1, "backbone", SOURCE_HASH) for i in range(3)
    ]
    assert {name for m in SENT for name in m.content[ARRAYS]} == {"backbone.w"}


def test_float16_halves_what_goes_down():
    SharedFedAvg(make_job(**{"strategy.wire-dtype": "float16"}), "federated", CLIENTS).run()
    assert {array.dtype for m in SENT for array in m.content[ARRAYS].values()} == {"float16"}


def test_sampling_depends_on_seed_and_round_only():
    many = [client(i) for i in range(20)]
    chosen = [c.partition_id for c in sample(many, 0.3, seed=1, server_round=2)]
    assert chosen == [c.partition_id for c in sample(many[::1], 0.3, seed=1, server_round=2)]
    assert chosen == sorted(chosen)
    assert len(chosen) == 6
    others = [[c.partition_id for c in sample(many, 0.3, seed, r)] for seed, r in ((2, 2), (1, 3))]
    assert chosen not in others


def test_at_least_one_client_is_sampled():
    assert len(sample(CLIENTS, 0.01, 0, 1)) == 1


def test_clusters():
    def ids(scope, clients=CLIENTS):
        return {name: [c.partition_id for c in members] for name, members in clusters(clients, scope).items()}

    assert ids("all") == {"all": [0, 1, 2]}
    assert ids("modality") == {"image": [0, 1], "text": [2]}
    assert ids("classes", [*CLIENTS, client(3, classes=4), client(4, classes=4)]) == {
        "image-0": [0, 1],
        "text-2": [2],
        "image-3": [3, 4],
    }


def test_folds_leave_every_client_out_once():
    many = [client(i, domain=i % 3) for i in range(6)]
    by_domain = folds(many, "domain")
    assert {name: [c.partition_id for c in left] for name, left in by_domain.items()} == {
        "domain-0": [0, 3],
        "domain-1": [1, 4],
        "domain-2": [2, 5],
    }
    assert len(folds(many, "client")) == 6


def test_other_source_is_refused_with_both_hashes():
    check_source(SOURCE_HASH)
    with pytest.raises(RunError, match=f"client {SOURCE_HASH}.*server feedbeef"):
        check_source("feedbeef")


@pytest.mark.parametrize("name", ["config/__init__.py", "config/flat.py", "client/continual/cpg.py"])
def test_source_hash_changes_with_the_source(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text("a = 1")
    before = source_hash(tmp_path)
    path.write_text("a = 2")
    source_hash.cache_clear()
    assert source_hash(tmp_path) != before
