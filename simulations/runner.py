"""Run simulation configs one after the other, show how they go, and print their tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

import config as settings
from config import ConfigError, RunConfig, Scalar
from simulations.progress import Follower

OUT = Console()
OF_THE_MACHINE: Final = ("train.device", "train.threads")
"""Settings beside ``[federation]`` that a federation file may have."""


def parse_seeds(text: str) -> list[int | None]:
    """Read ``0,1,2``; nothing: one run with the config's own seed."""
    if not text:
        return [None]
    if not all(part.strip().isdigit() for part in text.split(",")):
        raise ConfigError(f"--seeds {text!r}: expected comma-separated numbers such as 0,1,2")
    return [int(part) for part in text.split(",")]


def prepare(path: Path, overrides: list[str], seed: int | None, federation: Path | None = None) -> RunConfig:
    """Read a simulation config with overrides, and fill in where the run is written.

    Args:
        path: the config.
        overrides: ``key=value`` over everything else.
        seed: ``run.seed``; None: the config's.
        federation: what the machine has; over the config.

    Raises:
        ConfigError: the config is not valid, or the run folder exists already (or not, to resume).
    """
    flat: dict[str, Any] = settings.read_toml(path) | (read_federation(federation) if federation else {})
    flat |= dict(settings.parse_override(text) for text in overrides)
    if seed is not None:
        flat["run.seed"] = seed
    config = settings.parse(flat)
    root = settings.runs_root(config, Path.cwd() / "runs")
    name = config.run.name
    if not name:
        if config.run.resume:
            raise ConfigError("run.resume = true needs run.name, the name of the run to go on with")
        name = f"{path.stem}-{datetime.now():%Y%m%d-%H%M%S}-s{config.run.seed}"
    elif seed is not None:
        name = f"{name}-s{seed}"
    if (root / name).exists() != config.run.resume:
        found = "exists already: choose another run.name" if not config.run.resume else "does not exist: nothing to resume"
        raise ConfigError(f"{root / name} {found}")
    return settings.parse({**flat, "run.name": name, "run.output-dir": str(root)})


def read_federation(path: Path) -> dict[str, Scalar]:
    """Read what a machine gives to its clients: nothing that a result rests on.

    Raises:
        ConfigError: the file has another setting.
    """
    flat = settings.read_toml(path)
    if others := [key for key in flat if not key.startswith("federation.") and key not in OF_THE_MACHINE]:
        raise ConfigError(
            f"{path} has {', '.join(others)}: a federation file has [federation] and {', '.join(OF_THE_MACHINE)} alone; put "
            "the rest into the simulation config"
        )
    return flat


def run_all(configs: list[RunConfig], engine: str) -> None:
    """Run all configs with one engine.

    Raises:
        RuntimeError: a run failed; the rest is not run.
    """
    for config in configs:
        check(config)
    if engine == "inprocess":
        from simulations import inprocess

        for config in configs:
            inprocess.run(config)
            show(folder(config))
        return
    from simulations import flower

    folder(configs[0]).mkdir(parents=True, exist_ok=True)
    with flower.superlink(folder(configs[0]) / "superlink.log") as environment:
        for config in configs:
            OUT.print(f"run folder: {folder(config)}", soft_wrap=True)
            follower = Follower(folder(config) / "events.jsonl", OUT)
            log = folder(config) / "flower.log"
            folder(config).mkdir(parents=True, exist_ok=True)
            try:
                flower.run(config, num_nodes(config), environment, log, follower.step)
            except flower.EngineError as error:
                raise RuntimeError(failure(config, error)) from None
            finally:
                follower.close()
            show(folder(config))


def check(config: RunConfig) -> None:
    """Fail before anything is started if the files or the GPU that the config asks for are not there.

    Raises:
        ConfigError: says what is missing.
    """
    from data_partition.datasets import check_files
    from data_partition.files import DataError
    from data_partition.subgroups import find_subgroup
    from data_partition.text import vocab_size
    from models.bert_embeddings import EmbeddingError, inspect
    from server.app import wanted_clients
    from strategies.protocol import RunError
    from strategies.table import check_tasks

    try:
        check_tasks(config)
        wanted = wanted_clients(config)
        check_files(config.data)
        if config.model.embedding_dir and any(find_subgroup(config.data, client).modality == "text" for client in wanted):
            inspect(config.model.embedding_dir, vocab_size(config.data), config.data.max_tokens)
    except (DataError, EmbeddingError, RunError) as error:
        raise ConfigError(str(error)) from None
    if config.federation.gpus_per_client > 0 or config.train.device == "cuda":
        from client.device import DeviceError, choose_device

        try:
            choose_device(config.train, config.federation)
        except DeviceError as error:
            raise ConfigError(str(error)) from None


def num_nodes(config: RunConfig) -> int:
    """Return how many SuperNodes are simulated."""
    from data_partition.subgroups import subgroups

    return config.federation.clients or len(subgroups(config.data))


def folder(config: RunConfig) -> Path:
    """Return the run folder of a prepared config."""
    return Path(config.run.output_dir) / config.run.name


def failure(config: RunConfig, error: Exception) -> str:
    """Say why a run failed: the server's own words if it got that far, else the end of Flower's log."""
    manifest = folder(config) / "manifest.json"
    if manifest.exists():
        told = json.loads(manifest.read_text(encoding="utf-8"))
        if told.get("error"):
            return f"the run failed: {told['error']}"
    log = folder(config) / "flower.log"
    tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]) if log.exists() else ""
    return f"{error}\n{tail}"


def show(path: Path) -> None:
    """Print the final tables of a run, write its report, and say where they are."""
    from server import continual_summary, summary
    from simulations import report

    outcome = json.loads((path / "results.json").read_text(encoding="utf-8"))
    head, *body, means = summary.cells(outcome)
    OUT.print(_table(f"{path.name}: {outcome['metric']}", head, body, [means]))
    if "streams" in outcome:
        head, *body = continual_summary.cells(outcome["streams"])
        OUT.print(_table("streams of tasks", head, body))
        if matrix := continual_summary.matrix_cells(outcome["streams"]["clients"]):
            OUT.print(_table(continual_summary.MATRIX_TITLE, matrix[0], matrix[1:]))
    above, *rest = summary.remarks(outcome)
    for line in (f"{above}; {outcome['seconds']:.0f} s", *rest):
        OUT.print(line)
    OUT.print(f"run folder: {path}\nreport: {report.write(path)}", soft_wrap=True)


def _table(title: str, head: list[str], body: list[list[str]], last: Sequence[list[str]] = ()) -> Table:
    table = Table(title=title)
    for column in head:
        table.add_column(column, justify="right")
    for row in body:
        table.add_row(*row)
    table.add_section()
    for row in last:
        table.add_row(*row)
    return table
