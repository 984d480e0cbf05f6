"""CIFAR-100: which byte is what, who owns which image, and what is refused."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

from config import CLASSES_PER_CLIENT, Data
from data_partition import cifar100
from data_partition.cifar100 import CLASSES, FOLDER, ROW_BYTES, SUPERCLASS_OF, SUPERCLASSES
from data_partition.client_data import load_client
from data_partition.datasets import DATASETS
from data_partition.files import DataError
from data_partition.streams import load_task
from data_partition.subgroups import subgroups
from tests.data_partition.helpers import write_cifar100

TRAIN, TEST = 10, 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_cifar100(tmp_path_factory.mktemp("cifar100"), TRAIN, TEST)


@pytest.fixture
def small(monkeypatch):
    """The sizes of the files that the tests write."""
    monkeypatch.setattr(cifar100, "ROWS", {"train": TRAIN * 100, "test": TEST * 100})


def data(folder, **fields):
    return Data(dataset="cifar100", data_dir=str(folder), **{"grouping": "superclass", "train_fraction": 1.0, **fields})


def stream(folder, **fields):
    return data(folder, grouping="all", tasks_per_client=20, **fields)


def images(split):
    return {image.numpy().tobytes() for image in split.inputs}


def test_every_data_set_of_the_config_is_served():
    assert set(DATASETS) == set(get_args(Data.model_fields["dataset"].annotation))


def test_classes_and_superclasses_are_the_official_ones():
    assert (len(CLASSES), len(set(CLASSES)), len(SUPERCLASSES)) == (100, 100, 20)
    assert {len(classes) for classes in SUPERCLASSES.values()} == {5}
    # The first twenty rows of the official table of both labels, and its last five.
    assert SUPERCLASS_OF[:20] == (4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11)
    assert SUPERCLASS_OF[-5:] == (0, 17, 8, 14, 13)
    assert [CLASSES[i] for i in (0, 19, 41, 58, 90, 99)] == ["apple", "cattle", "lawn_mower", "pickup_truck", "train", "worm"]


def test_a_client_is_a_superclass(folder):
    found = subgroups(data(folder))
    assert [one.partition_id for one in found] == [one.group for one in found] == list(range(20))
    assert {(one.modality, one.domain_index) for one in found} == {("image", 0)}
    assert found[0].classes == ("beaver", "dolphin", "otter", "seal", "whale")
    assert found[19].classes == ("lawn_mower", "rocket", "streetcar", "tank", "tractor")


@pytest.mark.parametrize("grouping", ["superclass", "all"])
def test_the_config_knows_how_many_classes_a_client_has(grouping):
    found = {len(one.classes) for one in subgroups(data("", grouping=grouping))}
    assert found == {CLASSES_PER_CLIENT["cifar100"][grouping]}


@pytest.mark.usefixtures("small")
def test_consecutive_tasks_of_the_one_client_are_the_superclasses(folder):
    """Same classes in the official order, and the same rows with the same labels as the client of the superclass has."""
    settings = stream(folder, task_classes="consecutive", val_fraction=0.3, seed=4)
    assert [one.partition_id for one in subgroups(settings)] == [0]
    for index, classes in enumerate(SUPERCLASSES.values()):
        task = load_task(settings, 0, index, 0.5)
        alone = load_client(data(folder, val_fraction=0.3, seed=4), index, 0.5)
        assert task.subgroup.classes == alone.subgroup.classes == classes
        assert (task.subgroup.partition_id, task.subgroup.group, task.subgroup.modality) == (0, index, "image")
        for mine, other in ((task.train, alone.train), (task.val, alone.val), (task.test, alone.test)):
            assert torch.equal(mine.inputs, other.inputs)
            assert torch.equal(mine.labels, other.labels)


@pytest.mark.usefixtures("small")
def test_drawn_tasks_part_the_rows_of_the_one_client(folder):
    """Every row of the client is in one task, in its order, and its local label names the class of its old label."""
    whole, tasks = load_client(data(folder, grouping="all"), 0), [load_task(stream(folder), 0, index) for index in range(20)]
    assert sorted(name for task in tasks for name in task.subgroup.classes) == list(CLASSES)
    assert {task.subgroup.classes for task in tasks}.isdisjoint(SUPERCLASSES.values())
    for split, each in (("train", 8), ("val", 2), ("test", TEST)):
        rows = getattr(whole, split)
        assert len(rows) == 100 * each
        for task in tasks:
            mine, names = getattr(task, split), task.subgroup.classes
            wanted = [i for i, label in enumerate(rows.labels) if whole.subgroup.classes[label] in names]
            assert len(wanted) == 5 * each
            assert torch.equal(mine.inputs, rows.inputs[wanted])
            assert [names[i] for i in mine.labels] == [whole.subgroup.classes[i] for i in rows.labels[wanted]]


def test_a_row_is_two_labels_and_three_planes_of_rows(tmp_path):
    row = np.zeros(ROW_BYTES, dtype=np.uint8)
    row[:2] = 4, 0  # fruit_and_vegetables, apple
    row[2] = 11  # red, first row, first column
    row[2 + 1] = 12  # red, first row, second column
    row[2 + 32] = 13  # red, second row, first column
    row[2 + 1024] = 14  # green, first row, first column
    row[2 + 2048 + 1023] = 15  # blue, last row, last column
    other = np.zeros(ROW_BYTES, dtype=np.uint8)
    other[:2] = 13, 99
    path = tmp_path / "rows.bin"
    path.write_bytes(row.tobytes() + other.tobytes())
    rows = cifar100.read(path)
    assert rows.images.shape == (2, 3, 32, 32)
    assert rows.images.dtype == np.uint8
    assert (rows.coarse.tolist(), rows.fine.tolist()) == ([4, 13], [0, 99])
    places = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (2, 31, 31)]
    assert [int(rows.images[0][place]) for place in places] == [11, 12, 13, 14, 15]
    assert int(rows.images.astype(int).sum()) == 11 + 12 + 13 + 14 + 15
    with pytest.raises(ValueError, match="read-only"):
        rows.images[0, 0, 0, 0] = 1


@pytest.mark.usefixtures("small")
def test_splits_are_stratified_and_apart(folder):
    client = load_client(data(folder, val_fraction=0.2), 3)
    assert client.subgroup.classes == SUPERCLASSES["food_containers"]
    for split, each in ((client.train, 8), (client.val, 2), (client.test, TEST)):
        assert split.inputs.dtype == torch.uint8
        assert split.inputs.shape == (5 * each, 3, 32, 32)
        assert torch.bincount(split.labels).tolist() == [each] * 5
    train, val, test = images(client.train), images(client.val), images(client.test)
    assert len(train | val | test) == 5 * (TRAIN + TEST)
    # Rows of the test file, and they alone, are the test split.
    rows = np.frombuffer((folder / FOLDER / "test.bin").read_bytes(), dtype=np.uint8).reshape(-1, ROW_BYTES)
    assert test == {row[2:].tobytes() for row in rows if row[0] == 3}


@pytest.mark.usefixtures("small")
def test_labels_are_places_in_the_superclass(folder):
    client = load_client(data(folder), 13)
    rows = np.frombuffer((folder / FOLDER / "train.bin").read_bytes(), dtype=np.uint8).reshape(-1, ROW_BYTES)
    class_of = {row[2:].tobytes(): CLASSES[row[1]] for row in rows}
    for image, label in zip(client.train.inputs, client.train.labels, strict=True):
        assert class_of[image.numpy().tobytes()] == client.subgroup.classes[label]


@pytest.mark.usefixtures("small")
def test_seed_and_fractions(folder):
    first, other = load_client(data(folder), 0), load_client(data(folder, seed=1), 0)
    assert images(first.val) != images(other.val)
    assert images(first.test) == images(other.test)
    assert images(load_client(data(folder), 0).val) == images(first.val)
    small = load_client(data(folder), 0, train_fraction=0.25)
    assert torch.bincount(small.train.labels).tolist() == [2] * 5
    assert images(small.train) < images(first.train)
    assert images(small.val) == images(first.val)
    with pytest.raises(DataError, match="leaves none to train on"):
        load_client(data(folder, val_fraction=0.99), 0)


@pytest.mark.usefixtures("small")
def test_a_client_cannot_write_into_the_file(folder):
    load_client(data(folder), 0).train.inputs.zero_()
    assert load_client(data(folder), 0).train.inputs.any()


def test_no_folder_and_missing_files_show_what_is_expected(tmp_path):
    with pytest.raises(DataError, match=r"needs data\.data-dir"):
        cifar100.check_files(data(""))
    write_cifar100(tmp_path, 1, 1)
    (tmp_path / FOLDER / "test.bin").unlink()
    with pytest.raises(DataError) as raised:
        cifar100.check_files(data(tmp_path))
    lines = str(raised.value).splitlines()
    assert "  cifar-100-binary/" in "\n".join(lines)
    assert [line.strip() for line in lines if "not found" in line][1:] == ["test.bin   30,740,000 bytes   <- not found"]
    assert any("train.bin   153,700,000 bytes" in line for line in lines)
    assert "https://www.cs.toronto.edu/~kriz/cifar.html" in str(raised.value)


def test_only_the_official_sizes_are_taken(folder):
    with pytest.raises(DataError, match=r"train\.bin has 3,074,000 bytes, expected 153,700,000 \(50,000 rows of 3,074\)"):
        cifar100.check_files(data(folder))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("byte", "value", "message"),
    [
        (1, 100, r"row 7 has the class 100, expected 0 to 99"),
        (0, 20, r"row 7 has the superclass 20, expected 0 to 19"),
        (0, 8, r"row 7 has the class 7 \(beetle\) and the superclass 8, expected superclass 7"),
    ],
)
def test_wrong_labels(tmp_path, byte, value, message):
    write_cifar100(tmp_path, TRAIN, TEST)
    path = tmp_path / FOLDER / "train.bin"
    content = bytearray(path.read_bytes())
    content[7 * ROW_BYTES + byte] = value
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_client(data(tmp_path), 0)


@pytest.mark.usefixtures("small")
def test_a_file_that_was_replaced_is_read_again(tmp_path):
    write_cifar100(tmp_path, TRAIN, TEST)
    before = load_client(data(tmp_path), 0)
    path = tmp_path / FOLDER / "train.bin"
    rows = np.frombuffer(path.read_bytes(), dtype=np.uint8).reshape(-1, ROW_BYTES).copy()
    rows[:, 2:] = 255 - rows[:, 2:]
    path.unlink()
    path.write_bytes(rows.tobytes())
    assert torch.equal(load_client(data(tmp_path), 0).train.inputs, 255 - before.train.inputs)


@pytest.mark.usefixtures("small")
def test_names_of_classes(tmp_path):
    write_cifar100(tmp_path, TRAIN, TEST)
    path = tmp_path / FOLDER / "fine_label_names.txt"
    path.write_text("\n".join(CLASSES).replace("_tree", ""))  # as some copies have it
    cifar100.check_files(data(tmp_path))
    path.write_text("\n".join(CLASSES[::-1]))
    with pytest.raises(DataError, match="'worm' where 'apple' is expected"):
        cifar100.check_files(data(tmp_path))
    path.write_text("\n".join(CLASSES[:50]))
    with pytest.raises(DataError, match="50 names, expected 100"):
        cifar100.check_files(data(tmp_path))
