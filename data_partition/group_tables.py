"""The class groups of a data set, from ``data_partition/groups/NAME.toml``."""

from __future__ import annotations

import tomllib
from functools import lru_cache
from pathlib import Path


@lru_cache
def class_groups(dataset: str) -> dict[str, tuple[str, ...]]:
    """Return the classes of each group by its name, in the order of the file."""
    path = Path(__file__).parent / "groups" / f"{dataset}.toml"
    return {group["name"]: tuple(group["classes"]) for group in tomllib.loads(path.read_text(encoding="utf-8"))["group"]}
