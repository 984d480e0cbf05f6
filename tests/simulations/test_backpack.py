"""Back-Pack through the whole app: what travels to whom, what the broker keeps, and donors that die or lie."""

import json

import numpy as np
import pytest

from client import donor_messages, donors, scoring
from config import parse
from models.factory import build_model
from models.groups import ownable, shared_names
from server.run_folder import RunFolder
from strategies.protocol import DONORS, MASK, Manifest, digest, from_arrays
from tests.simulations.helpers import arrays_of, facts, run, watch
from tests.simulations.test_continual import KilledError, die_at, of, results_of, same_end

SMALL = {
    "strategy.name": "backpack",
    "strategy.share": "backbone+adapter",
    "strategy.scope": "modality",
    "data.grouping": "siblings",
    "data.concepts": "shared",
    "data.clients": "0,1,2,6,7",
    "data.train-fraction": 0.1,
    "selection.donor-fraction": 0.3,
    "run.evaluate-every": 0,
    "train.batch-size": 16,
    "continual.goal": "none",
    "continual.growth-step": 0.0,
    "continual.epochs": 2,
    "continual.prune-epochs": 1,
    "continual.prune-every": 1,
    "continual.ratios": "0.5",
    "continual.retrain-epochs": 1,
    "selection.donor-epochs": 2,
    "selection.own-epochs": 3,
    "selection.tune-epochs": 1,
    "selection.probes": 20,
    "selection.pairs": 40,
    "selection.abstain": False,
}
INSIDE = {0: {1, 2}, 1: {0, 2}, 2: {0, 1}, 6: {7}, 7: {6}}


def walk(root, name="run", **flat):
    return run(root, name, **{**SMALL, **flat})


def of_type(crossed, kind: str) -> list[tuple]:
    return [pair for pair in crossed if pair[0].metadata.message_type == kind]


def client_of(message) -> int:
    return message.content["config"]["partition_id"]


def donors_in(message) -> list[int]:
    if DONORS not in message.content:
        return []
    return [Manifest.from_json(line).partition_id for line in message.content[DONORS]["manifests"]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One small run, and every message that crossed in it."""
    with pytest.MonkeyPatch.context() as patch:
        crossed = watch(patch)
        folder = walk(tmp_path_factory.mktemp("backpack"))
    return folder, crossed


def test_every_target_scores_every_donor_of_its_modality_but_itself(finished):
    folder, crossed = finished
    scored = {(client_of(message), *donors_in(message)) for message, _ in of_type(crossed, "query.score")}
    assert scored == {(target, donor) for target, inside in INSIDE.items() for donor in inside}
    for event in of(facts(folder), "routing"):
        ranked = [donor for donor, _ in event["ranking"]]
        scores = {e["donor"]: e["scores"]["modeldiff"] for e in of(facts(folder), "score", client=event["client"])}
        assert set(ranked) == INSIDE[event["client"]] == set(scores)
        assert ranked == sorted(scores, key=lambda donor: -scores[donor])
        assert event["chosen"] == ranked[:1]


def test_a_backbone_crosses_once_to_each_target(finished):
    _, crossed = finished
    assert sorted(client_of(message) for message, _ in of_type(crossed, "query.backbone")) == [0, 1, 2, 6, 7]
    for message, _ in of_type(crossed, "query.score"):
        assert len([name for name in message.content.array_records if name.startswith(f"{DONORS}-")]) == 1
    learned = [pair for pair in of_type(crossed, "train.task") if pair[0].content["config"]["arm"] == "backpack"]
    assert len(learned) == 5
    for message, _ in learned:
        assert len(donors_in(message)) == 1
        assert not arrays_of(message)  # it was kept when it was scored


def test_only_what_is_shared_travels_and_the_server_adds_nothing(finished):
    _, crossed = finished
    sent = {}
    for message, reply in of_type(crossed, "query.backbone"):
        modality = "text" if client_of(message) > 5 else "image"
        sizes = {"vocab_size": 2000, "max_tokens": 24} if modality == "text" else {}
        model = build_model(parse({}).model, modality, 8, seed=0, **sizes)
        names = set(shared_names(model, "backbone+adapter"))
        assert set(arrays_of(reply)) == names | {MASK + name for name in ownable(model)}
        sent[client_of(message)] = from_arrays(reply.content["arrays"])
    for message, reply in crossed:
        assert not any(name.startswith("head.") for name in arrays_of(message) | arrays_of(reply))
        for name, record in message.content.array_records.items():
            (donor,) = donors_in(message)
            assert name == f"{DONORS}-{digest(sent[donor])}"
            assert digest(from_arrays(record)) == digest(sent[donor])


def test_the_broker_keeps_no_weights_between_messages(finished):
    """What goes to targets came from the donor that was asked last; later ones go without, and so does the disk."""
    folder, crossed = finished
    came, sent = set(), 0
    for message, reply in crossed:
        if message.metadata.message_type == "query.backbone":
            came = {f"{DONORS}-{digest(from_arrays(reply.content['arrays']))}"}
        elif message.metadata.message_type != "query.score":
            came = set()
        sent += len(message.content.array_records)
        assert set(message.content.array_records) <= came
    assert sent == sum(len(inside) for inside in INSIDE.values())
    assert not [path for path in (folder / "checkpoints").rglob("*.safetensors") if path.stat().st_size > 400]


def test_the_donors_weights_do_not_change_and_the_control_has_as_many_steps(finished):
    folder, crossed = finished
    events = facts(folder)
    steps = {arm: [e["steps"] for e in of(events, "learn", arm=arm)] for arm in ("control", "backpack")}
    assert steps["control"] == steps["backpack"]
    came = {client_of(m): from_arrays(r.content["arrays"]) for m, r in of_type(crossed, "query.backbone")}
    from models.storage import load_record

    for target, (event,) in {t: of(events, "routing", client=t) for t in INSIDE}.items():
        arrays, kept = load_record(folder / "clients" / f"{target:03d}" / "backpack" / "round-0001")
        assert kept["offset"] == 1
        assert list(kept["memory"]["tasks"]) == ["2"]
        donor = came[event["chosen"][0]]
        name = "backbone.layers.0.attn.qkv.weight"
        used = np.unpackbits(donor[MASK + name], count=donor[name].size).astype(bool).reshape(donor[name].shape)
        assert 0.4 < used.mean() < 0.6
        assert np.array_equal(arrays[f"model.{name}"][used], donor[name][used])
        assert not np.array_equal(arrays[f"model.{name}"], donor[name])


def test_table_and_bytes(finished):
    folder, _ = finished
    outcome = results_of(folder)
    assert [row["client"] for row in outcome["clients"]] == sorted(INSIDE)
    for row in outcome["clients"]:
        tested = {e["arm"]: e["balanced_accuracy"] for e in of(facts(folder), "evaluate", client=row["client"], split="test")}
        assert (row["control"], row["accuracy"]) == (tested["control"], tested["backpack"])
        assert row["bytes"] > 0


def test_no_donor_is_the_control(tmp_path, monkeypatch):
    """A target whose short training is better without a donor takes none, and ends as its control, bit by bit."""
    whole = scoring.score_donors

    def without(config, told, *args):
        found = whole(config, told, *args)
        return {**found, **({"none": 2.0 if told.partition_id == 6 else -1.0} if "none" in found else {})}

    monkeypatch.setattr(scoring, "score_donors", without)
    folder = walk(tmp_path, **{"selection.abstain": True, "data.clients": "6,7"})
    events = facts(folder)
    assert [e["chosen"] for e in of(events, "routing")] == [[], [6]]
    assert of(events, "routing", client=6)[0]["tried_none"] == 2.0
    tested = {e["arm"]: e["loss"] for e in of(events, "evaluate", client=6, split="test")}
    assert tested["control"] == tested["backpack"]
    tested = {e["arm"]: e["loss"] for e in of(events, "evaluate", client=7, split="test")}
    assert tested["control"] != tested["backpack"]


def lie(manifest, arrays, how: str):
    if how == "dies":
        raise RuntimeError("the disk is gone")
    if how == "NaN":
        arrays["backbone.latents"][0] = np.nan
    if how == "shape":
        arrays["backbone.latents"] = arrays["backbone.latents"][:-1]
    if how == "name":
        arrays["backbone.other"] = arrays.pop("backbone.latents")
    if how != "hash":
        manifest = Manifest(**{**manifest.__dict__, "sha256": digest(arrays)})
    else:
        arrays["backbone.latents"][0] += 1
    return manifest, arrays


@pytest.mark.parametrize("how", ["dies", "NaN", "shape", "name", "hash"])
def test_a_donor_that_dies_or_lies_is_left_out(how, tmp_path, monkeypatch):
    whole = donors.publish

    def broken(config, told, folder):
        manifest, arrays = whole(config, told, folder)
        return lie(manifest, arrays, how) if told.partition_id == 1 else (manifest, arrays)

    monkeypatch.setattr(donors, "publish", broken)
    folder = walk(tmp_path, **{"data.clients": "0,1,2"})
    events = facts(folder)
    assert {e["client"] for e in of(events, "refused")} == {1}
    assert {e["client"]: e["chosen"] for e in of(events, "routing")} == {
        0: [2],
        1: of(events, "routing", client=1)[0]["chosen"],
        2: [0],
    }
    assert {e["client"]: e["donors"] for e in of(events, "routed")} == {
        e["client"]: e["chosen"] for e in of(events, "routing")
    }
    assert json.loads((folder / "manifest.json").read_text())["status"] == "completed"


def test_a_donor_whose_task_no_longer_validates_as_it_did_is_left_out(tmp_path, monkeypatch):
    whole = donors.open_stream

    def changed(*args, **kwargs):
        stream = whole(*args, **kwargs)
        if stream.instruction.partition_id == 1:
            stream.validation += 0.1
        return stream

    monkeypatch.setattr(donors, "open_stream", changed)
    events = facts(walk(tmp_path, **{"data.clients": "0,1,2"}))
    (refused,) = of(events, "refused")
    assert refused["client"] == 1
    assert "once learned" in refused["reason"]
    routed = {e["client"]: e["donors"] for e in of(events, "routed")}
    assert (routed[0], routed[2]) == ([2], [0])


def test_what_a_target_refuses_is_said_and_passed_over(tmp_path, monkeypatch):
    whole = donor_messages.from_donors

    def cut(message):
        manifests, sent = whole(message)
        if client_of(message) == 0 and manifests and manifests[0].partition_id == 1:
            sent = {key: {**arrays, "backbone.latents": arrays["backbone.latents"] * 2} for key, arrays in sent.items()}
        return manifests, sent

    monkeypatch.setattr(donor_messages, "from_donors", cut)
    events = facts(walk(tmp_path, **{"data.clients": "0,1,2"}))
    assert [(e["client"], e["target"]) for e in of(events, "refused")] == [(1, 0)]
    assert "have hash" in of(events, "refused")[0]["reason"]
    assert of(events, "routing", client=0)[0]["chosen"] == of(events, "routed", client=0)[0]["donors"] == [2]


@pytest.mark.parametrize("scorer", ["random", "same-modality-random"])
def test_rules_pull_only_what_they_chose(scorer, tmp_path, monkeypatch):
    crossed = watch(monkeypatch)
    folder = walk(tmp_path, **{"selection.scorer": scorer})
    assert not of_type(crossed, "query.score")
    for message, _ in of_type(crossed, "train.task"):
        if message.content["config"]["arm"] == "backpack":
            (event,) = of(facts(folder), "routing", client=client_of(message))
            assert donors_in(message) == event["chosen"]
            assert len(message.content.array_records) == 1


@pytest.mark.parametrize("combine", ["average", "block-union"])
def test_several_donors_come_in_one_message(combine, tmp_path, monkeypatch):
    crossed = watch(monkeypatch)
    settings = {"selection.top": 2, "selection.combine": combine, "selection.scorer": "same-modality-random"}
    folder = walk(tmp_path, **settings, **{"data.clients": "0,1,2"})
    learned = [m for m, _ in of_type(crossed, "train.task") if m.content["config"]["arm"] == "backpack"]
    assert [len(message.content.array_records) for message in learned] == [2, 2, 2]
    assert len(results_of(folder)["clients"]) == 3


def test_all_pairs_learns_every_donor_for_every_target(tmp_path):
    folder = walk(tmp_path, **{"selection.routing": "all-pairs", "data.clients": "0,1,6,7", "selection.across": True})
    pairs = {(e["arm"], e["client"]) for e in of(facts(folder), "evaluate", split="test") if e["arm"].startswith("pair-")}
    assert pairs == {(f"pair-{d:03d}", t) for d in (0, 1, 6, 7) for t in (0, 1, 6, 7) if d != t}
    rows = results_of(folder)["clients"]
    own = {e["client"]: e["balanced_accuracy"] for e in of(facts(folder), "evaluate", arm="backpack", split="test")}
    assert {row["client"]: row["accuracy"] for row in rows} == own


KILLED = {"data.clients": "0,1", "selection.abstain": True}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return walk(tmp_path_factory.mktemp("whole"), **KILLED)


@pytest.mark.parametrize("fatal", [4, 14, 24, 32])
def test_a_killed_run_ends_the_same(fatal, whole, tmp_path, monkeypatch):
    revive = die_at(monkeypatch, RunFolder, "record", fatal)
    with pytest.raises(KilledError):
        walk(tmp_path, **KILLED)
    revive()
    same_end(whole, walk(tmp_path, **KILLED, **{"run.resume": True}))


def donor(values, used, client=1):
    name = "backbone.layers.0.attn.qkv.weight"
    arrays = {name: np.array(values, np.float32), "backbone.latents": np.full(2, client, np.float32)}
    arrays["adapter.norm.weight"] = np.full(1, client, np.float32)
    return donors.Donor(Manifest(client, "image", ("a", "b"), 0.5, 9, "x"), arrays, {name: np.array(used)})


def test_combinations_by_hand():
    name = "backbone.layers.0.attn.qkv.weight"
    pair = [donor([1, 0, 3, 0], [True, False, True, False]), donor([5, 6, 0, 0], [True, True, False, False], client=3)]
    expected = {
        "first": ([1, 0, 3, 0], [True, False, True, False], 1, 1),
        "average": ([3, 6, 3, 0], [True, True, True, False], 2, 1),
        "block-union": ([1, 6, 3, 0], [True, True, True, False], 1, 1),
    }
    for how, (values, used, latents, adapter) in expected.items():
        arrays, masks = donors.combine(pair, how)
        assert arrays[name].tolist() == values
        assert masks[name].tolist() == used
        assert arrays["backbone.latents"].tolist() == [latents] * 2
        assert arrays["adapter.norm.weight"].tolist() == [adapter]
