"""Inputs of donors in packing: those of who has consented travel, once to each target, and no others."""

import pytest

from client.donors import give_inputs, inputs_of
from config import parse
from data_partition.client_data import load_client
from strategies.protocol import CONFIG, Instruction, Manifest, RunError, digest
from tests.simulations.helpers import arrays_of, facts, run, watch
from tests.simulations.test_backpack import client_of, of_type, results_of
from tests.simulations.test_continual import of
from tests.simulations.test_packing import TINY

BOTH = {
    **TINY,
    "packing.data": "both",
    "packing.consent": "7",
    "packing.weights": "uniform",
    "packing.distil-on": "unlabelled",
    "packing.epochs": 1,
    "packing.losses-compared": "sp",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        crossed = watch(patch)
        folder = run(tmp_path_factory.mktemp("given"), "run", **BOTH)
    return folder, crossed


def own_inputs(client):
    config = parse(BOTH)
    return inputs_of(load_client(config.data, client, config.selection.donor_fraction))


def test_only_who_has_consented_is_asked_and_it_gives_all_that_it_trained_on(finished):
    _, crossed = finished
    given = of_type(crossed, "query.inputs")
    assert [client_of(message) for message, _ in given] == [7]  # once for both of its targets
    expected = digest(own_inputs(7))
    assert {digest({name: array.numpy() for name, array in arrays_of(reply).items()}) for _, reply in given} == {expected}
    rows_of = {client: {row.tobytes() for row in own_inputs(client)["inputs"]} for client in (6, 7, 8)}
    others = (rows_of[6] | rows_of[8]) - rows_of[7]
    for message, reply in crossed:
        for one in (message, reply):
            arrays = {f"{n}/{k}": v for n, r in one.content.array_records.items() for k, v in r.items()}
            rows = {row.tobytes() for name, array in arrays.items() if name.endswith("/inputs") for row in array.numpy()}
            assert not rows & others


def test_they_come_once_to_each_target_and_the_run_folder_says_whose(finished):
    folder, crossed = finished
    name = f"donors-{digest(own_inputs(7))}"
    came = [(client_of(m), m.content[CONFIG]["arm"]) for m, _ in of_type(crossed, "train.pack") if name in m.content]
    assert came == [(6, "backpack"), (8, "backpack")]
    events = facts(folder)
    assert {(e["arm"], e["client"]): (e["donors"], e["without"]) for e in of(events, "inputs", arm="backpack")} == {
        ("backpack", 6): ([7], [8]),
        ("backpack", 7): ([], [6, 8]),
        ("backpack", 8): ([7], [6]),
    }
    assert {e["arm"] for e in of(events, "inputs")} == {"backpack", "pack-self", "pack-losses-1"}
    assert {e["client"]: e["consent"] for e in of(events, "backbone")} == {6: False, 7: True, 8: False}
    told = results_of(folder)["packing"]
    assert (told["consented"], told["inputs_of"]) == ([7], [7])
    assert [one["arm"] for one in told["arms"]] == ["pack", "start", "self", "sp"]


def test_without_consent_there_is_no_learning_from_parents_alone(tmp_path):
    with pytest.raises(RunError, match=r"none of its donors .* gives any: each must consent"):
        run(tmp_path, "run", **{**BOTH, "packing.data": "parent", "packing.consent": "0", "data.clients": "6,7"})


def test_a_donor_that_has_not_consented_gives_nothing_whatever_it_is_asked():
    told = Instruction(8, "run", "token", "donor", "hash")
    with pytest.raises(RunError, match="client 8 is asked for its inputs, and has not consented"):
        give_inputs(parse(BOTH), told)
    assert set(give_inputs(parse({**BOTH, "packing.consent": "8"}), told)) == {"inputs"}


def test_a_manifest_says_consent_in_words_that_are_checked():
    whole = Manifest(7, "text", ("a",), 0.5, 3, "ab", True, "cd")
    assert Manifest.from_json(whole.to_json()) == whole
    for change in ('"consent": 1', '"consent": "yes"'):
        with pytest.raises(ValueError, match="expected true or false"):
            Manifest.from_json(whole.to_json().replace('"consent": true', change))
