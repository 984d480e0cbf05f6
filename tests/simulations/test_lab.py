"""A real SuperLink with TLS and node authentication, and two SuperNodes, on loopback."""

import json
import os
import shlex
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import pytest
from flwr.app import Context, RecordDict

from client.messages import check_folders
from config import PROJECT_ROOT, flatten, parse, read_toml, to_toml
from simulations import credentials
from simulations.flower import last_status
from strategies.protocol import RunError
from tests.test_readme import commands

BIN = Path(sys.executable).parent
PATIENCE = 120


class Lab:
    """Processes of one lab under one folder; all end with it."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.root, self.stack = root, stack
        self.port = free_port()
        self.keys = root / "keys"
        self.environment = {
            **os.environ,
            "FLWR_HOME": str(root / "flwr"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
        }

    def words(self, start: str) -> list[str]:
        """Return the command of docs/lab.md that begins so, for this lab."""
        (line,) = [line for line in commands("docs/lab.md") if line.startswith(start)]
        changes = {"lab-server": "127.0.0.1", "8000": str(self.port), "0.0.0.0": "127.0.0.1", "keys": str(self.keys)}
        words = [
            word.replace("keys/", f"{self.keys}/").replace("lab-server:8000", f"127.0.0.1:{self.port}")
            for word in shlex.split(line)
        ]
        return [str(PROJECT_ROOT / words[0]), *(changes.get(word, word) for word in words[1:])]

    def start(self, name: str, words: list[str], **environment: str) -> subprocess.Popen:
        log = (self.root / f"{name}.log").open("wb")
        own = {**self.environment, **environment}
        process = subprocess.Popen(
            words, cwd=PROJECT_ROOT, env=own, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        self.stack.callback(log.close)
        self.stack.callback(stop, process)
        return process

    def call(self, words: list[str], timeout: float = 60) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                words, cwd=PROJECT_ROOT, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired as error:
            pytest.fail(f"{error}\n{error.stdout}\n{self.logs()}")

    def node(self, number: int, partition: int) -> list[str]:
        words = self.words(".venv/bin/flower-supernode")
        own = {
            str(self.keys / "node-1"): str(self.keys / f"node-{number}"),
            "9094": str(free_port()),
            words[-1]: f'partition-id={partition} state-dir="{self.root / f"state-{number}"}"',
        }
        return [own.get(word, word) for word in words]

    def logs(self) -> str:
        return "\n".join(f"== {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in self.root.glob("*.log"))


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A SuperLink that is up, with the first two of three node keys registered."""
    root = tmp_path_factory.mktemp("lab")
    with ExitStack() as stack:
        made = Lab(root, stack)
        shown = made.call([*made.words(".venv/bin/python -m simulations.credentials")[:-1], "3"])
        assert shown.returncode == 0, shown.stderr
        server = made.words(".venv/bin/flower-superlink")
        server[server.index("superlink.db")] = str(root / "superlink.db")
        process = made.start("superlink", server)
        context = ssl.create_default_context(cafile=str(made.keys / "ca.crt"))
        await_health(f"https://127.0.0.1:{made.port}/health", context, process, made)
        (root / "flwr").mkdir(exist_ok=True)
        (root / "flwr" / "config.toml").write_text(
            f'[superlink]\ndefault = "lab"\n[superlink.lab]\naddress = "127.0.0.1:{made.port}"\n'
            f'root-certificates = "{made.keys / "ca.crt"}"\n'
        )
        register = made.words(".venv/bin/flwr supernode register")
        for number in (1, 2):
            shown = made.call([word.replace("node-1.pub", f"node-{number}.pub") for word in register])
            assert shown.returncode == 0, shown.stdout + shown.stderr
        yield made


@pytest.mark.simulation
def test_a_run_over_tls_with_node_keys(lab):
    other = lab.root / "other" / "client"  # nodes run the source of the run, not what lies on their own path
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise RuntimeError('this is not the source that the run brought')")
    for number, partition in ((1, 0), (2, 6)):
        lab.start(f"node-{number}", lab.node(number, partition), PYTHONPATH=str(other.parent))
    settings = {
        "run.name": "lab",
        "run.rounds": 1,
        "run.evaluate-every": 0,
        "run.output-dir": str(lab.root / "runs"),
        "data.clients": "0,6",
        "strategy.control": False,
    }
    quick = {**read_toml(PROJECT_ROOT / "simulations" / "quick.toml"), **settings}
    (lab.root / "lab.toml").write_text(to_toml(flatten(parse(quick))))
    words = lab.words(".venv/bin/flwr run . lab")
    words[words.index("lab.toml")] = str(lab.root / "lab.toml")
    shown = lab.call(words, timeout=300)
    assert last_status(lab.environment, "lab") == "finished:completed", shown.stdout[-3000:] + shown.stderr + lab.logs()
    results = json.loads((lab.root / "runs" / "lab" / "results.json").read_text())
    assert [row["client"] for row in results["clients"]] == [0, 6]
    assert all(row["bytes"] > 0 for row in results["clients"])
    for number, partition in ((1, "000"), (2, "006")):
        state = lab.root / f"state-{number}" / "lab" / "clients" / partition / "federated"
        assert (state / "round-0001.safetensors").exists()
    assert not (lab.root / "runs" / "lab" / "clients").exists()


@pytest.mark.simulation
def test_a_node_whose_key_is_not_registered_is_refused(lab):
    stranger = lab.start("stranger", lab.node(3, 1))
    assert stranger.wait(PATIENCE) != 0
    assert "Failed to activate SuperNode" in (lab.root / "stranger.log").read_text()


@pytest.mark.simulation
def test_the_server_speaks_tls_only_and_only_under_its_own_authority(lab):
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        urllib.request.urlopen(f"http://127.0.0.1:{lab.port}/health", timeout=10)
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        urllib.request.urlopen(f"https://127.0.0.1:{lab.port}/health", timeout=10)


def test_private_keys_are_private_and_nothing_is_written_over(tmp_path):
    authority, key = credentials.make_authority(tmp_path)
    credentials.make_server_certificate(tmp_path, ["lab", "10.0.0.5"], authority, key)
    credentials.make_node_key(tmp_path, "node-1")
    for name in ("ca.key", "server.key", "node-1"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    with pytest.raises(FileExistsError, match="exists already"):
        credentials.make_node_key(tmp_path, "node-1")


def test_credentials_refuse_a_used_folder_before_they_write(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["credentials", str(tmp_path), "--host", "lab", "--nodes", "1"])
    credentials.main()
    (tmp_path / "ca.key").unlink()  # kept somewhere safe
    with pytest.raises(SystemExit, match="1"):
        credentials.main()
    assert "ca.crt exists already" in capsys.readouterr().err
    assert not (tmp_path / "ca.key").exists()


@pytest.mark.parametrize(
    "key",
    [
        "state-dir",
        "data-dir",
        "vocab-file",
        "embedding-dir",
        "pretrained-dir",
        "run.output-dir",
        "data.vocab-file",
        "model.embedding-dir",
        "clip.pretrained-dir",
    ],
)
def test_relative_folders_are_refused(key):
    def check(folder):
        node, flat = ({}, {key: folder}) if "." in key else ({key: folder}, {})
        check_folders(parse(flat), Context(run_id=1, node_id=1, node_config=node, state=RecordDict(), run_config={}))

    check("/data/here")
    check("~/here")
    with pytest.raises(RunError, match=f"{key} = 'here' is relative"):
        check("here")


def await_health(url: str, context: ssl.SSLContext, process: subprocess.Popen, lab: Lab) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2, context=context):
                return
        except OSError:
            process_wait(process)
    pytest.fail(f"the SuperLink did not come up\n{lab.logs()}")


def process_wait(process: subprocess.Popen) -> None:
    try:
        process.wait(0.2)
    except subprocess.TimeoutExpired:
        return


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def stop(process: subprocess.Popen) -> None:
    """End a process group; Flower's children share it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(10)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
