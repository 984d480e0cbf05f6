"""From the files of real data sets to clients: splits by item, devices, bad rows, and one decoding for all.

Each tree has the official format, with drawings and words of emojipairs in it.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch

from config import Data
from data_partition import decoded, listed, pictures, readers, store
from data_partition.cache_folder import cache_folder
from data_partition.client_data import load_client
from data_partition.datasets import DATASETS
from data_partition.files import DataError
from data_partition.group_tables import class_groups
from data_partition.mapped_images import MappedImages
from data_partition.streams import load_task
from tests.data_partition.helpers import OFFSET, bert_entries, items_of, write_entries
from tests.data_partition.trees import cut_short, write_cifar10, write_cub, write_oxford

TREES = {
    "cub": (write_cub, {"grouping": "seed", "image_size": 32}),
    "oxford102": (write_oxford, {"grouping": "seed", "image_size": 32}),
    "cifar10": (write_cifar10, {"grouping": "pairs"}),
}
CLIENTS = {"cub": (0, 1, 27, 28), "oxford102": (0, 1, 6, 7), "cifar10": (0, 1, 2, 3, 4)}


@pytest.fixture(scope="module")
def trees(tmp_path_factory) -> dict[str, Path]:
    return {name: write(tmp_path_factory.mktemp(name)) for name, (write, _) in TREES.items()}


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def warm(shared_cache, monkeypatch):
    """A cache that the tests of this file share: those that do not look at how it comes to be."""
    monkeypatch.setenv("BACKPACK_CACHE", str(shared_cache))


def settings(trees, name, **fields):
    own = {"train_fraction": 1.0, "val_fraction": 0.3, **({} if name == "cifar10" else {"max_tokens": 60}), **TREES[name][1]}
    return Data(dataset=name, data_dir=str(trees[name]), **{**own, **fields})


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("name", TREES)
def test_shapes_labels_and_counts(trees, name):
    data = settings(trees, name)
    for client in CLIENTS[name]:
        found = load_client(data, client)
        subgroup, number = found.subgroup, len(found.subgroup.classes)
        for split in (found.train, found.val, found.test):
            if subgroup.modality == "image":
                assert isinstance(split.inputs, MappedImages)
                assert (split.inputs.shape[1:], split.inputs.dtype) == ((3, 32, 32), torch.uint8)
            else:
                assert (split.inputs.shape[1:], split.inputs.dtype) == ((60,), torch.int64)
                assert (split.inputs[:, 0] != 0).all()
            assert split.labels.dtype == torch.int64
            assert split.labels.unique().tolist() == list(range(number))
        each = {split: torch.bincount(getattr(found, split).labels).tolist() for split in ("train", "val", "test")}
        if name == "cifar10":  # 20 and 2 of a class, official
            assert each == {"train": [14] * 2, "val": [6] * 2, "test": [2] * 2}
        else:  # 6 of a class: a fifth is tested, 0.3 of the others validate
            assert each == {"train": [3] * number, "val": [2] * number, "test": [1] * number}


@pytest.mark.usefixtures("warm")
def test_twins_of_both_modalities_own_the_same_items(trees):
    data = settings(trees, "cub")
    image, text = load_client(data, 1), load_client(data, 28)
    assert image.subgroup.classes == text.subgroup.classes
    for split in ("train", "val", "test"):
        assert items_of(data, image.subgroup, getattr(image, split)) == items_of(data, text.subgroup, getattr(text, split))


@pytest.mark.usefixtures("warm")
def test_labels_are_places_in_the_group_and_texts_go_with_their_class(trees):
    data = settings(trees, "oxford102")
    for client in (0, 7):
        found = load_client(data, client)
        class_of = {row.item: row.label for name in found.subgroup.classes for row in store.open_store(data).rows(name)}
        for split in (found.train, found.val, found.test):
            items = items_of(data, found.subgroup, split)
            assert [class_of[item] for item in items] == [found.subgroup.classes[label] for label in split.labels]


@pytest.mark.usefixtures("warm")
def test_the_seed_moves_validation_and_not_the_test_and_a_late_joiner_gets_a_subset(trees):
    data = settings(trees, "oxford102")
    first, other = load_client(data, 0), load_client(settings(trees, "oxford102", seed=1), 0)
    assert torch.equal(first.test.inputs, other.test.inputs)
    assert not torch.equal(first.val.inputs, other.val.inputs)
    late = load_client(data, 0, train_fraction=0.3)
    assert torch.bincount(late.train.labels).tolist() == [1] * 4
    assert set(items_of(data, late.subgroup, late.train)) < set(items_of(data, first.subgroup, first.train))
    assert torch.equal(late.val.inputs, first.val.inputs)


@pytest.mark.usefixtures("warm")
def test_a_task_has_the_rows_of_its_classes(trees):
    data = settings(trees, "oxford102", tasks_per_client=2)
    whole = load_client(settings(trees, "oxford102"), 0)
    class_of = dict(zip(items_of(data, whole.subgroup, whole.train), whole.train.labels.tolist(), strict=True))
    tasks = [load_task(data, 0, index) for index in range(2)]
    assert sorted(name for task in tasks for name in task.subgroup.classes) == sorted(whole.subgroup.classes)
    for task in tasks:
        wanted = [item for item, label in class_of.items() if whole.subgroup.classes[label] in task.subgroup.classes]
        assert items_of(data, task.subgroup, task.train) == wanted


@pytest.mark.usefixtures("warm")
def test_one_client_of_all_classes_has_the_rows_of_all(trees, monkeypatch):
    monkeypatch.setitem(readers.CLASSES_PER_CLIENT["oxford102"], "all", 8)
    monkeypatch.setattr(readers, "class_groups", lambda name: dict(list(class_groups(name).items())[:2]))
    everyone = load_client(settings(trees, "oxford102", grouping="all"), 0)
    parts = [load_client(settings(trees, "oxford102"), client) for client in (0, 1)]
    assert everyone.subgroup.classes == parts[0].subgroup.classes + parts[1].subgroup.classes
    assert len(everyone.train) == sum(len(part.train) for part in parts)


@pytest.mark.parametrize(
    ("kind", "more"), [("iid", {}), ("dirichlet", {"alpha": 1.0}), ("pathological", {"classes_per_device": 2})]
)
def test_devices_share_the_training_items_of_their_group(trees, warm, monkeypatch, kind, more):
    pytest.importorskip("flwr_datasets")
    whole = load_client(settings(trees, "oxford102"), 0)
    data = settings(trees, "oxford102", partitioner=kind, devices_per_group=2, seed=3, **more)
    whole_items = Counter(items_of(data, whole.subgroup, load_client(settings(trees, "oxford102", seed=3), 0).train))
    images, texts = [load_client(data, client) for client in (0, 1)], [load_client(data, client) for client in (12, 13)]
    owned = Counter(item for one in images for item in items_of(data, one.subgroup, one.train))
    assert max(owned.values()) == 1
    if kind == "pathological":
        assert all(len(one.train.labels.unique()) == 2 for one in images)
    else:
        assert owned == whole_items
    for image, text in zip(images, texts, strict=True):
        assert items_of(data, image.subgroup, image.train) == items_of(data, text.subgroup, text.train)
        tested = image.test.labels.unique().tolist()
        assert tested == image.train.labels.unique().tolist() == image.val.labels.unique().tolist()
        assert len(image.test) == len(tested)
    # What was dealt is kept: it does not depend on the library, which is not needed again.
    monkeypatch.setattr(listed, "deal", lambda *_: pytest.fail("dealt again"))
    again = load_client(data, 1)
    assert torch.equal(again.train.inputs, images[1].train.inputs)


def test_images_are_decoded_once_and_texts_never_decode_any(trees, monkeypatch):
    calls = []
    decode = pictures.decode
    monkeypatch.setattr(pictures, "decode", lambda *args: calls.append(1) or decode(*args))
    data = settings(trees, "cub")
    first = load_client(data, 28)
    assert calls == []
    assert (first.train.inputs != 0).any()
    before = load_client(data, 0)
    assert len(calls) == 60
    store._read_store.cache_clear()
    decoded._read_pixels.cache_clear()
    assert torch.equal(load_client(data, 0).train.inputs, before.train.inputs)
    load_client(data, 1)
    assert len(calls) == 60


def test_the_cache_follows_the_files_and_moves_with_them(trees, tmp_path):
    root = Path(shutil.copytree(trees["oxford102"], tmp_path / "one"))
    places = {"oxford102": root}
    before = load_client(settings(places, "oxford102"), 0)
    first = {path.name for path in cache_folder().iterdir() if path.suffix != ".note"}
    moved = {"oxford102": root.rename(tmp_path / "other")}
    assert torch.equal(load_client(settings(moved, "oxford102"), 0).train.inputs, before.train.inputs)
    assert {path.name for path in cache_folder().iterdir() if path.suffix != ".note"} == first
    item = items_of(settings(moved, "oxford102"), before.subgroup, before.test)[0]
    image = moved["oxford102"] / "jpg" / f"{item}.jpg"
    other = moved["oxford102"] / "jpg" / "image_00002.jpg"
    image.unlink()
    shutil.copy(other, image)
    after = load_client(settings(moved, "oxford102"), 0)
    assert not torch.equal(after.test.inputs, before.test.inputs)
    assert torch.equal(after.test.inputs[1:], before.test.inputs[1:])
    assert torch.equal(after.train.inputs, before.train.inputs)


def test_a_file_that_is_written_over_in_place_is_decoded_again(trees, tmp_path):
    """The folder is as old as before; the client looks at its own files."""
    root = Path(shutil.copytree(trees["oxford102"], tmp_path / "one"))
    for path in (root, *root.rglob("*")):
        os.utime(path, ns=(10**18, 10**18))
    data = settings({"oxford102": root}, "oxford102")
    before = load_client(data, 0), load_client(data, 6)
    assert len(list(cache_folder().glob("*.note"))) == 1
    item = items_of(data, before[0].subgroup, before[0].test)[0]
    (root / "jpg" / f"{item}.jpg").write_bytes((root / "jpg" / "image_00002.jpg").read_bytes())
    after = load_client(data, 0)
    assert not torch.equal(after.test.inputs[0], before[0].test.inputs[0])
    assert torch.equal(after.test.inputs[1:], before[0].test.inputs[1:])
    (root / "text_c10" / before[0].subgroup.classes[0] / f"{item}.txt").write_text("red red red")
    assert (load_client(data, 6).test.inputs[0] != 0).sum() == 3


def start(data_dir: str, client: int, barrier, answers) -> None:
    data = Data(dataset="oxford102", grouping="seed", data_dir=data_dir, train_fraction=1.0, val_fraction=0.3, image_size=32)
    calls = []
    decode = pictures.decode
    pictures.decode = lambda *args: calls.append(1) or decode(*args)
    barrier.wait()
    answers.put((client, int(load_client(data, client).train.inputs.long().sum()), len(calls)))


def test_many_processes_start_at_once(trees):
    """One of them decodes, and all get the same pixels."""
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(4), context.SimpleQueue()
    workers = [
        context.Process(target=start, args=(str(trees["oxford102"]), index % 2, barrier, answers)) for index in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    found = [answers.get() for _ in workers]
    assert len({(client, total) for client, total, _ in found}) == 2
    assert sorted(count for _, _, count in found) == [0, 0, 0, 48]
    assert not list(cache_folder().glob("*.part-*"))


def test_bad_images_are_left_out_in_their_modality_alone(trees, tmp_path):
    root = Path(shutil.copytree(trees["cub"], tmp_path / "cub"))
    places = {"cub": root}
    before = load_client(settings(places, "cub", max_bad_fraction=0.05), 0)
    images = sorted((root / "CUB_200_2011" / "images" / before.subgroup.classes[0]).iterdir())
    cut_short(images[0])
    images[1].unlink()
    with pytest.raises(DataError) as raised:
        load_client(settings(places, "cub"), 0)
    for words in ("2 of 120 rows cannot be used (1.67%)", "0.001 allows 0", images[0].stem, "is not there", "no whole image"):
        assert words in str(raised.value)
    with pytest.raises(DataError, match="2 of 120"):
        load_client(settings(places, "cub"), 1)  # a client of other classes too: the data set is the same
    data = settings(places, "cub", max_bad_fraction=0.017)
    after = load_client(data, 0)
    assert sum(map(len, (after.train, after.val, after.test))) == 5 * 6 - 2
    text = load_client(data, 27)
    assert sum(map(len, (text.train, text.val, text.test))) == 5 * 6
    left = {item for split in ("train", "val", "test") for item in items_of(data, after.subgroup, getattr(after, split))}
    assert left.isdisjoint({f"{before.subgroup.classes[0]}/{path.stem}" for path in images[:2]})
    told = DATASETS["cub"].bad_rows(data, "image")
    assert [fault.item for fault in told] == [f"{before.subgroup.classes[0]}/{path.stem}" for path in images[:2]]
    assert not any(str(tmp_path) in fault.reason for fault in told)
    assert DATASETS["cub"].bad_rows(data, "text") == ()


def test_a_full_disk_is_said_before_it_is_full(trees, monkeypatch):
    monkeypatch.setattr(decoded.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 1000))
    with pytest.raises(DataError, match=r"60 decoded images need .* GiB.*BACKPACK_CACHE"):
        load_client(settings(trees, "cub"), 0)
    assert [path for path in cache_folder().iterdir() if path.name.endswith("-32")] == []


def test_pixels_that_were_changed_are_refused(trees):
    data = settings(trees, "oxford102")
    load_client(data, 0)
    (path,) = cache_folder().glob("*-32/pixels")
    path.write_bytes(path.read_bytes()[:-1])
    decoded._read_pixels.cache_clear()
    with pytest.raises(DataError, match="was changed after it was written: delete it"):
        load_client(data, 0)


def test_the_vocabulary_of_bert(trees, tmp_path):
    vocab = write_entries(tmp_path / "vocab.txt", bert_entries())
    small, large = load_client(settings(trees, "cub"), 27), load_client(settings(trees, "cub", vocab_file=str(vocab)), 27)
    known = small.train.inputs > 5  # no special token
    assert torch.equal(large.train.inputs[known], small.train.inputs[known] + OFFSET)
    with pytest.raises(DataError, match="none is not a file"):
        load_client(settings(trees, "cub", vocab_file=str(tmp_path / "none")), 27)


def test_a_text_is_cut_or_padded(trees):
    short, wide = (load_client(settings(trees, "cub", max_tokens=length), 27) for length in (4, 300))
    assert torch.equal(wide.train.inputs[:, :4], short.train.inputs)
    assert wide.train.inputs.shape[1] == 300
    assert (wide.train.inputs[:, -1] == 0).all()
