"""Clustered FedAvg in one process: what crosses the wire, the same control as ever, and resuming."""

import json

import pytest

from server.run_folder import RunFolder
from tests.simulations.helpers import arrays_of, facts, run, size, watch

FULL = "backbone+adapter+head"
SETTINGS = {
    "strategy.name": "clustered-fedavg",
    "strategy.share": FULL,
    "strategy.cluster-warmup": 1,
    "strategy.cluster-count": 2,
    "run.rounds": 3,
    "data.train-fraction": 0.05,
    "data.clients": "0,1,3,4",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        crossed = watch(patch)
        folder = run(tmp_path_factory.mktemp("runs"), **SETTINGS)
    return folder, crossed


def test_nothing_comes_down_before_the_clusters_and_only_what_is_shared_afterwards(finished):
    folder, crossed = finished
    (found,) = [e for e in facts(folder) if e["event"] == "clusters"]
    assert sorted(one for members in found["members"].values() for one in members) == [0, 1, 3, 4]
    assert len(found["members"]) == 2
    alone = {one for name, members in found["members"].items() if name not in found["without_head"] for one in members}
    sent = [e for e in facts(folder) if e["event"] == "message" and e["type"] == "train" and e["arm"] == "federated"]
    assert len(sent) == 12
    for message in sent:
        share = FULL if message["client"] in alone else "backbone+adapter"
        expected = (0, size(FULL)) if message["round"] == 1 else (size(share), size(share))
        assert (message["bytes_down"], message["bytes_up"]) == expected
    assert {name.partition(".")[0] for pair in crossed for m in pair for name in arrays_of(m)} == {
        "backbone",
        "adapter",
        "head",
    }


def test_the_control_is_the_one_of_other_strategies(finished, tmp_path):
    other = {key: value for key, value in SETTINGS.items() if "cluster" not in key} | {"strategy.name": "local"}
    alone = [e for e in facts(run(tmp_path, **other)) if e["event"] == "evaluate"]
    control = [e for e in facts(finished[0]) if e["event"] == "evaluate" and e["arm"] == "control"]
    assert [e | {"arm": "local"} for e in control] == alone


def test_true_clusters_after_one_round_are_the_scope_classes_bit_for_bit(tmp_path):
    from safetensors.numpy import load

    small = {**SETTINGS, "strategy.control": False, "strategy.cluster-count": 0}
    ours = run(tmp_path, "ours", **{**small, "strategy.cluster-by": "classes"})
    theirs = run(tmp_path, "theirs", **{**small, "strategy.name": "shared-fedavg", "strategy.scope": "classes"})
    one, two = (load((f / "checkpoints" / "federated" / "round-0003.safetensors").read_bytes()) for f in (ours, theirs))
    assert one.keys() - two.keys() == {"members/image-0", "members/image-3"}
    assert two
    for name, value in two.items():
        assert value.tobytes() == one[name].tobytes()


def test_results_tell_the_clusters(finished):
    folder, _ = finished
    (found,) = json.loads((folder / "results.json").read_text())["clusters"]
    assert found["arm"] == "federated"
    assert found["modalities"][0]["modality"] == "image"
    assert -1 <= found["modalities"][0]["adjusted_rand_index"] <= 1
    assert 0 < found["seconds"] < 30


class Killed(BaseException):
    """Stands for kill -9: nothing may catch it and go on."""


@pytest.mark.parametrize("fatal", ["train", "clusters", "evaluate", "round"])
def test_a_killed_run_resumes_to_the_same_clusters_and_bits(finished, tmp_path, monkeypatch, fatal):
    """Killed at the first or, for evaluate and round, at the second event of a kind in the federated arm."""
    record, left = RunFolder.record, 2 if fatal in ("evaluate", "round") else 1

    def die(self, event, **fields):
        nonlocal left
        left -= event == fatal and fields["arm"] == "federated"
        if left == 0:
            raise Killed
        record(self, event, **fields)

    monkeypatch.setattr(RunFolder, "record", die)
    with pytest.raises(Killed):
        run(tmp_path, **SETTINGS)
    monkeypatch.setattr(RunFolder, "record", record)
    resumed = run(tmp_path, **SETTINGS, **{"run.resume": True})
    whole = finished[0]
    assert facts(resumed) == facts(whole)
    for path in whole.rglob("*.safetensors"):
        assert path.read_bytes() == (resumed / path.relative_to(whole)).read_bytes()
