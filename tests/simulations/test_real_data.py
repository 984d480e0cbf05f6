"""Real data sets through the whole app: clients learn, and rows that cannot be used are in the manifest."""

from __future__ import annotations

import json

import pytest

from data_partition.files import DataError
from strategies.protocol import RunError
from tests.data_partition.trees import cut_short, example, write_cub, write_jpeg, write_oxford
from tests.simulations.helpers import run

OXFORD = {
    "data.dataset": "oxford102",
    "data.grouping": "seed",
    "data.image-size": 32,
    "data.train-fraction": 1.0,
    "data.clients": "0,6",
    "strategy.control": False,
}


@pytest.mark.parametrize(("modality", "per_class", "accuracy"), [("image", 32, 0.45), ("text", 16, 0.7)])
def test_clients_learn_what_holds_for_other_items(modality, per_class, accuracy, tmp_path):
    data_dir = write_oxford(tmp_path / "data", per_class, groups=2)
    own = {"data.modalities": modality, "data.clients": "0,1", "data.augment": False, "train.batch-size": 16}
    folder = run(tmp_path, **{**OXFORD, **own, "data.data-dir": str(data_dir), "run.rounds": 5, "train.epochs": 4})
    rows = json.loads((folder / "results.json").read_text())["clients"]
    assert [(row["client"], row["modality"], row["classes"]) for row in rows] == [(0, modality, 4), (1, modality, 4)]
    assert sum(row["accuracy"] for row in rows) / 2 >= accuracy  # chance is 0.25
    assert "bad_rows" not in json.loads((folder / "manifest.json").read_text())


def test_bad_rows_are_counted_and_listed(tmp_path):
    data_dir = write_oxford(tmp_path / "data", per_class=6, groups=1)
    cut_short(data_dir / "jpg" / "image_00006.jpg")
    write_jpeg(data_dir / "jpg" / "image_00001.jpg", example(0, 0).pixels, "L")
    write_jpeg(data_dir / "jpg" / "image_00002.jpg", example(1, 0).pixels, "CMYK")
    (data_dir / "text_c10" / "class_00051" / "image_00001.txt").unlink()
    flat = {**OXFORD, "data.data-dir": str(data_dir), "run.rounds": 1}
    with pytest.raises((DataError, RunError), match=r"[12] of 4[78] rows cannot be used"):
        run(tmp_path, "strict", **flat)
    folder = run(tmp_path, **flat, **{"data.max-bad-fraction": 0.05})
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "completed"
    assert manifest["bad_rows"]["count"] == 2
    first, second = manifest["bad_rows"]["rows"]
    assert first == "image_00001 (text): there are no captions in text_c10/class_00051"
    assert second.startswith("image_00006 (image): jpg/image_00006.jpg: ")
    assert str(tmp_path) not in second


def test_devices_of_a_group_and_a_missing_modality(tmp_path):
    pytest.importorskip("flwr_datasets")
    data_dir = write_cub(tmp_path / "data", per_class=8, groups=1)
    flat = {
        **OXFORD,
        "data.dataset": "cub",
        "data.data-dir": str(data_dir),
        "data.partitioner": "dirichlet",
        "data.devices-per-group": 2,
        "data.modalities": "text",
        "data.clients": "0,1",
        "run.rounds": 1,
    }
    results = json.loads((run(tmp_path, **flat) / "results.json").read_text())
    assert [(row["client"], row["modality"]) for row in results["clients"]] == [(0, "text"), (1, "text")]
