"""The class groups of Oxford-102, CUB-200-2011 and CIFAR-10 are those of the papers, by name."""

from __future__ import annotations

import pytest

from config import CLASSES_PER_CLIENT, Data
from data_partition.group_tables import class_groups
from data_partition.subgroups import subgroups


def test_oxford():
    assert {name: [int(label[6:]) for label in classes] for name, classes in class_groups("oxford102").items()} == {
        "group1": [51, 72, 82, 60],
        "group2": [77, 65, 58, 56],
        "group3": [46, 74, 37, 80],
        "group4": [73, 41, 83, 95],
        "group5": [89, 81, 75, 76],
        "group6": [94, 88, 78, 43],
    }
    assert class_groups("oxford102")["group1"][0] == "class_00051"


def test_cub():
    groups = list(class_groups("cub").values())
    names = [name for classes in groups for name in classes]
    assert (len(groups), {len(classes) for classes in groups}, len(set(names))) == (27, {5}, 135)
    assert names == sorted(names)
    assert groups[0] == (
        "001.Black_footed_Albatross",
        "002.Laysan_Albatross",
        "004.Groove_billed_Ani",
        "009.Brewer_Blackbird",
        "010.Red_winged_Blackbird",
    )
    assert groups[13] == (
        "100.Brown_Pelican",
        "102.Western_Wood_Pewee",
        "103.Sayornis",
        "104.American_Pipit",
        "106.Horned_Puffin",
    )
    assert groups[26] == (
        "191.Red_headed_Woodpecker",
        "192.Downy_Woodpecker",
        "193.Bewick_Wren",
        "194.Cactus_Wren",
        "195.Carolina_Wren",
    )
    # Species with fewer than 60 images.
    assert not {3, 5, 6, 7, 8, 12} & {int(name[:3]) for name in names}


def test_cifar10():
    assert list(class_groups("cifar10").values()) == [
        ("airplane", "automobile"),
        ("bird", "cat"),
        ("deer", "dog"),
        ("frog", "horse"),
        ("ship", "truck"),
    ]


@pytest.mark.parametrize(
    ("dataset", "grouping", "clients"),
    [
        ("oxford102", "seed", 6 + 6),
        ("oxford102", "all", 1 + 1),
        ("cub", "seed", 27 + 27),
        ("cub", "all", 1 + 1),
        ("coco", "seed", 15 + 15),
        ("n24news", "seed", 6 + 6),
        ("cifar10", "pairs", 5),
        ("cifar10", "all", 1),
    ],
)
def test_clients_without_a_file(dataset, grouping, clients):
    """Images first, then texts with the same classes; the config knows how many classes a client has."""
    found = subgroups(Data(dataset=dataset, grouping=grouping))
    images = [one for one in found if one.modality == "image"]
    texts = found[len(images) :]
    assert (len(found), [one.partition_id for one in found]) == (clients, list(range(clients)))
    assert {one.modality for one in texts} <= {"text"}
    assert [(one.group, one.classes) for one in images] == [(i, one.classes) for i, one in enumerate(texts or images)]
    assert {len(one.classes) for one in found} == {CLASSES_PER_CLIENT[dataset][grouping]}
    assert not any(set(one.classes) & set(other.classes) for one in images for other in images if one is not other)


def test_devices_and_a_missing_modality():
    fields = {"dataset": "oxford102", "grouping": "seed", "partitioner": "iid", "devices_per_group": 3}
    found = subgroups(Data(**fields))
    assert [(one.group, one.domain_index) for one in found[:4]] == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert len(found) == 36
    texts = subgroups(Data(**fields, modalities="text"))
    assert {one.modality for one in texts} == {"text"}
    assert [one.partition_id for one in texts] == list(range(18))
    assert [one.classes for one in texts] == [one.classes for one in found[18:]]
    images = subgroups(Data(modalities="image"))
    assert images == subgroups(Data())[:6]
