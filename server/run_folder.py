"""The run folder: everything one run leaves behind.

::

    RUN/config.toml    the settings, all of them
    RUN/manifest.json  versions, source hash, seed, host, status, rows of the data that cannot be used
    RUN/events.jsonl   one fact a line: messages with their bytes, training, evaluation, refusals
    RUN/results.json   the final table
    RUN/report.html    all of it to look at, if ``backpack report`` was called
    RUN/checkpoints/   arrays and position of each arm
    RUN/clients/       the clients' own state, where they run on this machine
"""

from __future__ import annotations

import json
import logging
import platform
import uuid
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import config as settings
from config import RunConfig
from models.storage import write_atomic, write_json
from strategies.protocol import SOURCE_HASH, RunError

VERSIONED = ("flwr", "ray", "torch", "numpy", "transformers", "perceiver-pytorch")
LOG = logging.getLogger("backpack")


class RunFolder:
    """One run's folder, open for writing."""

    def __init__(self, path: Path, config: RunConfig, token: str) -> None:
        self.path = path
        self.token = token
        self.config = config
        self.events_path = path / "events.jsonl"

    def record(self, event: str, **fields: Any) -> None:
        """Append one event; ``time`` is in UTC. The file is flushed, so that a reader sees it at once."""
        line = {"event": event, **fields, "time": datetime.now(UTC).isoformat(timespec="milliseconds")}
        with self.events_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
        if event == "round":
            LOG.info("%s: round %d/%d, training loss %.3f", *(fields[key] for key in ("arm", "round", "rounds", "loss")))
        elif event == "refused":
            LOG.warning("%s: round %d: client %d refused: %s", *(fields[k] for k in ("arm", "round", "client", "reason")))

    def write_manifest(self, status: str, **facts: Any) -> None:
        """Write what ran where, and how it ended: ``running``, ``completed`` or ``failed``."""
        path = self.path / "manifest.json"
        earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        manifest = {
            "name": self.path.name,
            "token": self.token,
            "strategy": self.config.strategy.name,
            "seed": self.config.run.seed,
            "source_hash": SOURCE_HASH,
            "started": earlier.get("started", datetime.now(UTC).isoformat(timespec="seconds")),
            "host": platform.node(),
            "platform": platform.platform(),
            "python": platform.python_version(),
            "versions": {name: version(name) for name in VERSIONED},
            "status": status,
            **{name: earlier[name] for name in ("bad_rows",) if name in earlier},
            **facts,
        }
        write_json(path, manifest)


def create(root: Path, config: RunConfig) -> RunFolder:
    """Make a new run folder, or open the one to resume.

    A name that is taken gets a number, as nothing is ever written over.

    Raises:
        RunError: there is nothing to resume, or it was run with other settings.
    """
    name = config.run.name or config.strategy.name
    if config.run.resume:
        return _reopen(root / name, config)
    path, number = root / name, 1
    while (path / "config.toml").exists():
        number += 1
        path = root / f"{name}-{number}"
    write_atomic(path / "config.toml", settings.to_toml(settings.flatten(config)).encode())
    return RunFolder(path, config, uuid.uuid4().hex)


def _reopen(path: Path, config: RunConfig) -> RunFolder:
    if not (path / "config.toml").exists() or not (path / "manifest.json").exists():
        raise RunError(f"run.resume: there is no run in {path}; name one with run.name, or set run.resume = false")
    ignored = {"run.resume", "run.output-dir", "run.reply-timeout", "run.node-timeout", "run.min-replies"}
    before, now = settings.read_toml(path / "config.toml"), settings.flatten(config)
    changed = [key for key in now if key not in ignored and before.get(key) != now[key]]
    if changed:
        told = ", ".join(f"{key} was {before.get(key)!r}, is {now[key]!r}" for key in changed[:5])
        raise RunError(f"run.resume: {path} was run with other settings: {told}")
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    return RunFolder(path, config, manifest["token"])


def read_events(path: Path) -> list[dict[str, Any]]:
    """Read the events of a run; a last line cut off by a crash is left out."""
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return events
