"""Build hook: editable installs only, with Flower's own defaults made safe for this project's environment."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Read by every Python of the environment at start-up. Each setting yields to one that the user has made.
ENVIRONMENT = """\
import os, sys; e = os.environ; e.setdefault("FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION", "1"); \
e.setdefault("FLWR_TELEMETRY_ENABLED", "0"); e.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1"); \
e.setdefault("FLWR_HOME", {home!r}); e.setdefault("FLWR_LOCAL_SUPERLINK_HTTP_API_PORT", {port!r}); \
e.setdefault("FLWR_LOCAL_CONTROL_API_PORT", {control_port!r}); e.setdefault("RAY_USAGE_STATS_ENABLED", "0"); \
b = os.path.join(sys.prefix, "bin"); e.__setitem__("PATH", e.get("PATH", "") if b in e.get("PATH", "").split(os.pathsep) \
else b + os.pathsep + e.get("PATH", ""))
"""


class EditableOnly(BuildHookInterface):
    """Refuse a normal wheel: it would put packages named ``client`` or ``models`` into site-packages."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add ``backpack_flower.pth`` to the editable wheel, or stop."""
        if version != "editable":
            raise RuntimeError("Back-Pack installs editable only: pip install -e '.[dev]' (see README.md)")
        # Ports of this checkout's own local SuperLink, so that two checkouts never share one.
        offset = int(hashlib.sha256(self.root.encode()).hexdigest(), 16) % 5000
        text = ENVIRONMENT.format(
            home=str(Path(self.root) / ".flwr"), port=str(41000 + 2 * offset), control_port=str(41001 + 2 * offset)
        )
        path = Path(tempfile.mkdtemp()) / "backpack_flower.pth"
        path.write_text(text, encoding="utf-8")
        build_data["force_include_editable"][str(path)] = "backpack_flower.pth"
