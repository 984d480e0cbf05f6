"""The same app through the real engine: ``flwr run``, Ray workers, app bundles."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from config import PROJECT_ROOT, flatten, parse, read_toml, to_toml
from server.run_folder import read_events
from simulations import flower, inprocess

pytestmark = pytest.mark.simulation
BIN = Path(sys.executable).parent
QUICK = PROJECT_ROOT / "simulations" / "quick.toml"


def backpack(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "backpack"), "run", str(QUICK), "--set", "run.name=ray", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


def test_ray_and_inprocess_agree(tmp_path):
    shown = backpack("--set", "strategy.fraction-train=0.5", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "federated round 3/3" in shown.stdout
    settings = {"run.output-dir": str(tmp_path / "runs"), "run.name": "one", "strategy.fraction-train": 0.5}
    inprocess.run(parse({**read_toml(QUICK), **settings}))
    events = {name: read_events(tmp_path / "runs" / name / "events.jsonl") for name in ("ray", "one")}
    for kind in ("client", "message", "train", "evaluate"):
        ray, one = ([e for e in events[name] if e["event"] == kind] for name in ("ray", "one"))
        assert [(e.get("arm"), e.get("round"), e["client"]) for e in ray] == [
            (e.get("arm"), e.get("round"), e["client"]) for e in one
        ]
        if kind == "evaluate":
            assert [e["balanced_accuracy"] for e in ray] == pytest.approx([e["balanced_accuracy"] for e in one], abs=1e-3)
        if kind == "message":
            assert [e["bytes_up"] for e in ray] == [e["bytes_up"] for e in one]


def test_a_run_that_flower_calls_exit_0_fails_here(tmp_path):
    shown = backpack("--set", "train.learning-rate=1e30", "--set", "train.epochs=3", cwd=tmp_path)
    assert shown.returncode == 1
    assert "client 0: " in shown.stderr
    assert "the training loss is nan" in shown.stderr
    manifest = json.loads((tmp_path / "runs" / "ray" / "manifest.json").read_text())
    assert manifest["status"] == "failed"


def test_nothing_is_left_running(tmp_path):
    with flower.superlink(tmp_path / "superlink.log") as environment:
        port = int((Path(environment["FLWR_HOME"]) / "config.toml").read_text().split("127.0.0.1:")[1].split('"')[0])
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_plain_flwr_run(tmp_path):
    """``.venv/bin/flwr run . --stream`` with nothing activated, from a bundle without data files, and offline settings."""
    home = tmp_path / "home"
    ports = [str(free_port()), str(free_port())]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FLWR_")}
    environment |= {
        "PATH": os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if part != str(BIN)),
        "FLWR_HOME": str(home),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": ports[0],
        "FLWR_LOCAL_CONTROL_API_PORT": ports[1],
    }
    settings = {**read_toml(QUICK), "run.rounds": 1, "run.output-dir": str(tmp_path / "runs"), "run.name": "plain"}
    (tmp_path / "run.toml").write_text(to_toml(flatten(parse(settings))))
    command = [str(BIN / "flwr"), "run", ".", "--stream", "--run-config", str(tmp_path / "run.toml")]
    try:
        shown = subprocess.run(
            command, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        output = shown.stdout + shown.stderr
        assert shown.returncode == 0, output
        assert json.loads((tmp_path / "runs" / "plain" / "manifest.json").read_text())["status"] == "completed", output
        assert "uv sync" not in output
        assert "mean" in output
        (bundle,) = (home / "apps").iterdir()
        assert not list(bundle.rglob("*.parquet"))
        assert (bundle / "client" / "app.py").exists()
        assert len(list((bundle / "config").glob("*.py"))) == len(list((PROJECT_ROOT / "config").glob("*.py")))
    finally:
        stop_superlink(ports[0])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def stop_superlink(port: str) -> None:
    """Kill the SuperLink that ``flwr run`` left behind, with its children: no Flower command does."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
            if any(b"flower-superlink" in word for word in words) and port.encode() in words:
                os.killpg(os.getpgid(int(path.parent.name)), signal.SIGKILL)
        except (ProcessLookupError, FileNotFoundError):
            continue
