"""What every handler of a message does: find out what is asked of which client, and answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict

from config import RunConfig, Scalar, parse
from strategies.protocol import (
    ADAPTIVE,
    ARRAYS,
    CONFIG,
    FACTS,
    METRICS,
    Instruction,
    RunError,
    check_source,
    from_arrays,
    to_arrays,
)

if TYPE_CHECKING:  # torch is imported with the first message, not with this module
    from client.scoring import DonorError

Tensors = dict[str, np.ndarray]

OWN_PATHS = {
    "data-dir": ("data", "data_dir"),
    "vocab-file": ("data", "vocab_file"),
    "embedding-dir": ("model", "embedding_dir"),
    "pretrained-dir": ("clip", "pretrained_dir"),
}
"""Keys of the node config that win over a setting of the run: section and field."""


def hosts(context: Context, partition_id: int) -> bool:
    """Say whether this node plays a client.

    A node with ``partition-id`` p and ``num-partitions`` n plays the clients p, p + n, p + 2n, …, so that a simulation with
    fewer nodes than clients still has them all. A node without ``num-partitions`` plays client p alone.

    Raises:
        RunError: the node has no ``partition-id``.
    """
    own, count = context.node_config.get("partition-id"), context.node_config.get("num-partitions", 0)
    if not isinstance(own, int) or not isinstance(count, int):
        raise RunError(f"this SuperNode's node config is {dict(context.node_config)}; expected --node-config 'partition-id=0'")
    return partition_id % count == own if count else partition_id == own


def check_folders(config: RunConfig, context: Context) -> None:
    """Refuse relative paths: they would lie in the unpacked app, a new folder for every version of the source.

    Raises:
        RunError: names the setting and the path.
    """
    run = {
        "run.output-dir": config.run.output_dir,
        "data.vocab-file": config.data.vocab_file,
        "model.embedding-dir": config.model.embedding_dir,
        "clip.pretrained-dir": config.clip.pretrained_dir,
    }
    node = {key: str(context.node_config.get(key, "")) for key in ("state-dir", *OWN_PATHS)}
    for key, folder in (run | node).items():
        if folder and not Path(folder).expanduser().is_absolute():
            raise RunError(f"{key} = '{folder}' is relative; expected an absolute path")


def read(message: Message, context: Context) -> tuple[RunConfig, Instruction, Tensors]:
    """Return the settings of the run on this node, what the server asks for, and the tensors that came.

    Raises:
        RunError: the server runs other source, or means a client that this node does not host.
    """
    instruction = Instruction.from_record(message.content.config_records[CONFIG])
    check_source(instruction.source_hash)
    if not hosts(context, instruction.partition_id):
        raise RunError(f"the server asks this node for client {instruction.partition_id}, which it does not host")
    config = own_data(parsed(tuple(sorted(context.run_config.items()))), context)
    arrays = message.content.array_records.get(ARRAYS, ArrayRecord())
    return config, instruction, from_arrays(arrays)


@lru_cache(maxsize=8)
def parsed(items: tuple[tuple[str, Scalar], ...]) -> RunConfig:
    """Return the settings that a run config says, parsed once per process."""
    return parse(dict(items))


def own_data(config: RunConfig, context: Context) -> RunConfig:
    """Let ``--node-config 'data-dir="/path"'`` win over the run config: each lab machine has its files somewhere else.

    So does ``consent=true`` or ``false``, whether the node's clients let others use their inputs. A node with its own
    ``data-dir`` that does not say so does not consent, whatever the run config says.

    Raises:
        RunError: ``consent`` is neither true nor false.
    """
    for key, (section, name) in OWN_PATHS.items():
        if own := context.node_config.get(key):
            changed = getattr(config, section).model_copy(update={name: str(own)})
            config = config.model_copy(update={section: changed})
    consent = context.node_config.get("consent", False if context.node_config.get("data-dir") else None)
    if consent is None:
        return config
    if not isinstance(consent, bool):
        raise RunError(
            f"this SuperNode's node config has consent = {consent!r}; expected --node-config 'consent=true' or false"
        )
    packing = config.packing.model_copy(update={"consent": "all" if consent else ""})
    return config.model_copy(update={"packing": packing})


def refusal(message: Message, instruction: Instruction, error: DonorError) -> Message:
    """Answer that a donor cannot be used, and why."""
    reply = answer(message, {"partition-id": instruction.partition_id, "num-examples": 1}, {})
    reply.content[FACTS] = ConfigRecord({"reason": str(error), "donor": error.partition_id})
    return reply


def answer(
    message: Message,
    metrics: Mapping[str, float | list[int] | list[float]],
    tensors: Tensors,
    facts: Sequence[str] = (),
    adaptive: Tensors | None = None,
) -> Message:
    """Answer with numbers and, where there are some, tensors, facts (a line of JSON each) and adaptive parameters."""
    content = RecordDict({METRICS: MetricRecord({**metrics})})
    if facts:
        content[FACTS] = ConfigRecord({"lines": list(facts)})
    if adaptive:
        content[ADAPTIVE] = to_arrays(adaptive)
    if tensors:
        content[ARRAYS] = to_arrays(tensors)
    return Message(content, reply_to=message)
