"""Routings of Back-Pack through the whole app: what targets compute of sketches, twins and copies of probes."""

import gc
import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.routing import Watcher
from client import donors, scoring
from client.continual import checkpoint
from client.modeldiff import perturb
from client.modeldiff import target as modeldiff_target
from client.sketching import tell
from client.stream import learn_task
from config import parse
from data_partition.datasets import DATASETS
from data_partition.emojipairs.dataset import load
from models.groups import named_tensors
from models.storage import load_record
from server.run_folder import RunFolder
from strategies import broker
from strategies.protocol import SOURCE_HASH, Instruction, RunError, digest
from strategies.selection.sketches import similarity
from tests.data_partition.test_twins import concepts_by_input, key
from tests.simulations.helpers import arrays_of, facts, watch
from tests.simulations.test_backpack import SMALL, client_of, donors_in, of_type, results_of, walk
from tests.simulations.test_continual import KilledError, die_at, of, same_end

THREE = {"data.clients": "0,1,2"}
TINY = {
    "data.train-fraction": 0.05,
    "selection.donor-fraction": 0.1,
    "model.dim": 32,
    "model.latents": 4,
    "model.heads": 2,
    "model.cross-heads": 2,
    "model.layers": 1,
    "continual.epochs": 1,
    "selection.own-epochs": 1,
    "selection.donor-epochs": 1,
}
ACROSS = {
    "data.clients": "0,1,6",
    "selection.across": True,
    "selection.routing": "cluster",
    "strategy.share": "backbone+adapter+head",
}
REPEATED = {"data.clients": "0,1", **TINY, "selection.routing": "all-pairs", "selection.repeats": 2}


def small(root, **flat):
    return walk(root, **{**TINY, **flat})


@pytest.fixture(scope="module")
def sketched(tmp_path_factory):
    """A run in two stages, without a model of the targets' own, and every message that crossed in it."""
    with pytest.MonkeyPatch.context() as patch:
        crossed = watch(patch)
        settings = {"selection.shortlist": 1, "selection.own-epochs": 0}
        folder = small(tmp_path_factory.mktemp("sketched"), **THREE, **settings)
    return folder, crossed


def test_two_sketches_of_two_kilobytes_and_one_backbone_a_target(sketched):
    folder, crossed = sketched
    asked = of_type(crossed, "query.sketch")
    arms = sorted((client_of(message), message.content["config"]["arm"]) for message, _ in asked)
    assert arms == [(client, arm) for client in (0, 1, 2) for arm in ("control", "donor")]
    for event in of(facts(folder), "message", type="query.sketch"):
        assert event["bytes_down"] == 0
        assert 1900 < event["bytes_up"] <= 2048
    scored = {client_of(message): donors_in(message) for message, _ in of_type(crossed, "query.score")}
    assert len(of_type(crossed, "query.score")) == 3
    for event in of(facts(folder), "shortlist"):
        ((donor, likeness),) = event["donors"]
        assert scored[event["client"]] == [donor]
        assert -1 <= likeness < 0.999  # of another client
    assert {e["client"]: e["chosen"] for e in of(facts(folder), "routing")} == scored


def test_sketches_of_a_donor_and_of_a_target_are_of_two_models(sketched):
    _, crossed = sketched
    found = {
        (client_of(message), message.content["config"]["arm"]): arrays_of(reply)["sketch"].numpy()
        for message, reply in of_type(crossed, "query.sketch")
    }
    assert len({value.tobytes() for value in found.values()}) == 6


def test_without_an_own_model_there_is_no_such_arm(sketched):
    folder, crossed = sketched
    assert not of(facts(folder), "arm", arm="own")
    assert {m.content["config"]["arm"] for m, _ in of_type(crossed, "query.score")} == {"control"}
    assert len(results_of(folder)["clients"]) == 3


@pytest.fixture(scope="module")
def repeated(tmp_path_factory):
    return walk(tmp_path_factory.mktemp("repeated"), **REPEATED)


def test_repeats_have_other_random_numbers(repeated):
    events = facts(repeated)
    losses = {e["arm"]: e["loss"] for e in of(events, "evaluate", client=0, split="test")}
    assert losses["control"] != losses["control-1"]
    assert losses["pair-001"] != losses["pair-001-1"]
    assert losses["pair-001"] == losses["backpack"]


def test_the_table_has_the_first_control(repeated):
    rows = {row["client"]: row for row in results_of(repeated)["clients"]}
    for client in (0, 1):
        tested = {e["arm"]: e["balanced_accuracy"] for e in of(facts(repeated), "evaluate", client=client, split="test")}
        assert (rows[client]["control"], rows[client]["accuracy"]) == (tested["control"], tested["backpack"])


def test_a_killed_run_of_all_pairs_ends_the_same(repeated, tmp_path, monkeypatch):
    """It dies while a pair is learned again with other random numbers."""
    events = facts(repeated)
    revive = die_at(monkeypatch, RunFolder, "record", events.index(of(events, "arm", arm="pair-000-1")[0]) + 4)
    with pytest.raises(KilledError):
        walk(tmp_path, **REPEATED)
    revive()
    same_end(repeated, walk(tmp_path, **REPEATED, **{"run.resume": True}))


def test_responses_are_told_in_place_of_weights(sketched):
    folder, _ = sketched
    config = parse({**SMALL, **TINY, **THREE, "selection.sketch": "responses"})
    found = [
        tell(config, instruction(folder, client, "control"), state(folder, client, "control"))[0]["sketch"]
        for client in (0, 1)
    ]
    assert [(value.shape, value.dtype) for value in found] == [((1000,), np.float16)] * 2
    assert not np.array_equal(*found)
    assert -1 <= similarity(*found) < similarity(found[0], found[0]) == pytest.approx(1)


def instruction(folder, client, arm):
    token = json.loads((folder / "manifest.json").read_text())["token"]
    return Instruction(client, folder.name, token, arm, SOURCE_HASH, share="backbone+adapter+head")


def state(folder, client, arm):
    return folder / "clients" / f"{client:03d}" / arm


def damage(folder, client):
    for path in state(folder, client, "donors").glob("*.safetensors"):
        path.write_bytes(b"damaged")


def test_what_a_target_kept_is_damaged_before_it_learns(tmp_path, monkeypatch):
    """It says so, and takes the next best; of those that it was not sent again, none is left."""
    whole, crossed = broker.score, watch(monkeypatch)

    def score_and_damage(job, wanted, ledger):
        whole(job, wanted, ledger)
        damage(tmp_path / "run", 0)

    monkeypatch.setattr("strategies.backpack.score", score_and_damage)
    folder = small(tmp_path, **THREE)
    events = facts(folder)
    (routing,) = of(events, "routing", client=0)
    assert [(e["client"], e["target"]) for e in of(events, "refused")] == [(d, 0) for d, _ in routing["ranking"]]
    assert "are not here" in of(events, "refused")[0]["reason"]
    assert of(events, "routed", client=0)[0]["donors"] == []
    assert {e["client"]: len(e["donors"]) for e in of(events, "routed")} == {0: 0, 1: 1, 2: 1}
    losses = {e["arm"]: e["loss"] for e in of(events, "evaluate", client=0, split="test")}
    assert losses["backpack"] == losses["control"]
    assert not [m for m, _ in of_type(crossed, "train.task") if arrays_of(m)]


def test_a_donor_on_which_training_diverges_is_passed_over(tmp_path, monkeypatch):
    """Its weights are finite, so that only whoever computes with them sees it; a rule does not."""
    whole = donors.publish

    def huge(config, told, folder):
        manifest, arrays = whole(config, told, folder)
        if told.partition_id == 1:
            arrays = {name: value * 1e30 if value.dtype.kind == "f" else value for name, value in arrays.items()}
            manifest = donors.Manifest(**{**manifest.__dict__, "sha256": donors.digest(arrays)})
        return manifest, arrays

    monkeypatch.setattr(donors, "publish", huge)
    events = facts(small(tmp_path, **THREE, **{"selection.scorer": "random", "selection.also": "cka"}))
    assert {e["client"] for e in of(events, "refused")} == {1}
    wanted = {e["client"]: [donor for donor, _ in e["ranking"]] for e in of(events, "routing")}
    fooled = [target for target, (first, _) in wanted.items() if first == 1]
    assert fooled
    for target in fooled:
        reasons = [e["reason"] for e in of(events, "refused", target=target)]
        assert ["NaN" in reasons[0], "training on top of it diverges" in reasons[1]] == [True, True]
        assert of(events, "routed", client=target)[0]["donors"] == wanted[target][1:]


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A run of two clients with images and one with texts, whose models on disk can be scored in other ways."""
    with pytest.MonkeyPatch.context() as patch:
        watcher = Watcher()

        def pull(*args):
            gc.collect()  # so that what is counted is held, and does not wait for the collector
            return watcher.pull(*args)

        patch.setattr(broker, "pull", pull)
        folder = small(tmp_path_factory.mktemp("learned"), **ACROSS)
    gc.collect()
    assert (watcher.held, watcher.peak) == (0, 1)  # of three donors, for two targets each
    return folder


def test_donors_are_of_the_own_cluster(learned):
    (event,) = of(facts(learned), "cluster")
    assert event["clusters"] == [[0, 1], [6]]
    assert {e["client"]: e["donors"] for e in of(facts(learned), "routed")} == {0: [1], 1: [0], 6: []}
    assert {(e["client"], e["donor"]) for e in of(facts(learned), "score")} >= {(0, 6), (6, 0), (6, 1)}


def donor_of(folder, client, **changes):
    """Return what a donor of a finished run sends, with some arrays changed, as if it meant it."""
    told = replace(instruction(folder, client, "donor"), train_fraction=TINY["selection.donor-fraction"])
    manifest, arrays = donors.publish(parse({**SMALL, **TINY, **ACROSS}), told, state(folder, client, "donor"))
    arrays |= {name: change(arrays[name]) for name, change in changes.items()}
    return replace(manifest, sha256=digest(arrays)), arrays


def scores_of(folder, target, donor, names=("modeldiff",), changes=None, **flat):
    """Return the scores that a target of a finished run gives a donor under other settings."""
    config = parse({**SMALL, **TINY, **ACROSS, **{f"selection.{key}": value for key, value in flat.items()}})
    manifest, arrays = donor_of(folder, donor, **(changes or {}))
    where = state(folder, target, "own")
    return scoring.score_donors(
        config, instruction(folder, target, "own"), where, [manifest], {manifest.sha256: arrays}, names
    )


def test_calibrated_scores_are_other_scores_on_both_sides(learned):
    for donor in (1, 6):
        swap, calibrated = (
            scores_of(learned, 0, donor, ("linear-probe", "few-step"), candidate=how, **{"calibration-epochs": 2})
            for how in ("swap", "calibrate")
        )
        assert swap["linear-probe"] != calibrated["linear-probe"]
        assert swap["few-step"] == calibrated["few-step"]


def test_paired_donors_see_twins(learned, monkeypatch):
    whole, seen = modeldiff_target.paired, []

    def paired(own, inputs, other, theirs, *args):
        seen.append((inputs, other, theirs))
        return whole(own, inputs, other, theirs, *args)

    monkeypatch.setattr(modeldiff_target, "paired", paired)
    names = ("modeldiff", "cka", "h-score", "few-step")
    for target, donor in ((0, 6), (6, 0)):
        swap, found = (scores_of(learned, target, donor, names, candidate=how) for how in ("swap", "paired"))
        assert all(found[name] != swap[name] for name in ("modeldiff", "cka", "h-score"))
        assert found["few-step"] == swap["few-step"]
    (images, reads_texts, texts), (own_texts, reads_images, twins) = seen
    assert images.shape[1:] == twins.shape[1:] == (3, 32, 32)
    assert texts.shape[1:] == own_texts.shape[1:] == (24,)
    assert len(images) == len(texts) > 2
    table = load()
    shown, told = concepts_by_input(table.images), concepts_by_input(table.texts)
    for pictures, words in ((images, texts), (twins, own_texts)):
        for picture, text in zip(pictures, words, strict=True):
            assert shown[key(picture)] & told[key(text)]  # row by row of one concept
    sent = {donor: donor_of(learned, donor)[1] for donor in (6, 0)}
    for donor, model in ((6, reads_texts), (0, reads_images)):
        tensors = named_tensors(model)
        for name, value in sent[donor].items():
            assert name.startswith("mask/") or np.array_equal(tensors[name].detach().numpy(), value)


def test_paired_is_swap_inside_the_modality(learned):
    assert scores_of(learned, 0, 1, candidate="paired") == scores_of(learned, 0, 1)


def test_paired_needs_the_donors_adapter(learned):
    name = "adapter.norm.weight"
    with pytest.raises(scoring.DonorError, match="found shape"):
        scores_of(learned, 0, 6, candidate="paired", changes={name: lambda value: value[:-1]})


def test_a_data_set_without_twins_is_refused(learned, monkeypatch):
    known = DATASETS["emojipairs"]
    monkeypatch.setitem(DATASETS, "emojipairs", replace(known, load_twins=None))
    with pytest.raises(RunError, match=r"'paired': client 0: .* there are no twins"):
        scores_of(learned, 0, 6, candidate="paired")


@pytest.mark.parametrize("target", [0, 6])
@pytest.mark.parametrize("pairing", ["gradient", "words", "hill-climb"])
def test_pairings(pairing, target, learned, monkeypatch):
    """Copies are made of a target's own probes; they are the same for all of its donors, and give other scores."""
    whole, seen = modeldiff_target.outputs, []
    for search in (perturb.pgd_images, perturb.pgd_embeddings):
        monkeypatch.setitem(search.__kwdefaults__, "steps", 2)
    monkeypatch.setattr(
        modeldiff_target, "outputs", lambda model, probes, *args: seen.append(probes) or whole(model, probes, *args)
    )
    donor = 1 if target == 0 else 0
    plain = scores_of(learned, target, donor)
    seen.clear()
    found = scores_of(learned, target, donor, pairing=pairing)
    own, theirs = seen
    half = len(own) // 2
    assert own.pairs.tolist() == [[i, half + i] for i in range(half)]
    assert own.inputs.equal(theirs.inputs)
    assert 0 < found["modeldiff"] <= 1
    assert found["modeldiff"] != plain["modeldiff"]


@pytest.mark.parametrize("name", ["backbone.latents", "mask/backbone.layers.0.attn.qkv.weight"])
def test_a_donor_with_numbers_of_another_type_is_refused(name, learned):
    with pytest.raises(scoring.DonorError, match="type"):
        scores_of(learned, 0, 1, changes={name: lambda value: value.astype(np.int64)})


def test_a_donor_with_a_head_of_another_shape_is_refused(learned):
    with pytest.raises(scoring.DonorError, match=r"head\.classifier"):
        scores_of(learned, 0, 1, changes={"head.classifier.bias": lambda value: value[:-1]})


def learn_on(folder, arm, donor):
    """Let client 0 learn on top of a donor; return what it ends with."""
    config = parse({**SMALL, **TINY, **ACROSS})
    manifest, arrays = donor_of(folder, donor)
    told, where = replace(instruction(folder, 0, arm), epochs=2), state(folder, 0, arm)

    def prepare(stream):
        donors.build_on(stream, [donors.receive(stream, manifest, arrays, told.share)])

    learn_task(config, told, where, prepare)
    return load_record(where / "round-0001")[0]


def test_a_task_that_was_begun_on_another_donor_begins_anew(learned, monkeypatch):
    expected = learn_on(learned, "whole", 6)
    revive = die_at(monkeypatch, checkpoint, "save", 2)
    with pytest.raises(KilledError):
        learn_on(learned, "broken", 1)
    revive()
    found = learn_on(learned, "broken", 6)
    assert all(np.array_equal(found[name], value) for name, value in expected.items())
