"""Imports go one way (docs: layout), and some packages are never imported."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("config", "models", "data_partition", "strategies", "client", "server", "simulations")
FORBIDDEN = {
    "config": set(PACKAGES) - {"config"} | {"flwr", "torch"},
    "models": {"flwr", "data_partition", "strategies", "client", "server", "simulations"},
    "data_partition": {"flwr", "strategies", "client", "server", "simulations"},
    "strategies": {"client", "server", "simulations"},
    "client": {"server", "simulations"},
    "server": {"client", "simulations"},
}
LAZY = {"transformers"}
"""Imported inside functions only: each takes seconds, and few runs need it."""
NEVER = {"torchvision", "timm", "torchscale", "pickle", "tests"}
MAY = {"data_partition/pickles.py": {"pickle"}}
"""The one reader of pickles: it looks names up in a table of its own."""


def modules_of(source: str) -> set[str]:
    """Top-level names of all modules that a file imports, those inside functions included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def files_of(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def test_scan_sees_every_form_of_import() -> None:
    source = "import a.b\nfrom c.d import e\ndef f():\n    import g as h\nif True:\n    from i import j"
    assert modules_of(source) == {"a", "c", "g", "i"}


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way(package: str) -> None:
    files = files_of(package)
    assert files, f"{package} has no files: has it moved?"
    forbidden = FORBIDDEN.get(package, set()) | NEVER
    wrong = {str(path.relative_to(ROOT)): modules_of(path.read_text(encoding="utf-8")) & forbidden for path in files}
    assert {path: names - MAY.get(path, set()) for path, names in wrong.items() if names - MAY.get(path, set())} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_slow_libraries_are_imported_where_they_are_used(package: str) -> None:
    for path in files_of(package):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        tree.body = [statement for statement in tree.body if not isinstance(statement, ast.FunctionDef | ast.ClassDef)]
        assert not modules_of(ast.unparse(tree)) & LAZY, path
