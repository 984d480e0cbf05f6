"""``backpack data``: counts that can be checked by hand, what is not there, what is not used, and an honest exit code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from config import PROJECT_ROOT, ConfigError
from data_partition import cifar100
from simulations import data_look
from tests.data_partition.helpers import write_cifar100
from tests.data_partition.record_trees import (
    n24news_records,
    write_coco,
    write_folder,
    write_n24news,
    write_parquet,
)
from tests.data_partition.trees import cut_short, example, write_cifar10, write_cub, write_jpeg, write_oxford

SMALL = ["data.train-fraction=1.0", "data.val-fraction=0.3"]


def write_hf(root: Path) -> Path:
    """Three classes with 12, 9 and 6 rows, without a split: texts alone."""
    rows = [(label, index) for label, number in enumerate((12, 9, 6)) for index in range(number)]
    columns = {
        "text": ["\n".join(example(*row).lines) + f" {row[1]}" for row in rows],
        "label": ["abc"[row[0]] for row in rows],
    }
    write_parquet(root / "all.parquet", columns)
    return root


def write_news(root: Path) -> Path:
    """Six articles of each section; one of another section has the image of the first."""
    records = n24news_records(6)
    records.append({**records[-7], "headline": "another one", "image_id": records[0]["image_id"]})
    assert records[-1]["section"] not in (records[0]["section"], "Your Money")
    return write_n24news(root, records)


SETS: dict[str, tuple[Callable[[Path], object], list[str], tuple[str, ...]]] = {
    # a fifth is tested, 0.3 of the others validate: of 6 items 3 train, 2 validate, 1 is tested
    "cub": (write_cub, ["data.clients=0,1,27,28", "data.image-size=32"], ("27 groups", "135 classes", "│ 30 │  20 │   10 │")),
    "oxford102": (write_oxford, ["data.clients=0,1,6,7"], ("6 groups", "24 classes", "│ 24 │  16 │    8 │")),
    "cifar10": (write_cifar10, [], ("5 groups", "10 classes", "140 │        60 │         20")),
    "cifar100": (lambda root: write_cifar100(root, 10), [], ("20 groups", "100 classes", "700 │       300 │        200")),
    "coco": (write_coco, ["data.clients=0,1,15,16"], ("15 groups", "60 classes", "│ 24 │ 12 │ 8 │")),
    "n24news": (
        write_news,
        ["data.image-size=32"],
        ("6 groups", "18 classes", "Art_Design", "left out by the rules of data_partition/n24news.py, not counted as bad: 1"),
    ),
    "folder": (write_folder, [], ("3 groups", "9 classes", "group10", "│ ibis")),
    "hf": (write_hf, ["data.modalities=text"], ("1 groups", "3 classes", "imbalance of texts: 2.33", "(a: 7)", "(c: 3)")),
}


@pytest.mark.parametrize("name", SETS)
def test_every_real_data_set_can_be_looked_at(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(cifar100, "ROWS", {"train": 1000, "test": 200})
    write, own, words = SETS[name]
    write(tmp_path / "files")
    data_look.main(name, str(tmp_path / "files"), [*SMALL, *own], tmp_path / "out")
    told = capsys.readouterr().out
    for word in (*words, "bad rows: 0 of") if name != "cifar100" else words:
        assert " ".join(word.split()) in " ".join(told.split()), told
    for file in ("contact-sheet.png", "labels.png"):
        assert np.asarray(Image.open(tmp_path / "out" / file)).std() > 5
        assert str(tmp_path / "out" / file) in told


def test_the_shipped_data_set_and_a_simulation_config(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    data_look.main("emojipairs", "", [], tmp_path)
    told = capsys.readouterr().out
    assert "emojipairs: 2 groups (data.grouping = 'tri'), 24 classes" in told
    assert "2,360 │ 609 │ 981 │ 1,305 │ 324 │ 536" in " ".join(told.split())
    sizes = [Image.open(tmp_path / file).size for file in ("contact-sheet.png", "labels.png")]
    config = PROJECT_ROOT / "simulations" / "backpack_mixed.toml"
    data_look.main(str(config), "", ["data.clients=0,1"], tmp_path)
    told = capsys.readouterr().out
    assert "6 groups (data.grouping = 'mixed'), 24 classes" in told
    assert "in place of an older one" in told
    assert [Image.open(tmp_path / file).size for file in ("contact-sheet.png", "labels.png")] != sizes


@pytest.mark.parametrize("name", [*SETS])
def test_what_is_not_there_is_drawn_and_nothing_is_written(name, tmp_path):
    (tmp_path / "files").mkdir()
    with pytest.raises(ConfigError) as raised:
        data_look.main(name, str(tmp_path / "files"), [], tmp_path / "out")
    for words in (str(tmp_path / "files"), "not found", "xpected"):
        assert words in str(raised.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match=r"data\.data-dir"):
        data_look.main(name, "", [], tmp_path / "out")


def test_bad_rows_are_shown_and_too_many_of_them_are_a_fault(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    root = write_oxford(tmp_path / "files", groups=1)
    cut_short(root / "jpg" / "image_00001.jpg")
    (root / "text_c10" / "class_00051" / "image_00001.txt").unlink()
    words = ["oxford102", str(root), [*SMALL, "data.clients=0,6"], tmp_path / "out"]
    with pytest.raises(ConfigError, match=r"more bad rows than data\.max-bad-fraction = 0\.001 allows"):
        data_look.main(*words)
    told = capsys.readouterr().out
    assert "bad rows: 2 of 48 (4.17%); data.max-bad-fraction = 0.001" in told
    assert "  - image_00001 (image): jpg/image_00001.jpg: " in told
    assert (tmp_path / "out" / "labels.png").exists()
    write_jpeg(root / "jpg" / "image_00001.jpg", example(0, 0).pixels)
    data_look.main(*words[:2], [*words[2], "data.max-bad-fraction=0.05"], tmp_path / "out")
    assert "bad rows: 1 of 48" in capsys.readouterr().out  # put right in its place


def test_a_client_without_examples_is_a_fault(tmp_path):
    root = write_cub(tmp_path / "files", groups=1)
    with pytest.raises(ConfigError, match=r"a run with these settings would stop:\nclient 1: .*no row of the class"):
        data_look.main("cub", str(root), [*SMALL, "data.clients=0,1", "data.image-size=32"], tmp_path / "out")
