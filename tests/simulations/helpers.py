"""Small runs in one process, and what they leave behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from flwr.app import Message

from config import parse
from models.factory import build_model
from models.groups import shared_names
from server.run_folder import read_events
from simulations import inprocess

SMALL = {"run.rounds": 2, "run.evaluate-every": 1, "train.epochs": 1, "data.clients": "0,6"}
TIMES = ("time", "seconds", "seconds_training")


def run(root: Path, name: str = "run", **flat) -> Path:
    inprocess.run(parse({**SMALL, "run.output-dir": str(root), "run.name": name, **flat}))
    return root / name


def facts(folder: Path) -> list[dict]:
    events = read_events(folder / "events.jsonl")
    return [{key: value for key, value in event.items() if key not in TIMES} for event in events]


def arrays_of(message) -> dict:
    return {name: array for record in message.content.array_records.values() for name, array in record.items()}


def watch(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Message, Message]]:
    """Return a list that fills with every message that crosses and its reply."""
    crossed: list[tuple[Message, Message]] = []
    handle = inprocess.InProcessGrid._handle

    def handle_and_keep(self, message):
        reply = handle(self, message)
        crossed.append((message, reply))
        return reply

    monkeypatch.setattr(inprocess.InProcessGrid, "_handle", handle_and_keep)
    return crossed


def size(share: str) -> int:
    """Bytes of what an image client of the default model shares."""
    model = build_model(parse({}).model, "image", 12, seed=0)
    tensors = dict(model.named_parameters())
    return 4 * sum(tensors[name].numel() for name in shared_names(model, share))
