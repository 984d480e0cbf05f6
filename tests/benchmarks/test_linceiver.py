"""The benchmark's machinery on tiny cells: structure, memory counted by hand, page and limits. No times are asserted."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
import typer
from torch import nn
from typer.testing import CliRunner

from benchmarks import linceiver
from benchmarks.contestants import BASELINE, PerceiverIO, Sizes, Transformers, contestants
from benchmarks.linceiver import Plan, assemble, measure_cell, measure_slice, write_json
from benchmarks.measure import Seconds, interleave, saved_bytes, summarise
from benchmarks.page import render, replace_section, update_page
from benchmarks.records import CellRecord, Results, misses, requirements
from models.size import count_macs

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
PLAN = Plan(CPU, rounds=2, seconds=0.0)
TINY = Sizes(dim=32, layers=1, heads=2, dim_head=16, cross_dim_head=16, classes=3)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Two threads on a busy machine take twenty times as long for tensors as small as these."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny_cell(tokens: int = 40, latents: int = 33) -> CellRecord:
    return measure_cell(tokens, latents, contestants(TINY, latents, tokens), TINY, PLAN)


@pytest.fixture(scope="module")
def results() -> Results:
    cells = [tiny_cell(), tiny_cell(tokens=70), measure_cell(20, 128, contestants(TINY, 128, 20, few=True), TINY, PLAN)]
    return assemble(cells, [measure_slice(40, 4, columns=32, keep=10, sizes=TINY, plan=PLAN)], TINY, CPU)


def test_cells_hold_every_contestant_that_fits(results: Results) -> None:
    names = [[record["name"] for record in cell["contestants"]] for cell in results["cells"]]
    assert names[2] == [BASELINE, "none"]
    assert set(names[1]) - set(names[0]) == {"basis 64"}
    assert names[0][0] == BASELINE
    assert {"transformers", "basis 16", "pool 32", "dense-before 32", "dense 32", "dense 32, all stages"} < set(names[0])
    for cell in results["cells"]:
        base = cell["contestants"][0]
        assert base["ratio"] == base["saved_ratio"] == base["macs_ratio"] == base["parameters_ratio"] == 1.0
        assert all(record["ratio_low"] <= record["ratio"] <= record["ratio_high"] for record in cell["contestants"])
        assert all(min(record["cpu_ms"], record["saved_bytes"], record["macs"]) > 0 for record in cell["contestants"])


def test_sizes_agree() -> None:
    """Without a projection ours is as large as the baseline; transformers is within 5 percent of both."""
    sizes = Sizes()
    x_BND = torch.randn(2, 16, sizes.dim)
    models = {name: make() for name, make in contestants(sizes, 8, 16).items() if name in (BASELINE, "none", "transformers")}
    parameters = {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()}
    macs = {name: count_macs(model, x_BND) for name, model in models.items()}
    assert parameters["none"] == parameters[BASELINE]
    assert macs["none"] == pytest.approx(macs[BASELINE], rel=0.01)
    assert parameters["transformers"] == pytest.approx(parameters[BASELINE], rel=0.05)
    assert macs["transformers"] == pytest.approx(macs[BASELINE], rel=0.05)
    assert {model(x_BND).shape for model in models.values()} == {(2, sizes.classes)}
    assert isinstance(models[BASELINE], PerceiverIO)
    assert isinstance(models["transformers"], Transformers)


def test_more_parameters_only_where_a_projection_has_them() -> None:
    extra = {record["name"]: record["parameters"] for record in tiny_cell()["contestants"]}
    base = extra[BASELINE]
    assert extra["pool 32"] == base
    assert extra["basis 32"] == base + 32 * 32
    assert extra["dense-before 32"] == base + 40 * 32
    assert extra["dense 32"] == base + 2 * 40 * 32
    assert extra["dense 32, all stages"] == base + 2 * 40 * 32 + 2 * (2 * 33 * 32)  # encoder, one layer, decoder


def test_sliced_model_keeps_its_logits(results: Results) -> None:
    (record,) = results["slices"]
    assert (record["before"]["columns"], record["after"]["columns"]) == (32, 10)
    assert record["after"]["parameters"] == record["before"]["parameters"] - 32 * 22
    assert record["after"]["bytes"] == 4 * record["after"]["parameters"]
    assert record["after"]["macs"] < record["before"]["macs"]
    assert record["logit_change"] <= 1e-5


def test_saved_bytes_by_hand() -> None:
    """Linear 3 -> 4, ReLU, ReLU, Linear 4 -> 2, loss: batch 5, float32.

    Kept: the output of each ReLU (5 x 4; the second is also the input of the last layer), the logarithm of the softmax
    (5 x 2), and the loss's weight, a scalar. Input, labels and weights do not count.
    """
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.ReLU(), nn.Linear(4, 2))
    inputs = torch.randn(5, 3, requires_grad=True)
    assert saved_bytes(model, inputs, torch.zeros(5, dtype=torch.long)) == 4 * (2 * 5 * 4 + 5 * 2 + 1)


def test_interleave_runs_each_once_per_round() -> None:
    calls: list[str] = []
    rounds = interleave({name: partial(calls.append, name) for name in "abc"}, rounds=4, seconds=0.0)
    assert [list(times) for times in rounds] == [["a", "b", "c"]] * 4
    measured = calls[6:]  # two rounds of warm-up
    assert [sorted(measured[i : i + 3]) for i in range(0, 12, 3)] == [["a", "b", "c"]] * 4
    assert len({tuple(measured[i : i + 3]) for i in range(0, 12, 3)}) > 1


def test_ratios_are_of_one_round() -> None:
    """A machine that is ten times slower in the second round does not change the ratio."""
    rounds = [{"base": Seconds(s, s), "ours": Seconds(s / 2, s)} for s in (1.0, 10.0, 1.0)]
    timing = summarise(rounds, "base")["ours"]
    assert (timing.ratio, timing.ratio_low, timing.ratio_high, timing.wall_ratio) == (0.5, 0.5, 0.5, 1.0)
    assert (timing.cpu_ms, timing.wall_ms) == (500.0, 1000.0)


def test_requirements_fail_on_bad_numbers(results: Results) -> None:
    measured = measure_cell(40, 128, contestants(TINY, 128, 40, few=True), TINY, PLAN)
    cell = json.loads(json.dumps(measured)) | {"tokens": 4096}
    ours = next(record for record in cell["contestants"] if record["name"] == "basis 32")
    ours |= {"ratio": 0.59, "saved_ratio": 0.59, "parameters_ratio": 1.005}
    assert misses(requirements([cell], results["slices"])) == []
    for key, bad in (("ratio", 0.61), ("saved_ratio", 0.61), ("parameters_ratio", 1.02), ("ratio", math.nan)):
        good = ours[key]
        ours[key] = bad
        assert len(misses(requirements([cell], []))) == 1, key
        ours[key] = good
    assert len(misses(requirements([], [{**results["slices"][0], "logit_change": 1e-3}]))) == 1
    assert misses(requirements([], [])) == ["nothing that is required was measured"]


def test_tables_name_every_contestant(results: Results) -> None:
    text = render(results)
    header = next(line for line in text.splitlines() if BASELINE in line and line.startswith("|"))
    assert all(name in header for name in ("transformers", "basis 64", "dense 32, all stages"))
    assert "| N=20, M=128 | 1.00 |" in text
    assert "–" in text
    assert "32 → 10" in text
    assert "not measured" in text


def test_page_keeps_the_rest(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n<!-- a: begin (by x) -->\nold\n<!-- a: end -->\n\nTheirs: a.\n", encoding="utf-8")
    update_page(page, "a", "new\n")
    once = page.read_text(encoding="utf-8")
    assert once == "# Title\n\n<!-- a: begin (by x) -->\n\nnew\n\n<!-- a: end -->\n\nTheirs: a.\n"
    update_page(page, "a", "new")
    assert page.read_text(encoding="utf-8") == once


@pytest.mark.parametrize(
    "page", ["", "<!-- a: end --> <!-- a: begin -->", "<!-- a: begin --> <!-- a: begin --> <!-- a: end -->"]
)
def test_page_without_markers_is_an_error(page: str) -> None:
    with pytest.raises(ValueError, match="once each"):
        replace_section(page, "a", "text")


def test_shipped_page_has_the_markers() -> None:
    text = (ROOT / "docs" / "linceiver.md").read_text(encoding="utf-8")
    for section in ("benchmark-cpu", "benchmark-cuda"):
        assert "\n\ntables\n\n" in replace_section(text, section, "tables")


def test_json_is_sorted_and_short(results: Results, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "results.json"
    write_json(results, path)
    text = path.read_text(encoding="utf-8")
    read = json.loads(text)
    assert list(read) == sorted(read)
    assert read["cells"][0]["contestants"][0]["name"] == BASELINE
    assert str(ROOT) not in text


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A --quick of two tiny cells."""
    monkeypatch.setattr(linceiver, "QUICK_LENGTHS", (40,))
    monkeypatch.setattr(linceiver, "QUICK_SLICE_LENGTHS", (16,))
    monkeypatch.setattr(linceiver, "Sizes", lambda: TINY)
    monkeypatch.setattr(linceiver, "update_page", lambda *_: pytest.fail("--quick wrote to the page"))


def run(*arguments: str) -> int:
    app = typer.Typer()
    app.command()(linceiver.main)
    return CliRunner().invoke(app, ["--quick", "--rounds", "2", "--seconds-per-cell", "0.01", *arguments]).exit_code


@pytest.mark.usefixtures("short")
def test_quick_writes_only_where_it_is_told(tmp_path: Path) -> None:
    assert run("--output", str(tmp_path / "quick.json")) == 0
    assert [cell["tokens"] for cell in json.loads((tmp_path / "quick.json").read_text(encoding="utf-8"))["cells"]] == [40]


@pytest.mark.usefixtures("short")
def test_check_decides_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linceiver, "misses", lambda _: ["too slow"])
    assert run() == 0
    assert run("--check") == 1
    monkeypatch.setattr(linceiver, "misses", lambda _: [])
    assert run("--check") == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.usefixtures("short")
def test_without_cuda_it_says_so() -> None:
    assert run("--device", "cuda") == 2


def test_script_finds_the_project_from_anywhere(tmp_path: Path) -> None:
    script = ROOT / "benchmarks" / "linceiver.py"
    done = subprocess.run(
        [sys.executable, str(script), "--help"], cwd=tmp_path, env={"PATH": ""}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--seconds-per-cell" in done.stdout
