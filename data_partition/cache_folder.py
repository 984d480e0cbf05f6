"""Where files are kept that can be made again from the data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

ENVIRONMENT: Final = "BACKPACK_CACHE"


def cache_folder() -> Path:
    """Return ``$BACKPACK_CACHE``, else ``$XDG_CACHE_HOME/backpack``, else ``~/.cache/backpack``; it may not exist yet."""
    if chosen := os.environ.get(ENVIRONMENT, ""):
        return Path(chosen).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "backpack"
