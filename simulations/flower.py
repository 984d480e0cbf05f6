"""The Flower engine: a config through the real ``flwr run``, with its traps taken away.

``flwr run`` exits 0 when the run failed, and its local SuperLink outlives the run and keeps the environment and folder of its
first caller. So each call here has a SuperLink of its own, with its own home and port, which ends with it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import config as settings
from config import PROJECT_ROOT, RunConfig

STARTUP_SECONDS = 60.0
QUIET = {
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
}


class EngineError(RuntimeError):
    """Flower could not be started, or the run failed; the message holds what Flower said."""


@contextmanager
def superlink(log: Path) -> Iterator[dict[str, str]]:
    """Run a local SuperLink for simulations; yield the environment in which ``flwr`` talks to it.

    Raises:
        EngineError: it does not come up.
    """
    home = Path(tempfile.mkdtemp(prefix="backpack-flwr-"))
    port = _free_port()
    environment = {
        **os.environ,
        **QUIET,
        "FLWR_HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "local"\n[superlink.local]\naddress = "127.0.0.1:{port}"\ninsecure = true\n', encoding="utf-8"
    )
    command = [_tool("flower-superlink"), "--insecure", "--simulation", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603
            command, cwd=PROJECT_ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            _await_health(process, port, log)
            yield environment
        finally:
            _stop_group(process)
            shutil.rmtree(home, ignore_errors=True)


def run(config: RunConfig, num_nodes: int, environment: dict[str, str], log: Path, watch: Callable[[], None]) -> None:
    """Run a config through ``flwr run`` and wait for its end.

    Args:
        config: the settings, with ``run.output-dir`` absolute.
        num_nodes: simulated SuperNodes.
        environment: of :func:`superlink`.
        log: takes everything that Flower prints.
        watch: called a few times a second while the run goes on.

    Raises:
        EngineError: the run did not complete; with the last lines of the log.
    """
    with tempfile.TemporaryDirectory() as folder:
        run_half, federation_half = Path(folder) / "run.toml", Path(folder) / "federation.toml"
        run_half.write_text(settings.to_toml(settings.flatten(config)), encoding="utf-8")
        federation_half.write_text(federation_toml(config, num_nodes), encoding="utf-8")
        command = [_tool("flwr"), "run", str(PROJECT_ROOT), "local", "--stream", "--run-config", str(run_half)]
        command += ["--federation-config", str(federation_half)]
        with log.open("ab") as output:
            process = subprocess.Popen(  # noqa: S603
                command, cwd=PROJECT_ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
            )
            try:
                while process.poll() is None:
                    watch()
                    time.sleep(0.2)
            finally:
                _stop_group(process)
    status = last_status(environment)
    if process.returncode != 0 or status != "finished:completed":
        raise EngineError(f"Flower calls the run '{status}' (flwr exit code {process.returncode}); see {log}")


def federation_toml(config: RunConfig, num_nodes: int) -> str:
    """Return the federation half of a config, in Flower's keys.

    >>> print(federation_toml(RunConfig(), 12).splitlines()[0])
    num-supernodes = 12
    """
    federation = config.federation
    half = f"num-supernodes = {num_nodes}\nclient-resources-num-cpus = {federation.cpus_per_client}\n"
    if federation.gpus_per_client > 0:
        half += f"client-resources-num-gpus = {federation.gpus_per_client}\n"
    return half + "init-args-log-to-driver = false\n"


def last_status(environment: dict[str, str], connection: str = "local") -> str:
    """Return Flower's status of the newest run, such as ``finished:completed``; ``flwr run``'s exit code does not tell."""
    command = [_tool("flwr"), "ls", connection, "--format", "json"]
    answer = subprocess.run(  # noqa: S603
        command, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    try:
        runs = json.loads(answer.stdout)["runs"]
    except (json.JSONDecodeError, KeyError):
        return f"unknown ({(answer.stderr or answer.stdout).strip()[-300:]})"
    return str(max(runs, key=lambda one: str(one["pending-at"]))["status"]) if runs else "never started"


def _tool(name: str) -> str:
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise EngineError(f"{path} is missing: install Back-Pack with 'make setup'")
    return str(path)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_health(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise EngineError(f"the local SuperLink did not come up (exit code {process.poll()}); see {log}")


def _stop_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and all it started: first politely, then not."""
    for number, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
