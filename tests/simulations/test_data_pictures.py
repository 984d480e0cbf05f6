"""The contact sheet has the pixels of its samples in their places, and the darkest cell of the plot the most examples."""

from __future__ import annotations

import numpy as np

from data_partition.rows import Sample
from simulations.data_pictures import TILE, contact_sheet, label_plot, shorten, wrap


def sample(value: int, side: int = 32, text: str = "") -> Sample:
    return Sample(np.random.default_rng(value).integers(0, 256, (3, side, side), dtype=np.uint8), text)


def test_each_sample_is_in_its_box():
    found = [sample(index) for index in range(5)]
    groups = {"one": {"a": found[:2], "b": found[2:4]}, "two": {"c": found[4:], "d": []}}
    sheet, boxes = contact_sheet(groups)
    assert len(boxes) == 5
    shown = np.asarray(sheet)
    for one, box in zip(found, boxes, strict=True):
        tile = shown[box.top : box.bottom, box.left : box.right]
        assert tile.shape == (TILE, TILE, 3)
        np.testing.assert_array_equal(tile[1::3, 1::3].transpose(2, 0, 1), one.pixels)
    assert len({box[:2] for box in boxes}) == 5


def test_sizes_that_do_not_divide_a_tile_and_texts_alone():
    sheet, boxes = contact_sheet({"g": {"a": [sample(0, 224, "some words"), Sample(None, "a text without an image")]}})
    shown = np.asarray(sheet)
    first, second = (shown[box.top : box.bottom, box.left : box.right] for box in boxes)
    assert abs(float(first.mean()) - 127.5) < 8
    assert len(np.unique(second)) > 2  # a grey box with letters
    below = shown[boxes[0].bottom + 1 : boxes[0].bottom + 14, boxes[0].left : boxes[0].right]
    assert below.min() < 100
    assert contact_sheet({})[1] == []


def test_the_more_examples_the_darker():
    plot, boxes = label_plot(["x", "y"], ["a", "b", "c"], [{"a": 10, "b": 5}, {"b": 0, "c": 10}])
    shown = np.asarray(plot.convert("L")).astype(int)

    def corner(row: int, column: int) -> int:
        box = boxes[row][column]
        return int(shown[box.top + 1, box.left + 1])

    assert corner(0, 0) == corner(1, 2) < corner(0, 1) < corner(0, 2) < corner(1, 1) == 255
    many, cells = label_plot([f"client {index}" for index in range(2000)], ["a"], [{"a": 1}] * 2000)
    assert many.height < 9000
    assert len(cells) == 2000
    assert label_plot([], [], [])[1] == []


def test_texts_are_broken_and_cut():
    assert wrap("one two", 400, 3) == ["one two"]
    lines = wrap("word " * 50, 80, 3)
    assert len(lines) == 3
    assert lines[-1].endswith("…")
    assert shorten("", 5) == ""
