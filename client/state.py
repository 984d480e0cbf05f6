"""A client's own state on its own disk: its tensors after each round, keyed by run name, arm and partition id.

It is not kept in Flower's ``context.state``, which is shipped with every message and dies with the SuperNode. The last two
rounds are kept: if the server is killed during a round, it asks for that round again, and the state before it is still there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context

from config import RunConfig, runs_root
from models.storage import load_record, remove_record, rounds_on_disk, save_record
from strategies.protocol import Instruction

KEPT_ROUNDS = 2


def state_folder(config: RunConfig, context: Context, instruction: Instruction) -> Path:
    """Return the folder of one client in one arm of a run.

    A SuperNode may set its own root with ``--node-config 'state-dir="/path"'``; the server's words never leave the root.
    """
    for name in (instruction.run_name, instruction.arm):
        if not name or not all(letter.isalnum() or letter in "._-" for letter in name) or name.startswith("."):
            raise ValueError(f"the server sent the name {name!r}; expected letters, digits, '.', '_' and '-'")
    own = context.node_config.get("state-dir")
    root = Path(str(own)).expanduser().resolve() if own else runs_root(config)
    return root / instruction.run_name / "clients" / f"{instruction.partition_id:03d}" / instruction.arm


def load_state(folder: Path, run_token: str, before_round: int) -> dict[str, np.ndarray]:
    """Return the newest tensors that this run saved before a round; empty: the client has not trained in it yet."""
    return load_newest(folder, run_token, before_round)[0]


def load_newest(folder: Path, run_token: str, before_round: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the newest tensors that this run saved before a round, and their facts; both empty: there are none."""
    for number in reversed(rounds_on_disk(folder)):
        if number < before_round:
            tensors, facts = load_record(folder / _name(number))
            if facts["run_token"] == run_token:
                return tensors, facts
    return {}, {}


def save_state(
    folder: Path,
    run_token: str,
    server_round: int,
    tensors: Mapping[str, np.ndarray],
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Save the tensors after a round, with facts in JSON, and drop the records that are no longer needed, later ones too."""
    save_record(folder / _name(server_round), tensors, {**(facts or {}), "round": server_round, "run_token": run_token})
    rounds = rounds_on_disk(folder)
    earlier = [number for number in rounds if number < server_round]
    for number in [*earlier[: -(KEPT_ROUNDS - 1)], *(number for number in rounds if number > server_round)]:
        remove_record(folder / _name(number))


def _name(server_round: int) -> str:
    return f"round-{server_round:04d}"
