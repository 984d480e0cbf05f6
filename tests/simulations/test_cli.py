"""The command line as a user meets it: exit codes, messages, and no torch before it is needed."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from config import PROJECT_ROOT

BIN = Path(sys.executable).parent
QUICK = str(PROJECT_ROOT / "simulations" / "quick.toml")
TINY = ["--set", "run.rounds=1", "--set", "data.clients=0,6", "--set", "strategy.control=false", "--engine", "inprocess"]


def backpack(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    command = [str(BIN / "backpack"), *words]
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in ("run", "compare", "report", "data"))])
def test_help_imports_neither_torch_nor_flwr(words):
    code = f"import sys\nsys.argv = ['backpack', *{words!r}]\nfrom simulations.cli import main\ntry:\n    main()\nfinally:\n"
    code += "    print(sorted({'torch', 'flwr', 'ray', 'numpy', 'pandas'} & set(sys.modules)), file=sys.stderr)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "Usage" in shown.stdout
    assert shown.stderr.strip() == "[]"


def test_a_run_prints_its_table_and_its_folder(tmp_path):
    shown = backpack("run", QUICK, *TINY, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("quick-")
    assert f"run folder: {folder}" in shown.stdout
    assert "accuracy" in shown.stdout
    assert {"config.toml", "manifest.json", "events.jsonl", "results.json"} <= {path.name for path in folder.iterdir()}


def test_seeds_make_one_run_each_and_compare_puts_them_in_one_table(tmp_path):
    shown = backpack("run", QUICK, *TINY, "--seeds", "0,1", "--set", "run.name=pair", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    runs = sorted((tmp_path / "runs").iterdir())
    assert [path.name for path in runs] == ["pair-s0", "pair-s1"]
    table = backpack("compare", *map(str, runs), "--format", "json", cwd=tmp_path)
    (line,) = json.loads(table.stdout)
    assert (line["setting"], line["seeds"]) == ("shared-fedavg", 2)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--set", "data.groupin=tri"], "data.groupin: unknown key; the nearest valid key is data.grouping"),
        (["--set", "run.rounds=many"], "run.rounds: found 'many' (str)"),
        (["--set", "data.clients=0,12"], "clients 0 to 11"),
        (["--set", "data.data-dir=/nowhere"], "/nowhere"),
        (["--set", "rounds"], "expected key=value"),
        (["--engine", "ray"], "expected flower or inprocess"),
        (["--seeds", "a"], "expected comma-separated numbers"),
        (["--set", "run.resume=true"], "needs run.name"),
        (["--set", "federation.gpus-per-client=0.25"], "ask for a GPU"),
        (["--set", "train.device=cuda"], "ask for a GPU"),
    ],
)
def test_what_cannot_be_run_says_why_before_anything_starts(tmp_path, words, told):
    shown = backpack("run", QUICK, *words, cwd=tmp_path, CUDA_VISIBLE_DEVICES="")
    assert shown.returncode == 2
    assert told in shown.stderr
    assert "Traceback" not in shown.stderr
    assert not (tmp_path / "runs").exists()


def test_missing_config_file(tmp_path):
    shown = backpack("run", "none.toml", cwd=tmp_path)
    assert shown.returncode == 2
    assert "no simulation config at none.toml" in shown.stderr


def test_a_failing_run_exits_1_with_the_clients_reason(tmp_path):
    shown = backpack("run", QUICK, *TINY, "--set", "train.learning-rate=1e30", "--set", "train.epochs=3", cwd=tmp_path)
    assert shown.returncode == 1
    assert "FloatingPointError: the training loss is" in shown.stderr
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize("root", ["", "elsewhere"])
def test_a_taken_name_is_refused(tmp_path, root):
    (tmp_path / (root or "runs") / "mine").mkdir(parents=True)
    folder = str(tmp_path / root) if root else ""
    shown = backpack("run", QUICK, *TINY, "--set", "run.name=mine", cwd=tmp_path, BACKPACK_RUNS=folder)
    assert shown.returncode == 2
    assert "exists already" in shown.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["cub", "--data-dir", "."], ["CUB_200_2011/images", "<- not found", "What to do"]),
        (["birds"], ["data.dataset", "'birds'", "cub, coco"]),
    ],
)
def test_data_that_are_not_there_are_said_and_the_exit_code_is_honest(tmp_path, words, told):
    shown = backpack("data", *words, cwd=tmp_path)
    assert (shown.returncode, shown.stdout) == (2, "")
    for word in told:
        assert word in shown.stderr
    assert "Traceback" not in shown.stderr
    assert list(tmp_path.iterdir()) == []


def test_compare_names_a_folder_that_is_no_run(tmp_path):
    shown = backpack("compare", str(tmp_path), cwd=tmp_path)
    assert shown.returncode == 2
    assert "expected the folder of a completed run" in shown.stderr


def test_report_of_a_run_and_of_a_folder_that_is_no_run(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text('{"status": "running"}')
    shown = backpack("report", "run", cwd=tmp_path)
    assert (shown.returncode, shown.stdout) == (0, "run/report.html\n")
    assert "running" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    shown = backpack("report", "run", str(tmp_path), cwd=tmp_path)
    assert shown.returncode == 2
    assert "expected the folder of a run" in shown.stderr


def test_a_run_killed_with_sigkill_resumes_to_the_same_bits(tmp_path):
    """Not an exception inside: the process is gone, and another one goes on."""
    words = ["run", QUICK, "--set", "run.name=cut", "--set", "run.rounds=6", "--engine", "inprocess"]
    whole = backpack(*[word.replace("run.name=cut", "run.name=whole") for word in words], cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    process = subprocess.Popen(
        [str(BIN / "backpack"), *words], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    checkpoint = tmp_path / "runs" / "cut" / "checkpoints" / "federated" / "round-0002.json"
    for _ in range(6000):
        if checkpoint.exists() or process.poll() is not None:
            break
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.01)
    process.kill()
    assert process.wait(10) == -9
    assert not (tmp_path / "runs" / "cut" / "results.json").exists()
    resumed = backpack(*words, "--set", "run.resume=true", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    folders = [tmp_path / "runs" / name for name in ("whole", "cut")]
    tensors = [{p.relative_to(f): p.read_bytes() for p in f.rglob("*.safetensors")} for f in folders]
    assert tensors[0]
    assert tensors[0] == tensors[1]
    clients = [json.loads((f / "results.json").read_text())["clients"] for f in folders]
    assert clients[0] == clients[1]
