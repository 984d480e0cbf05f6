"""Packing through the whole app: what travels, controls of equal steps, donors that lie, and runs that are killed."""

import json

import pytest

from client import donors
from config import parse
from data_partition.client_data import load_unlabelled
from data_partition.subgroups import find_subgroup
from models.storage import load_record
from server.run_folder import RunFolder
from strategies.protocol import CONFIG, FACTS, METRICS
from tests.simulations.helpers import arrays_of, facts, run, watch
from tests.simulations.test_backpack import SMALL, client_of, donors_in, of_type, results_of
from tests.simulations.test_continual import KilledError, die_at, of

TINY = {
    **SMALL,
    "strategy.share": "backbone+adapter+head",
    "data.grouping": "tri",
    "data.clients": "6,7,8",
    "data.train-fraction": 0.1,
    "data.unlabelled-fraction": 0.4,
    "model.dim": 32,
    "model.latents": 4,
    "model.heads": 2,
    "model.cross-heads": 2,
    "model.layers": 1,
    "selection.own-epochs": 0,
    "selection.donor-epochs": 1,
    "selection.combine": "pack",
    "selection.top": 2,
    "packing.epochs": 2,
    "packing.teacher-epochs": 1,
    "packing.weights": "similarity",
    "packing.losses-compared": "kd, sp:100",
}
ARMS = {"backpack": "pack", "pack-start": "pack-start", "pack-self": "pack-self", "pack-losses-1": "pack-losses-1"}
BY_ALL = ("backpack", "pack-losses-1")


def walk(root, **flat):
    return run(root, "run", **{**TINY, **flat})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        crossed = watch(patch)
        folder = walk(tmp_path_factory.mktemp("packed"))
    return folder, crossed


def test_each_arm_has_one_message_a_target_and_no_array_goes_twice(finished):
    folder, crossed = finished
    packed = of_type(crossed, "train.pack")
    told = [(message.content[CONFIG]["arm"], client_of(message)) for message, _ in packed]
    assert told == [(arm, client) for arm in ARMS for client in (6, 7, 8)]
    chosen = {e["client"]: e["chosen"] for e in of(facts(folder), "routing")}
    for message, reply in packed:
        arm = message.content[CONFIG]["arm"]
        assert message.content[CONFIG]["method"] == ARMS[arm]
        assert donors_in(message) == chosen[client_of(message)][: 2 if arm in BY_ALL else 1]
        assert not arrays_of(message)  # they came when they were scored
        assert not arrays_of(reply)
        assert set(reply.content) == {METRICS, FACTS}


def test_inputs_never_leave(finished):
    """No message holds the bytes of an input; the largest text that leaves is that of facts."""
    _, crossed = finished
    config = parse(TINY)
    inputs = [row.numpy().tobytes() for c in (6, 7, 8) for row in load_unlabelled(config.data, find_subgroup(config.data, c))]
    assert len(inputs) > 20
    for _, reply in crossed:
        told = b"".join(array.numpy().tobytes() for array in arrays_of(reply).values())
        assert not any(one in told for one in inputs)
    for message, reply in of_type(crossed, "train.pack"):
        numbers = [value for record in reply.content.metric_records.values() for value in record.values()]
        assert not any(isinstance(value, list) for value in numbers)
        assert len(json.dumps(list(reply.content[FACTS]["lines"]))) < 4000
        assert "unlabelled" not in json.dumps(dict(message.content[CONFIG]))


def test_the_arms_begin_alike_and_learn_from_other_teachers(finished):
    folder, _ = finished
    events = facts(folder)
    epochs = {(e["arm"], e["epoch"]): e for e in of(events, "pack-epoch", client=6)}
    assert {e["steps"] for e in epochs.values()} == {epochs["backpack", 1]["steps"]}
    losses = {arm: epochs[arm, 1]["losses"] for arm in ARMS}
    assert "kd" not in losses["pack-start"]
    assert losses["pack-self"]["kd"] != losses["backpack"]["kd"]
    assert set(losses["backpack"]) == {"cross-entropy", "kd"}
    assert set(losses["pack-losses-1"]) == {"cross-entropy", "kd", "sp"}
    assert epochs["pack-losses-1", 1]["effective_teachers"] == epochs["backpack", 1]["effective_teachers"]
    assert set(epochs["pack-self", 2]["agreement"]) == {"self"}
    assert set(epochs["backpack", 2]["agreement"]) == {"7", "8"}
    assert 1 < epochs["backpack", 2]["effective_teachers"] <= 2
    taught = {(e["arm"], e["teacher"]) for e in of(events, "pack-teacher", client=6)}
    assert taught == {("pack-self", "self"), *((arm, teacher) for arm in BY_ALL for teacher in "78")}


def test_the_results_tell_of_all_arms(finished):
    told = results_of(finished[0])["packing"]
    assert [one["arm"] for one in told["arms"]] == ["pack", "start", "self", "kd, sp:100"]
    rows = {row["client"]: row["accuracy"] for row in results_of(finished[0])["clients"]}
    assert {one["client"]: one["accuracy"] for one in told["arms"][0]["clients"]} == rows
    assert [one["arm"] for one in told["differences"]] == ["start", "self", "kd, sp:100"]
    assert told["teachers"] == 2


def test_killed_at_the_border_of_an_arm_it_ends_the_same(finished, tmp_path, monkeypatch):
    events = facts(finished[0])
    revive = die_at(monkeypatch, RunFolder, "record", events.index(of(events, "arm", arm="pack-self")[0]) + 1)
    with pytest.raises(KilledError):
        walk(tmp_path)
    revive()
    with pytest.MonkeyPatch.context() as patch:
        crossed = watch(patch)
        resumed = walk(tmp_path, **{"run.resume": True})
    assert {m.content[CONFIG]["arm"] for m, _ in of_type(crossed, "train.pack")} == {"pack-self", "pack-losses-1"}
    assert results_of(resumed)["packing"] == results_of(finished[0])["packing"]


def test_a_donor_that_diverges_as_a_teacher_makes_way(tmp_path, monkeypatch):
    whole = donors.publish

    def huge(config, told, folder):
        manifest, arrays = whole(config, told, folder)
        if told.partition_id == 7:
            arrays = {name: value * 1e30 if value.dtype.kind == "f" else value for name, value in arrays.items()}
            manifest = donors.Manifest(**{**manifest.__dict__, "sha256": donors.digest(arrays)})
        return manifest, arrays

    monkeypatch.setattr(donors, "publish", huge)
    folder = walk(tmp_path, **{"selection.scorer": "random", "packing.weights": "uniform", "packing.then": "method"})
    events = facts(folder)
    assert {e["client"] for e in of(events, "refused")} == {7}
    assert "diverges" in of(events, "refused")[0]["reason"]
    assert {e["client"]: e["donors"] for e in of(events, "routed", arm="backpack")}[6] == [8]
    assert {e["teacher"] for e in of(events, "pack-teacher", client=6, arm="backpack")} == {"8"}
    assert of(events, "continual", client=6, arm="backpack", state="train")  # cpg went on from the student
    assert len(results_of(folder)["packing"]["arms"]) == 4


@pytest.mark.parametrize(("size", "begins"), [(0.5, "best"), (2.0, "fresh")])
def test_a_student_of_another_size(size, begins, tmp_path):
    """Its state, its evaluation and the results know its size; donors and the control stay as they are."""
    settings = {"packing.student": begins, "packing.losses": "kd,cosine", "packing.losses-compared": ""}
    folder = walk(tmp_path, **settings, **{"packing.student-size": size, "data.clients": "6,7", "packing.epochs": 1})
    events = facts(folder)
    assert {e["arm"] for e in of(events, "evaluate", split="test", client=6)} == {
        "control",
        "backpack",
        "pack-start",
        "pack-self",
    }
    widths = {arm: state_of(folder, 6, arm)["model.backbone.latents"].shape[1] for arm in ("donor", "control", *ARMS)[:-1]}
    assert widths == {"donor": 32, "control": 32, **dict.fromkeys(("backpack", "pack-start", "pack-self"), int(32 * size))}
    (one,) = of(events, "pack-size", client=6, arm="backpack")
    stored = [array for name, array in state_of(folder, 6, "backpack").items() if name.startswith("model.")]
    assert one["student_bytes"] == sum(array.nbytes for array in stored)
    assert (one["student_parameters"] > one["donor_parameters"]) == (size > 1)
    sizes = results_of(folder)["packing"]["sizes"]
    assert sizes["student_bytes"] == sum(e["student_bytes"] for e in of(events, "pack-size", arm="backpack")) / 2
    warned = {e["warning"] for e in of(events, "pack-warning", arm="backpack", client=6)}
    assert any("not related" in told for told in warned) == (begins == "fresh")  # a slice of a donor is related to it


def state_of(folder, client, arm):
    (newest,) = (folder / "clients" / f"{client:03d}" / arm).glob("round-*.json")
    return load_record(newest.with_suffix(""))[0]


def test_settings_that_do_not_fit_are_refused():
    for changes, told in (
        ({"selection.combine": "first"}, "nobody else reads"),
        ({"packing.how": "average"}, "use 'distil'"),
        ({"packing.data": "parent"}, "names none"),
        ({"packing.distil-on": "unlabelled", "data.unlabelled-fraction": 0.0}, "no input to ask"),
        ({"selection.scorer": "logme"}, "goes by the scorer modeldiff"),
        ({"packing.losses-compared": "kd,sp; kd,kl"}, "losses-compared: 'kl' is no loss"),
        ({"packing.student-size": 0.25}, "model.heads, model.cross-heads is no whole number"),
        (
            {"packing.student-size": 0.5, "selection.combine": "first", "data.unlabelled-fraction": 0},
            "student-size = 0.5 is for",
        ),
        ({"packing.losses-compared": "sp; kd:1.0"}, "has 'kd:1.0' twice"),
    ):
        with pytest.raises(ValueError, match=told):
            parse({**TINY, **changes})
