"""Series: who has which windows, that no split sees another, scales by hand, clients beside those of another data set."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from config import Data
from data_partition import series
from data_partition.client_data import load_client, load_subgroup, load_unlabelled
from data_partition.files import DataError
from data_partition.recordings import Recording, open_recordings, pieces, windows
from data_partition.subgroups import find_subgroup, subgroups
from tests.data_partition.series_trees import trust_watch, write_watch

LENGTH = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_watch(tmp_path_factory.mktemp("watch"), LENGTH)


@pytest.fixture(autouse=True)
def _trusted(monkeypatch, folder):
    trust_watch(monkeypatch, folder)


def data(folder, **fields):
    return Data(
        **{
            "dataset": "watch",
            "grouping": "subjects",
            "data_dir": str(folder),
            "train_fraction": 1.0,
            "window": 20,
            "step": 10,
            "subjects_per_client": 2,
            **fields,
        }
    )


def test_a_client_has_subjects_and_nobody_has_those_of_the_test(folder):
    found = subgroups(data(folder))
    assert [one.domains for one in found] == [(f"subject {n}", f"subject {n + 1}") for n in (1, 3, 5, 7)]
    assert [(one.partition_id, one.domain_index, one.group, one.modality) for one in found] == [
        (n, n, 0, "series") for n in range(4)
    ]
    assert {one.classes for one in found} == {("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")}
    uneven = subgroups(data(folder, subjects_per_client=3, test_subjects="1, 4,10"))
    assert [one.domains for one in uneven] == [
        ("subject 2", "subject 3", "subject 5"),
        ("subject 6", "subject 7", "subject 8"),
        ("subject 9",),
    ]
    assert [len(one.domains) for one in subgroups(data(folder, grouping="all", subjects_per_client=1))] == [8]


def test_no_sample_is_in_two_splits(folder):
    """Recordings are apart, those of the test are of other people, and all of them are somewhere."""
    everyone = [series.split(data(folder), one, 1.0) for one in subgroups(data(folder))]
    tested = {one.item for one in everyone[0].test}
    assert {one.subject for one in everyone[0].test} == {"9", "10"}
    seen: list[str] = []
    for parts in everyone:
        train, val, test = ({one.item for one in part} for part in (parts.train, parts.val, parts.test))
        assert not train & val
        assert not (train | val) & test
        assert test == tested
        assert (len(train), len(val)) == (7 * 3, 7 * 1)  # of four recordings of a class one is held out
        seen += [*train, *val]
    assert sorted([*seen, *tested]) == sorted(one.item for one in open_recordings(data(folder)))


def test_windows_lie_in_one_recording_each_and_are_z_scored(folder):
    settings = data(folder, window=30, step=7)
    client = load_client(settings, 1)
    parts = series.split(settings, find_subgroup(settings, 1), 1.0)
    together = np.concatenate([one.values for one in parts.train]).astype(np.float64)
    mean, deviation = together.mean(axis=0), together.std(axis=0)
    for split, recordings, step in (
        (client.train, parts.train, 7),
        (client.val, parts.val, 30),
        (client.test, parts.test, 30),
    ):
        expected, labels = [], []
        for one in recordings:
            starts = range(0, len(one.values) - 29, step)
            expected += [((one.values[start : start + 30] - mean) / deviation).T for start in starts]
            labels += [client.subgroup.classes.index(one.label)] * len(starts)
        assert split.inputs.dtype == torch.float32
        torch.testing.assert_close(split.inputs, torch.from_numpy(np.array(expected, dtype=np.float32)), rtol=1e-4, atol=1e-5)
        assert split.labels.tolist() == labels
    assert abs(float(client.train.inputs.mean())) < 0.1
    assert abs(float(client.train.inputs.std()) - 1) < 0.1


def test_step_zero_is_no_overlap(folder):
    plain, dense = load_client(data(folder, step=0), 0), load_client(data(folder, step=10), 0)
    assert (len(plain.train), len(plain.val), len(plain.test)) == (7 * 3 * 6, 7 * 6, 28 * 6)
    assert len(dense.train) == sum(
        1 + (len(one.values) - 20) // 10 for one in series.split(data(folder), find_subgroup(data(folder), 0), 1.0).train
    )
    assert torch.equal(plain.test.labels, dense.test.labels)


def test_fractions_seeds_and_classes(folder):
    def items(part):
        return {one.item for one in part}

    one = find_subgroup(data(folder), 2)
    whole, small = (series.split(data(folder), one, share) for share in (1.0, 0.3))
    assert items(small.train) < items(whole.train)
    assert len(small.train) == 7  # at least one of each class
    assert items(small.val) == items(whole.val)
    assert items(series.split(data(folder, seed=1), one, 1.0).val) != items(whole.val)
    half = load_subgroup(data(folder), type(one)(2, "series", 0, ("ROW", "PEN"), 2, one.domains))
    full = load_client(data(folder), 2)
    chosen = [i for i, label in enumerate(full.train.labels) if full.subgroup.classes[label] in ("ROW", "PEN")]
    assert torch.equal(half.train.inputs, full.train.inputs[chosen])
    assert [("ROW", "PEN")[i] for i in half.train.labels] == [full.subgroup.classes[i] for i in full.train.labels[chosen]]


def test_what_is_held_out_may_be_trained_on_in_a_last_run(folder):
    """All 28 recordings of two people are trained on and scaled by; validation and test are the same recordings as before."""
    settings, last = data(folder), data(folder, train_on_validation=True)
    group = find_subgroup(settings, 1)
    before, after = (
        [{one.item for one in part} for part in (parts.train, parts.val, parts.test)]
        for parts in (series.split(one, group, 1.0) for one in (settings, last))
    )
    assert after == [before[0] | before[1], before[1], before[2]]
    assert len(after[0]) == 28
    values = np.concatenate([one.values for one in series.split(last, group, 1.0).train]).astype(np.float64)
    client, plain = load_client(last, 1), load_client(settings, 1)
    scale = torch.from_numpy((values.std(axis=0) / moments_of(settings, group)).astype(np.float32))
    shift = client.test.inputs * scale[:, None] - plain.test.inputs
    torch.testing.assert_close(shift, shift[:1, :, :1].expand_as(shift), rtol=0, atol=1e-4)  # one shift for each channel
    few, more = ({one.item for one in series.split(last, group, share).train} for share in (0.5, 0.75))
    assert few < more < after[0]


def moments_of(settings, group):
    train = series.split(settings, group, 1.0).train
    return np.concatenate([one.values for one in train]).astype(np.float64).std(axis=0)


def test_a_class_with_one_recording_is_trained_on_and_not_validated(folder):
    """One subject has two recordings of a class; with windows longer than the shorter ones a single one is left."""
    lengths = {len(one.values) for one in open_recordings(data(folder))}
    assert lengths == {LENGTH, LENGTH + 1, LENGTH + 2}
    settings = data(folder, window=LENGTH + 1, subjects_per_client=1)
    parts = series.split(settings, find_subgroup(settings, 0), 1.0)
    trained, validated = ([one.label for one in part] for part in (parts.train, parts.val))
    assert len(trained) == len(set(trained))
    assert set(validated) < set(trained)
    assert min(len(one.values) for one in (*parts.train, *parts.val, *parts.test)) > LENGTH


def test_channels_are_chosen_by_name_in_the_order_asked_for(folder):
    every, two = load_client(data(folder), 0), load_client(data(folder, channels="wy, ax"), 0)
    assert torch.equal(two.train.inputs, every.train.inputs[:, [4, 0]])


def test_a_constant_channel_is_no_division_by_zero():
    mean, deviation = series.moments([np.array([[1.0, 5.0], [3.0, 5.0]], np.float32)])
    assert (mean.tolist(), deviation.tolist()) == ([2.0, 5.0], [1.0, 1.0])
    with pytest.raises(DataError, match=r"as long as data\.window"):
        series.moments([])


def test_windows_and_pieces_by_hand():
    values = np.arange(10, dtype=np.float32).reshape(5, 2)
    assert windows(values, 3, 1)[1].tolist() == [[2, 4, 6], [3, 5, 7]]  # channels by samples
    assert len(windows(values, 5, 3)) == 1
    assert windows(values, 6, 1).shape == (0, 2, 6)
    parts = list(pieces(Recording("a", "1", "walk", np.zeros((700, 2), np.float32)), 200))
    assert [(one.item, len(one.values)) for one in parts] == [("a/000", 175), ("a/001", 175), ("a/002", 175), ("a/003", 175)]
    assert [one.item for one in pieces(Recording("a", "1", "walk", values), 200)] == ["a/000"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"test_subjects": "11"}, "names 11: 'watch' has the subjects 1, 2"),
        ({"test_subjects": "1,2,3,4,5,6,7,8,9,10"}, "nobody is left to train on"),
    ],
)
def test_subjects_that_do_not_fit_are_refused(folder, fields, message):
    with pytest.raises(DataError, match=message):
        subgroups(data(folder, **fields))


def test_windows_longer_than_all_recordings_are_refused(folder):
    with pytest.raises(DataError, match=r"as long as data\.window"):
        load_client(data(folder, window=LENGTH + 9), 0)
    # Subject 1 has no recording of LENGTH + 2 samples among the few that its client validates on.
    with pytest.raises(
        DataError, match=r"client 0 \(subject 1\) has no validation window of 122 samples.*shorten data\.window"
    ):
        load_client(data(folder, window=LENGTH + 2, subjects_per_client=1, val_fraction=0.01, test_subjects="10"), 0)


def test_subjects_join_clients_of_another_data_set(monkeypatch, folder):
    from data_partition import watch

    monkeypatch.setattr(watch, "_installed", lambda: folder / watch.FILE)
    settings = Data(also="watch", subjects_per_client=4, window=20)
    found = subgroups(settings)
    assert [one.partition_id for one in found] == list(range(14))
    assert [one.modality for one in found] == ["image"] * 6 + ["text"] * 6 + ["series"] * 2
    assert found[12].group == 1 + max(one.group for one in found[:12])
    assert load_client(settings, 13).train.inputs.shape[1:] == (6, 20)
    assert load_client(settings, 0).train.inputs.shape[1:] == (3, 32, 32)
    alone = subgroups(Data(also="watch", modalities="image"))
    assert [one.modality for one in alone] == ["image"] * 6 + ["series"] * 8


def test_some_windows_have_labels_and_some_of_the_rest_come_without(folder):
    """Of each class a fifth of the windows has labels, and those up to a half come without; the scale is that of all."""
    whole = load_client(data(folder), 1)
    settings = data(folder, train_fraction=0.2, unlabelled_fraction=0.5)
    client, subgroup = load_client(settings, 1), find_subgroup(settings, 1)
    unlabelled = load_unlabelled(settings, subgroup)
    rows = {row.numpy().tobytes(): int(label) for row, label in zip(whole.train.inputs, whole.train.labels, strict=True)}
    known = [rows[row.numpy().tobytes()] for row in client.train.inputs]
    others = [rows[row.numpy().tobytes()] for row in unlabelled]
    assert known == client.train.labels.tolist()
    for label in range(7):
        number = whole.train.labels.tolist().count(label)
        assert known.count(label) == round(0.2 * number)
        assert others.count(label) == round(0.5 * number) - round(0.2 * number)
    together = {row.numpy().tobytes() for row in torch.cat([client.train.inputs, unlabelled])}
    assert len(together) == len(known) + len(others)  # no window is in both
    assert torch.equal(client.val.inputs, whole.val.inputs)
    assert torch.equal(client.test.inputs, whole.test.inputs)
    more = load_client(data(folder, train_fraction=0.4, unlabelled_fraction=0.5), 1)
    assert {row.numpy().tobytes() for row in client.train.inputs} < {row.numpy().tobytes() for row in more.train.inputs}
    least = load_client(data(folder, train_fraction=0.001, unlabelled_fraction=1.0), 1)
    assert sorted(least.train.labels.tolist()) == list(range(7))


def test_without_the_setting_there_are_no_unlabelled_windows(folder):
    settings = data(folder, train_fraction=0.3)
    assert load_unlabelled(settings, find_subgroup(settings, 1)) is None
    full = data(folder, train_fraction=0.3, unlabelled_fraction=1.0)
    assert load_unlabelled(full, find_subgroup(full, 1), 1.0) is None  # all of them have labels
    assert torch.equal(load_client(full, 1, 1.0).train.inputs, load_client(data(folder), 1).train.inputs)
