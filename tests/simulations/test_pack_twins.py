"""Donors of the other modality that teach by twins, through the whole app."""

import json
from dataclasses import replace

import pytest
import torch

from client import pack_donors
from client.packing.packer import pack
from config import parse
from data_partition import datasets
from data_partition.client_data import load_twins, load_unlabelled_twins
from data_partition.subgroups import find_subgroup
from tests.simulations.helpers import arrays_of, facts, watch
from tests.simulations.test_backpack import donors_in, of_type, results_of
from tests.simulations.test_continual import of
from tests.simulations.test_packing import TINY, walk

ACROSS = {
    "data.clients": "0,1,6",
    "selection.across": True,
    "selection.candidate": "paired",
    "selection.scorer": "logme",
    "selection.top": 2,
    "packing.twins": 1,
    "packing.weights": "cross-entropy",
    "packing.losses-compared": "",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run, its messages, and the teachers of each student in the arm of packing."""
    taught = []

    def watched(student, teachers, data, *args, **more):
        if [one.name for one in teachers] not in ([], ["self"]):
            taught.append((data, teachers))
        return pack(student, teachers, data, *args, **more)

    with pytest.MonkeyPatch.context() as patch:
        crossed = watch(patch)
        patch.setattr(pack_donors, "pack", watched)
        folder = walk(tmp_path_factory.mktemp("twins"), **ACROSS)
    return folder, crossed, taught


def test_a_target_takes_the_best_of_its_modality_and_one_of_the_other(finished):
    folder, crossed, _ = finished
    routed = {e["client"]: e["donors"] for e in of(facts(folder), "routed", arm="backpack")}
    assert routed[0] == [1, 6]
    assert routed[1] == [0, 6]
    assert sorted(routed[6]) == [0, 1]  # nobody else reads texts
    sent = [
        donors_in(message) for message, _ in of_type(crossed, "train.pack") if message.content["config"]["arm"] != "backpack"
    ]
    assert sent == 2 * [routed[client][:1] for client in (0, 1, 6)]


def test_each_teacher_is_asked_in_its_own_modality(finished):
    _, _, taught = finished
    config = parse({**TINY, **ACROSS})
    assert [{one.name for one in teachers} for _, teachers in taught] == [{"1", "6"}, {"0", "6"}, {"0", "1"}]
    data, (inside, across) = taught[0]
    assert inside.inputs is None
    group = find_subgroup(config.data, 0)
    (places, labelled), (more_places, unlabelled) = load_twins(config.data, group), load_unlabelled_twins(config.data, group)
    assert across.paired
    assert across.inputs.dtype == torch.int64
    assert len(across.inputs) == len(across.known) == len(data.task.train) + len(data.unlabelled)
    first = len(data.task.train)
    assert torch.equal(across.inputs[places], labelled)
    assert torch.equal(across.inputs[first + more_places], unlabelled)
    assert taught[2][1][0].inputs.shape[1:] == (3, 32, 32)


def test_facts_and_results_tell_of_them(finished):
    folder, _, _ = finished
    told = {e["teacher"]: e["validation"] for e in of(facts(folder), "pack-teacher", client=0, arm="backpack")}
    assert told["6"] is None  # no twin is there to validate by
    assert 0 <= told["1"] <= 1
    (last,) = of(facts(folder), "pack-epoch", client=0, arm="backpack", epoch=2)
    assert set(last["agreement"]) == {"1", "6"}
    assert 1 < last["effective_teachers"] <= 2
    packing = results_of(folder)["packing"]
    assert [one["arm"] for one in packing["arms"]] == ["pack", "start", "self"]
    assert packing["teachers"] == 2


def test_no_twin_leaves_its_client(finished):
    _, crossed, taught = finished
    rows = [
        row.numpy().tobytes() for _, teachers in taught for one in teachers if one.inputs is not None for row in one.inputs
    ]
    assert len(rows) > 50
    for _, reply in crossed:
        told = b"".join(array.numpy().tobytes() for array in arrays_of(reply).values())
        assert not any(one in told for one in rows)
    for _, reply in of_type(crossed, "train.pack"):
        assert not arrays_of(reply)
        assert len(json.dumps(list(reply.content["facts"]["lines"]))) < 4000


def test_a_client_without_twins_stops_the_run(tmp_path, monkeypatch):
    known = datasets.DATASETS["emojipairs"]
    monkeypatch.setitem(datasets.DATASETS, "emojipairs", replace(known, load_twins=None))
    with pytest.raises(Exception, match=r"packing.twins = 1: client 0: .* there are no twins"):
        walk(tmp_path, **{**ACROSS, "selection.scorer": "random", "selection.candidate": "swap"})


def test_settings_that_do_not_fit_are_refused():
    for changes, told in (
        ({"selection.across": False, "selection.candidate": "swap"}, "use true and"),
        ({"strategy.share": "backbone", "selection.candidate": "swap"}, "use true and"),
        ({"packing.twins": 3}, "among selection.top = 2"),
        ({"packing.data": "both", "packing.consent": "all"}, "no twins on the student.s client"),
        ({"packing.checkpoint": "best-validation"}, "needs twins to validate by"),
        (
            {"packing.weights": "similarity", "selection.scorer": "modeldiff", "selection.candidate": "swap"},
            "selection.candidate = 'paired'",
        ),
        ({"selection.combine": "first", "data.unlabelled-fraction": 0.0}, "packing.twins = 1 is for"),
        ({"data.modalities": "image", "data.clients": "all", "selection.candidate": "swap"}, "needs twins in another"),
        (
            {"data.dataset": "cifar100", "data.grouping": "superclass", "data.clients": "all", "selection.candidate": "swap"}
            | {"data.unlabelled-fraction": 0.0, "data.concepts": "disjoint"},
            "needs twins in another",
        ),
    ):
        with pytest.raises(ValueError, match=told):
            parse({**TINY, **ACROSS, **changes})
