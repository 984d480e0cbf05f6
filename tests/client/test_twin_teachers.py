"""Donors of the other modality as teachers: which twin stands at which row, and what is refused."""

from dataclasses import replace

import pytest
import torch

from client import twin_teachers
from client.donors import Donor
from client.scoring import DonorError
from client.stream import open_stream
from client.twin_teachers import spread, twin_model, twin_rows
from config import parse
from data_partition import datasets
from data_partition.client_data import load_unlabelled
from data_partition.emojipairs.dataset import load
from models.arrays import get_arrays
from models.groups import shared_names
from strategies.protocol import Instruction, Manifest, RunError
from tests.data_partition.test_twins import concepts_by_input, key

FLAT = {
    "strategy.name": "backpack",
    "strategy.share": "backbone+adapter+head",
    "strategy.scope": "modality",
    "data.grouping": "tri",
    "data.concepts": "shared",
    "data.train-fraction": 0.1,
    "data.unlabelled-fraction": 0.3,
    "model.dim": 32,
    "model.latents": 4,
    "model.layers": 1,
    "selection.combine": "pack",
    "selection.across": True,
    "packing.twins": 1,
}


def stream_of(client, tmp_path, **flat):
    config = parse({**FLAT, **flat})
    return open_stream(config, Instruction(client, "run", "token", "x", ""), tmp_path, 1, blank=True)


def rows_of(stream):
    unlabelled = load_unlabelled(stream.config.data, stream.data.subgroup)
    inputs = [stream.data.train.inputs, *([] if unlabelled is None else [unlabelled])]
    return torch.cat(inputs), twin_rows(stream, unlabelled)


@pytest.mark.parametrize(("client", "other"), [(5, "text"), (6, "image")])
def test_row_by_row_twins_are_of_the_same_concepts(client, other, tmp_path):
    """Client 5 has a few images of concepts that its twin's source has no text of."""
    table = load()
    known = {"image": concepts_by_input(table.images), "text": concepts_by_input(table.texts)}
    mine = known["text" if other == "image" else "image"]
    stream = stream_of(client, tmp_path, **{"data.train-fraction": 0.25, "data.unlabelled-fraction": 1.0})
    inputs, rows = rows_of(stream)
    assert rows.modality == other
    assert len(rows.inputs) == len(rows.known) == len(inputs)
    assert rows.known.all() == (client == 6)
    for own, twin, there in zip(inputs, rows.inputs, rows.known, strict=True):
        if there:
            assert mine[key(own)] & known[other][key(twin)]
        else:
            assert not twin.any()


def test_labelled_twins_have_the_labels_of_their_rows(tmp_path):
    stream = stream_of(5, tmp_path, **{"data.train-fraction": 0.25})
    _, rows = rows_of(stream)
    labels, known = stream.data.train.labels, rows.known[: len(stream.data.train)]
    assert not known.all()
    assert torch.equal(rows.task.train.labels, labels[known])
    assert torch.equal(rows.task.train.inputs, rows.inputs[: len(labels)][known])
    assert len(rows.task.val) == 0


def test_without_unlabelled_inputs_there_are_labelled_rows_alone(tmp_path):
    stream = stream_of(0, tmp_path, **{"data.unlabelled-fraction": 0.0})
    inputs, rows = rows_of(stream)
    assert len(rows.inputs) == len(inputs) == len(stream.data.train)


def test_values_stand_in_their_places():
    inputs, known = spread(torch.tensor([0, 2]), torch.tensor([[5, 6], [7, 8]]), 4)
    assert inputs.tolist() == [[5, 6], [0, 0], [7, 8], [0, 0]]
    assert known.tolist() == [True, False, True, False]


def donor_of(stream, classes, **changes):
    """A whole model of the other modality, as it comes over the wire."""
    cached, _ = twin_teachers.cached_model(stream.config.model, stream.config.data, "text", len(classes), 3)
    arrays = {**get_arrays(cached, shared_names(cached, "backbone+adapter+head")), **changes}
    return Donor(Manifest(6, "text", classes, 0.5, 9, "abc"), {}, {}, arrays), cached


def test_a_donor_reads_its_own_modality_with_its_own_adapter_and_head(tmp_path):
    stream = stream_of(0, tmp_path)
    _, rows = rows_of(stream)
    donor, expected = donor_of(stream, stream.data.subgroup.classes)
    own = twin_model(stream, donor, rows).eval()
    with torch.no_grad():
        assert torch.equal(own(rows.inputs[:4]), expected.eval()(rows.inputs[:4]))
    other, _ = donor_of(stream, ("a", "b"))
    fresh = twin_model(stream, other, rows)
    assert fresh(rows.inputs[:4]).shape == (4, len(stream.data.subgroup.classes))


def test_a_donor_that_cannot_be_asked_is_named(tmp_path):
    stream = stream_of(0, tmp_path)
    _, rows = rows_of(stream)
    donor, _ = donor_of(stream, stream.data.subgroup.classes)
    for broken, told in (
        (replace(donor, manifest=replace(donor.manifest, modality="series")), "its modality is series"),
        (
            replace(donor, aside={k: v for k, v in donor.aside.items() if not k.startswith("adapter")}),
            "its adapter did not come",
        ),
        (replace(donor, aside={k: v[:-1] for k, v in donor.aside.items()}), "."),
    ):
        with pytest.raises(DonorError, match=told) as error:
            twin_model(stream, broken, rows)
        assert error.value.partition_id == 6


def test_a_data_set_without_twins_is_refused(tmp_path, monkeypatch):
    stream = stream_of(0, tmp_path)
    known = datasets.DATASETS["emojipairs"]
    monkeypatch.setitem(datasets.DATASETS, "emojipairs", replace(known, load_twins=None))
    with pytest.raises(RunError, match=r"packing.twins = 1: client 0: .* there are no twins"):
        rows_of(stream)
