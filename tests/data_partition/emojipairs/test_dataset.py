"""The shipped file is what the documents say it is."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from data_partition.emojipairs import catalogue
from data_partition.emojipairs.dataset import load
from data_partition.text import VOCAB_SIZE


@pytest.fixture(scope="module")
def table():
    return load()


def test_counts(table):
    assert len(table.concepts) == 723
    assert table.is_test.sum() == 179
    assert table.images.inputs.shape == (3950, 3, 32, 32)
    assert len(table.texts.inputs) == 7226
    assert Counter(table.images.domains.tolist()) == {
        "noto": 723, "noto-v1": 531, "twemoji": 723, "emojione": 528, "fluent": 723, "fluent-flat": 722
    }  # fmt: skip
    texts = Counter(table.texts.domains.tolist())
    assert texts.pop("emojimart-en") == 719
    assert set(texts) == set(catalogue.TEXT_SOURCES) - {"emojimart-en"}
    assert set(texts.values()) == {723}


def test_every_class_has_16_to_40_concepts_and_4_for_the_test(table):
    counts = np.bincount(table.concept_labels, minlength=24)
    assert counts.min() == 16
    assert counts.max() == 40
    assert np.bincount(table.concept_labels[table.is_test]).min() == 4


def test_rows_agree_with_their_concept(table):
    for rows in (table.images, table.texts):
        assert (rows.labels == table.concept_labels[rows.concepts]).all()
        assert (np.bincount(rows.concepts) > 0).all()


def test_arrays_are_decoded_once_and_read_only(table):
    assert load() is table
    assert table.images.inputs.dtype == np.uint8
    assert table.texts.inputs.dtype == np.int64
    assert 0 <= table.texts.inputs.min() < table.texts.inputs.max() < VOCAB_SIZE
    assert table.images.inputs[:, :, 0, 0].mean() > 200  # corners are white
    with pytest.raises(ValueError, match="read-only"):
        table.images.inputs[0] = 0


def test_no_test_input_is_also_a_training_input(table):
    for rows in (table.images, table.texts):
        is_test = table.is_test[rows.concepts]
        seen = {row.tobytes() for row in rows.inputs[~is_test]}
        repeated = sum(row.tobytes() in seen for row in rows.inputs[is_test & ~np.char.startswith(rows.domains, "cldr-")])
        assert repeated == 0


def test_the_catalogue_has_six_themes_of_four():
    assert [len(classes) for classes in catalogue.THEMES.values()] == [4] * 6
    assert len(set(catalogue.CLASSES)) == 24
