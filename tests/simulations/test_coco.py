"""The whole app in one process on a small COCO: an image and a text client of one class group learn."""

from __future__ import annotations

import json

from config import parse
from simulations import inprocess
from tests.data_partition.record_trees import write_coco


def test_clients_learn_from_the_official_files(tmp_path):
    """Balanced test accuracy of 4 classes with fixed seeds; the 26 items of a class are of different concepts."""
    flat = {
        "run.output-dir": str(tmp_path),
        "run.name": "run",
        "run.rounds": 4,
        "run.evaluate-every": 0,
        "data.dataset": "coco",
        "data.grouping": "seed",
        "data.data-dir": str(write_coco(tmp_path / "coco", train=20, val=6, groups=1, skipped=4)),
        "data.image-size": 32,
        "data.clients": "4,19",
        "data.train-fraction": 1.0,
        "train.epochs": 12,
        "train.batch-size": 16,
        "strategy.control": False,
    }
    inprocess.run(parse(flat))
    clients = json.loads((tmp_path / "run" / "results.json").read_text())["clients"]
    assert [(row["client"], row["modality"], row["classes"]) for row in clients] == [(4, "image", 4), (19, "text", 4)]
    accuracy = {row["modality"]: row["accuracy"] for row in clients}
    assert accuracy["image"] > 0.4  # chance is 0.25
    assert accuracy["text"] > 0.5
