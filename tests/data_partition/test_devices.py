"""Dealing items to devices: each item once, and by the rule of the partitioner."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from config import Data
from data_partition.devices import deal
from data_partition.files import DataError

LABELS = [f"class {index % 5}" for index in range(200)]
DOMAINS = [("paper", "photo", "wood")[index % 3] for index in range(200)]


def settings(kind, devices=4, **fields):
    return Data(dataset="hf", grouping="own", partitioner=kind, devices_per_group=devices, **fields)


def counts(devices, number=4):
    """Items of each class (columns) on each device (rows)."""
    found = np.zeros((number, 5), dtype=int)
    for device, label in zip(devices, LABELS, strict=True):
        found[device, int(label[-1])] += 1
    return found


def test_one_device_needs_no_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert deal(Data(dataset="hf", grouping="own"), LABELS, DOMAINS).tolist() == [0] * 200
    with pytest.raises(DataError, match=r"'iid' needs flwr-datasets.*pip install -e '\.\[data\]'"):
        deal(settings("iid"), LABELS, DOMAINS)


def test_iid_deals_in_equal_parts():
    pytest.importorskip("flwr_datasets")
    assert np.bincount(deal(settings("iid"), LABELS, DOMAINS)).tolist() == [50] * 4


def test_dirichlet_is_more_even_with_a_larger_alpha_and_follows_the_seed():
    pytest.importorskip("flwr_datasets")
    uneven = deal(settings("dirichlet", alpha=0.1), LABELS, DOMAINS)
    even = deal(settings("dirichlet", alpha=1000.0), LABELS, DOMAINS)
    assert counts(uneven).sum() == counts(even).sum() == 200
    assert np.abs(counts(even) - 10).max() <= 2
    assert counts(uneven).max() >= 30
    assert np.array_equal(deal(settings("dirichlet", alpha=0.1), LABELS, DOMAINS), uneven)
    assert not np.array_equal(deal(settings("dirichlet", alpha=0.1, seed=1), LABELS, DOMAINS), uneven)


def test_pathological_gives_a_device_some_classes():
    pytest.importorskip("flwr_datasets")
    found = counts(deal(settings("pathological", 6, classes_per_device=2), LABELS, DOMAINS), 6)
    assert ((found > 0).sum(axis=1) == 2).all()
    assert (found.sum(axis=0) == 40).all()
    few = deal(settings("pathological", 2, classes_per_device=1), LABELS, DOMAINS)
    assert np.bincount(few + 1).tolist() == [120, 40, 40]  # three classes have nobody
    with pytest.raises(DataError, match=r"'pathological' cannot deal 200 items: .*num_classes_per_partition"):
        deal(settings("pathological", 2, classes_per_device=6), LABELS, DOMAINS)


def test_a_domain_is_a_device():
    pytest.importorskip("flwr_datasets")
    assert [("paper", "photo", "wood")[device] for device in deal(settings("domain", 3), LABELS, DOMAINS)] == DOMAINS
    with pytest.raises(DataError, match=r"= 2 needs as many domains, found 3: 'paper', 'photo', 'wood'"):
        deal(settings("domain", 2), LABELS, DOMAINS)
    with pytest.raises(DataError, match="found 2: '', 'photo'"):
        deal(settings("domain", 2), LABELS[:2], ["", "photo"])


def test_too_few_items():
    with pytest.raises(DataError, match="3 training items cannot be dealt to 4 devices"):
        deal(settings("iid"), LABELS[:3], DOMAINS[:3])
