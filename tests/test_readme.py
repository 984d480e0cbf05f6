"""Every command of the README runs: those of ``backpack`` with less work, ``make`` as a dry run."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from config import PROJECT_ROOT

BIN = Path(sys.executable).parent
LESS = ["--set", "run.rounds=1", "--set", "train.epochs=1", "--set", "data.clients=0,6", "--engine", "inprocess"]


def commands(name: str) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", (PROJECT_ROOT / name).read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def test_readme_has_commands():
    assert len(commands("README.md")) >= 8


@pytest.mark.parametrize("command", commands("README.md"))
def test_command(command, tmp_path):
    words = shlex.split(command)
    if words[0] == "make":
        subprocess.run(["make", "-n", *words[1:]], cwd=PROJECT_ROOT, check=True, capture_output=True, timeout=60)
    elif words[0].endswith("flwr"):
        assert words[1:] == ["run", ".", "--stream"]  # run for real in simulations/test_flower.py
    elif words[1] in ("compare", "report"):
        quick = str(PROJECT_ROOT / "simulations" / "quick.toml")
        call(["run", quick, "--seeds", "0,1", "--set", "run.name=r", *LESS], tmp_path)
        call([words[1], *(str(path) for path in sorted(tmp_path.glob(words[2])))], tmp_path)
    elif words[1] == "data":
        call(words[1:], tmp_path)
        assert len(list(tmp_path.glob("data-*/*.png"))) == 2
    else:
        assert words[:2] == [".venv/bin/backpack", "run"]
        call(["run", str(PROJECT_ROOT / words[2]), *words[3:], *LESS], tmp_path)


def call(words: list[str], cwd: Path) -> None:
    shown = subprocess.run([str(BIN / "backpack"), *words], cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert shown.returncode == 0, shown.stderr


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "CONTRIBUTING.md",
        "docs/results.md",
        "docs/lab.md",
        "docs/linceiver.md",
        "docs/continual.md",
        "docs/comkd.md",
        "docs/wearable.md",
    ],
)
def test_named_files_exist(name):
    text = (PROJECT_ROOT / name).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    paths = re.findall(r"`((?:config|simulations|strategies|models|client|server|data_partition|docs)/[\w./-]+\.\w+)`", text)
    missing = [link for link in links if not ((PROJECT_ROOT / name).parent / link).exists()]
    missing += [path for path in paths if not (PROJECT_ROOT / path).exists()]
    assert not [path for path in missing if "<" not in path]
