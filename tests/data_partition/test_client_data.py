from __future__ import annotations

import numpy as np
import pytest
import torch

from config import Data
from data_partition.client_data import load_client
from data_partition.emojipairs.dataset import load
from data_partition.files import DataError
from data_partition.subgroups import subgroups

GROUPINGS = ["mixed", "theme", "siblings", "tri"]


@pytest.fixture(scope="module")
def concept_of():
    """Maps an image's bytes to its concept, to see through the tensors."""
    images = load().images
    found: dict[bytes, set[int]] = {}
    for image, concept in zip(images.inputs, images.concepts, strict=True):
        found.setdefault(image.tobytes(), set()).add(int(concept))
    assert all(len(concepts) == 1 for concepts in found.values())
    return {image: concepts.pop() for image, concepts in found.items()}


def concepts(split, concept_of):
    return {concept_of[image.numpy().tobytes()] for image in split.inputs}


@pytest.mark.parametrize("grouping", GROUPINGS)
def test_shapes_and_types(grouping):
    data = Data(grouping=grouping)
    for subgroup in subgroups(data):
        client = load_client(data, subgroup.partition_id)
        assert client.subgroup == subgroup
        for split in (client.train, client.val, client.test):
            if subgroup.modality == "image":
                assert split.inputs.shape[1:] == (3, 32, 32)
                assert split.inputs.dtype == torch.uint8
            else:
                assert split.inputs.shape[1:] == (24,)
                assert split.inputs.dtype == torch.int64
                assert (split.inputs != 0).any(dim=1).all()
            assert split.labels.dtype == torch.int64
            assert split.labels.unique().tolist() == list(range(len(subgroup.classes)))
            assert len(split) == len(split.inputs) == len(split.labels)


@pytest.mark.parametrize("rule", ["shared", "disjoint"])
@pytest.mark.parametrize("grouping", GROUPINGS)
def test_no_concept_is_in_two_splits_of_any_client(grouping, rule, concept_of):
    clients = [load_client(Data(grouping=grouping, concepts=rule), partition_id) for partition_id in range(6)]
    train, val, test = (
        set().union(*(concepts(getattr(client, name), concept_of) for client in clients)) for name in ("train", "val", "test")
    )
    assert not train & val
    assert not train & test
    assert not val & test


@pytest.mark.parametrize(("grouping", "domains"), [("siblings", 2), ("tri", 3)])
def test_siblings_own_different_concepts_when_disjoint_and_the_same_when_shared(grouping, domains, concept_of):
    disjoint = [load_client(Data(grouping=grouping, concepts="disjoint"), index) for index in range(domains)]
    owned = [concepts(client.train, concept_of) for client in disjoint]
    assert len(set().union(*owned)) == sum(len(one) for one in owned)
    assert max(map(len, owned)) - min(map(len, owned)) <= len(disjoint[0].subgroup.classes)
    shared = [load_client(Data(grouping="siblings", concepts="shared"), index) for index in range(2)]
    first, second = (concepts(client.train, concept_of) for client in shared)
    assert first == second
    first, second = (concepts(client.test, concept_of) for client in shared)
    assert first == second


def test_twins_of_both_modalities_own_the_same_concepts(concept_of):
    """Text client 7 holds exactly the texts, in its source, of the concepts whose drawings image client 1 holds."""
    data, table = Data(grouping="tri", max_tokens=60), load()
    image, text = load_client(data, 1), load_client(data, 7)
    rows = table.texts
    for name in ("train", "val", "test"):
        wanted = np.isin(rows.concepts, list(concepts(getattr(image, name), concept_of)))
        expected = rows.inputs[wanted & np.isin(rows.domains, text.subgroup.domains)]
        found = getattr(text, name).inputs.numpy()
        assert np.array_equal(found[:, : expected.shape[1]], expected[:, : found.shape[1]])


@pytest.mark.parametrize("partition_id", [0, 4, 8])
def test_labels_follow_the_classes_of_the_subgroup(partition_id):
    table = load()
    client = load_client(Data(grouping="mixed"), partition_id)
    rows = table.images if client.subgroup.modality == "image" else table.texts
    global_label = {row[:24].tobytes(): int(label) for row, label in zip(rows.inputs, rows.labels, strict=True)}
    for inputs, label in zip(client.test.inputs, client.test.labels, strict=True):
        assert table.classes[global_label[inputs.numpy().tobytes()]] == client.subgroup.classes[label]


def test_a_late_joiner_gets_a_subset(concept_of):
    data = Data(grouping="tri")
    full, small = load_client(data, 2), load_client(data, 2, train_fraction=0.1)
    assert concepts(small.train, concept_of) < concepts(full.train, concept_of)
    assert torch.equal(small.val.inputs, full.val.inputs)
    assert torch.equal(small.test.inputs, full.test.inputs)


def test_the_split_seed_moves_validation_and_not_the_test():
    first, second = (load_client(Data(seed=seed), 0) for seed in (0, 1))
    assert torch.equal(first.test.inputs, second.test.inputs)
    assert not torch.equal(first.val.inputs, second.val.inputs)


def test_texts_are_cut_or_padded_to_max_tokens():
    short, wide = load_client(Data(max_tokens=4), 6), load_client(Data(max_tokens=200), 6)
    assert short.train.inputs.shape[1] == 4
    assert wide.train.inputs.shape[1] == 200
    assert torch.equal(wide.train.inputs[:, :4], short.train.inputs)
    assert (wide.train.inputs[:, 100:] == 0).all()


def test_faults():
    with pytest.raises(DataError, match="0 to 11"):
        load_client(Data(), 12)
    with pytest.raises(DataError, match=r"at most 0\.333"):
        load_client(Data(), 0, train_fraction=0.5)


def test_a_client_cannot_write_into_the_shared_table():
    client = load_client(Data(), 0)
    client.train.inputs.zero_()
    assert load_client(Data(), 0).train.inputs.any()
