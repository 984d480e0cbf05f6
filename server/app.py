"""The ServerApp: reads the config, connects to the clients, runs a strategy, and writes the run folder."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from functools import cache

import numpy as np
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from config import IMAGE_MODELS, WIDE_RESNETS, RunConfig, parse, runs_root
from models.storage import write_json
from server import run_folder, summary
from server.checkpoint import Checkpoints
from strategies import table
from strategies.job import Job
from strategies.mailbox import Mailbox, connect
from strategies.protocol import TEACHER, ClientInfo, RunError

app = ServerApp()
LOG = logging.getLogger("backpack")


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run one config to its end; an exception is what makes Flower call the run failed."""
    _log_to_screen()
    config = parse(context.run_config)
    folder = run_folder.create(runs_root(config), config)
    LOG.info("run folder: %s", folder.path)
    folder.write_manifest("running")
    try:
        outcome = run(grid, config, folder)
    except BaseException as error:
        folder.write_manifest("failed", error=f"{type(error).__name__}: {error}")
        LOG.error("the run failed: %s", error)
        raise
    folder.write_manifest("completed", seconds=outcome["seconds"])
    for line in summary.lines(outcome):
        LOG.info("%s", line)
    LOG.info("run folder: %s", folder.path)


def run(grid: Grid, config: RunConfig, folder: run_folder.RunFolder) -> dict[str, object]:
    """Connect, run the strategy, and write and return the results."""
    start = time.monotonic()
    progress = Checkpoints(folder)
    clients = connect(grid, wanted_clients(config), config.run.node_timeout)
    if bad_rows := sorted({row for client in clients for row in client.bad_rows}):
        LOG.warning(
            "%d rows of the data cannot be used and are left out: see %s", len(bad_rows), folder.path / "manifest.json"
        )
        folder.write_manifest("running", bad_rows={"count": len(bad_rows), "rows": bad_rows})
    if not folder.events_path.exists() or folder.events_path.stat().st_size == 0:
        for client in sorted(clients, key=lambda c: c.partition_id):
            folder.record(
                "client",
                client=client.partition_id,
                modality=client.modality,
                classes=list(client.classes),
                group=client.group,
                domain=client.domain,
                train=client.num_train,
                val=client.num_val,
                test=client.num_test,
                **({"tasks": [list(names) for names in client.tasks]} if client.tasks else {}),
            )
            for warning in client.warnings:
                LOG.warning("client %d, %s", client.partition_id, warning)
                folder.record("warning", client=client.partition_id, text=warning)
    mailbox = Mailbox(grid, clients, folder.record, config.run.min_replies, config.run.reply_timeout)
    table.run(Job(config, folder.path.name, folder.token, mailbox, _initial_arrays(config), progress))
    events = run_folder.read_events(folder.events_path)
    outcome = summary.results(events, time.monotonic() - start, config.selection.scorer)
    write_json(folder.path / "results.json", outcome)
    return outcome


def wanted_clients(config: RunConfig) -> list[int]:
    """Return the partition ids that take part.

    Raises:
        RunError: ``data.clients`` names a client that the grouping does not have, or one whose modality the model does not
            take.
    """
    from data_partition.subgroups import subgroups

    if config.strategy.name == "distil":
        wanted_clients(config.of_teachers)
    modality = {group.partition_id: group.modality for group in subgroups(config.data)}
    known = list(modality)
    everyone = config.data.clients == "all"
    wanted = known if everyone else sorted({int(part) for part in config.data.clients.split(",")})
    unknown = [partition for partition in wanted if partition not in known]
    if unknown:
        raise RunError(f"data.clients names {unknown}; grouping '{config.data.grouping}' has clients 0 to {known[-1]}")
    if config.model.name in IMAGE_MODELS:
        takes = {"image"}
    elif config.model.name in WIDE_RESNETS:  # kernels over images and over series have other shapes
        takes = {"series" if all(modality[partition] == "series" for partition in wanted) else "image"}
    else:
        return wanted
    for kind in ("text", "series"):
        others = [partition for partition in wanted if modality[partition] == kind]
        if others and kind not in takes:
            images = ",".join(str(partition) for partition in wanted if modality[partition] == "image")
            raise RunError(
                f"model.name = '{config.model.name}' takes images, and the clients {others} have "
                f"{'texts' if kind == 'text' else 'series, which it takes alone'}: set data.clients to clients with images, "
                f"such as '{images or 0}'"
            )
    return wanted


def _initial_arrays(config: RunConfig) -> Callable[[ClientInfo, str], dict[str, np.ndarray]]:
    """Return a function that gives the shared tensors of a client's freshly seeded model.

    The share ``teacher`` is a whole teacher of strategy distil. Unless adapters are shared, the server needs no frozen
    embeddings: ``model.embedding-dir`` may exist on the clients alone.
    """
    from data_partition.sizes import input_sizes
    from models.arrays import get_arrays
    from models.factory import build_model
    from models.groups import shared_names

    @cache
    def initial(modality: str, num_classes: int, share: str) -> dict[str, np.ndarray]:
        own, share = (config.of_teachers.model, "backbone+adapter+head") if share == TEACHER else (config.model, share)
        needs_adapter = "adapter" in share
        model = build_model(
            own if needs_adapter else own.model_copy(update={"embedding_dir": ""}),
            modality,
            num_classes,
            **input_sizes(config.data),
            seed=config.run.seed,
        )
        return get_arrays(model, shared_names(model, share))

    return lambda client, share: initial(client.modality, len(client.classes), share)


def _log_to_screen() -> None:
    if not LOG.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        LOG.addHandler(handler)
        LOG.setLevel(logging.INFO)
        LOG.propagate = False
