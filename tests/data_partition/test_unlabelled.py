"""Inputs of training concepts beyond those that a client has labels of."""

import pytest

from config import Data
from data_partition.client_data import load_client, load_twins, load_unlabelled, load_unlabelled_twins
from data_partition.emojipairs.dataset import load
from data_partition.files import DataError
from data_partition.subgroups import find_subgroup, subgroups
from tests.data_partition.test_twins import concepts_by_input, key


def test_unlabelled_inputs_are_the_rest_of_the_training_rows():
    data = Data(grouping="tri", concepts="shared", unlabelled_fraction=1.0)
    for group in (subgroups(data)[1], subgroups(data)[-1]):
        inputs = load_unlabelled(data, group)
        known, there = load_client(data, group.partition_id), load_client(data, group.partition_id, 1.0)
        assert sorted(map(key, [*inputs, *known.train.inputs])) == sorted(map(key, there.train.inputs))
        assert inputs.dtype == known.train.inputs.dtype


def test_where_labels_are_divided_inputs_are_not():
    shared = Data(grouping="siblings", concepts="shared")
    divided = Data(grouping="siblings", concepts="disjoint", unlabelled_fraction=1.0)
    for group in (subgroups(divided)[1], subgroups(divided)[-1]):
        inputs, known = load_unlabelled(divided, group), load_client(divided, group.partition_id)
        everything = load_client(shared, group.partition_id, 1.0)
        assert sorted(map(key, [*inputs, *known.train.inputs])) == sorted(map(key, everything.train.inputs))
        half = load_unlabelled(divided.model_copy(update={"unlabelled_fraction": 0.6}), group)
        assert set() < {key(one) for one in half} < {key(one) for one in inputs}


def test_no_concept_of_validation_test_or_the_labelled_is_among_them():
    table = load()
    known = concepts_by_input(table.images)
    data = Data(grouping="tri", concepts="shared", unlabelled_fraction=1.0)
    client, inputs = load_client(data, 0), load_unlabelled(data, find_subgroup(data, 0))

    def concepts(rows):
        return set().union(*(known[key(value)] for value in rows))

    for split in (client.train, client.val, client.test):
        assert not concepts(inputs) & concepts(split.inputs)


def test_a_smaller_share_is_a_part_of_a_larger_one():
    def found(share):
        data = Data(grouping="tri", concepts="shared", unlabelled_fraction=share)
        return {key(value) for value in load_unlabelled(data, find_subgroup(data, 6))}

    assert set() < found(0.5) < found(1.0)


def test_a_larger_share_of_labels_leaves_fewer_without():
    data = Data(grouping="tri", concepts="shared", unlabelled_fraction=0.75)
    group = find_subgroup(data, 0)
    assert len(load_unlabelled(data, group, 0.5)) < len(load_unlabelled(data, group))
    with pytest.raises(DataError, match="has no image"):
        load_unlabelled(data, group, 0.75)


def test_without_the_setting_there_are_none():
    data = Data(grouping="tri")
    assert load_unlabelled(data, find_subgroup(data, 0)) is None


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"unlabelled_fraction": 0.2}, "nothing is left"),
        ({"unlabelled_fraction": 1.0, "dataset": "cifar100", "grouping": "superclass"}, "is for emojipairs"),
    ],
)
def test_shares_that_leave_nothing_and_other_data_are_refused(settings, told):
    with pytest.raises(ValueError, match=told):
        Data(**{"grouping": "tri", **settings})


@pytest.mark.parametrize("grouping", ["tri", "siblings"])
def test_twins_of_unlabelled_inputs_are_of_their_concepts(grouping):
    table = load()
    images, texts = concepts_by_input(table.images), concepts_by_input(table.texts)
    data = Data(grouping=grouping, concepts="shared", unlabelled_fraction=0.75)
    for group in (subgroups(data)[1], subgroups(data)[-1]):
        inputs, (places, twins) = load_unlabelled(data, group), load_unlabelled_twins(data, group)
        mine, theirs = (images, texts) if group.modality == "image" else (texts, images)
        assert len(places) == len(twins) > 0.9 * len(inputs)
        assert all(mine[key(inputs[place])] & theirs[key(twin)] for place, twin in zip(places, twins, strict=True))
        labelled = {key(twin) for twin in load_twins(data, group)[1]}
        shared = {key(twin) for twin in twins} & labelled
        assert not shared or group.modality == "image"  # two concepts may have one text


def test_without_unlabelled_inputs_there_are_no_twins_of_them():
    data = Data(grouping="tri", concepts="shared")
    assert load_unlabelled_twins(data, find_subgroup(data, 0)) is None


def test_series_without_labels_have_no_twins():
    data = Data(dataset="watch", grouping="subjects", concepts="shared", unlabelled_fraction=0.5)
    with pytest.raises(DataError, match="'watch' has one modality"):
        load_unlabelled_twins(data, find_subgroup(data, 0))
