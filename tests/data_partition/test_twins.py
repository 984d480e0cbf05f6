"""A client's training concepts in the other modality, row by row."""

import numpy as np
import pytest
import torch

from config import Data
from data_partition.client_data import load_client, load_twins
from data_partition.emojipairs.dataset import load
from data_partition.files import DataError
from data_partition.subgroups import find_subgroup, subgroups


def concepts_by_input(rows):
    """Concepts that an input is of: two concepts may have one text."""
    found = {}
    for value, concept in zip(rows.inputs, rows.concepts, strict=True):
        found.setdefault(np.trim_zeros(value.ravel()[:24] if value.ndim == 1 else value.ravel()).tobytes(), set()).add(
            int(concept)
        )
    return found


def key(value):
    return np.trim_zeros(value.numpy().ravel()).tobytes()


@pytest.mark.parametrize("grouping", ["mixed", "siblings", "tri"])
@pytest.mark.parametrize("concepts", ["shared", "disjoint"])
def test_twins_are_of_the_same_concepts_and_of_the_twins_rows(grouping, concepts):
    table = load()
    images, texts = concepts_by_input(table.images), concepts_by_input(table.texts)
    data = Data(grouping=grouping, concepts=concepts)
    groups = subgroups(data)
    for group in (groups[1], groups[-1]):
        client = load_client(data, group.partition_id)
        places, inputs = load_twins(data, group)
        mine, theirs = (images, texts) if group.modality == "image" else (texts, images)
        assert len(places) == len(inputs) > 0.9 * len(client.train)
        assert torch.equal(places, places.unique())
        for place, twin in zip(places, inputs, strict=True):
            assert mine[key(client.train.inputs[place])] & theirs[key(twin)]
        other = load_client(data, next(one.partition_id for one in groups if twins(one, group)))
        assert {key(value) for value in inputs} <= {key(value) for value in other.train.inputs}
        tested = {key(value) for split in (other.val, other.test) for value in split.inputs}
        if group.modality == "text":  # of texts some are of two concepts
            assert not {key(value) for value in inputs} & tested


def twins(one, group):
    same = (one.group, one.domain_index) == (group.group, group.domain_index)
    return same and one.modality != group.modality


def test_the_rows_of_a_concept_take_its_twins_in_turn():
    data = Data(grouping="mixed")
    places, inputs = load_twins(data, find_subgroup(data, 6))  # texts of one source; images in six styles
    labels = load_client(data, 6).train.labels[places]
    assert len({key(value) for value in inputs}) > len(labels) / 2


def test_a_smaller_share_has_fewer_twins():
    data = Data(grouping="siblings", concepts="shared")
    group = find_subgroup(data, 0)
    assert len(load_twins(data, group, 0.1)[0]) < len(load_twins(data, group, 0.5)[0])
    assert len(load_twins(data, group, 0.1)[0]) == len(load_client(data, 0, 0.1).train)


def test_one_modality_has_no_twins():
    data = Data(dataset="cifar100", grouping="superclass", concepts="shared")
    with pytest.raises(DataError, match="'cifar100' has one modality"):
        load_twins(data, find_subgroup(data, 0))
