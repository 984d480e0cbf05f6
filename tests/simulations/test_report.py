"""The report of a run: what it shows is what the run folder holds, it asks for nothing else, and it trusts no text."""

import json

import pytest

from config import ConfigError
from simulations import report
from tests.server.test_continual_summary import CLIENTS, HAND, walk
from tests.simulations.helpers import run
from tests.simulations.pages import HOSTILE, made, message, sections, shown, validated


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(tmp_path_factory.mktemp("runs"))


def test_report_of_a_run(finished):
    page = shown(finished)
    assert sections(page) == ["Run", "Settings", "Result", "Curves", "Byte ledger"]
    outcome = json.loads((finished / "results.json").read_text())
    *rows, means = page.table("client", "modality")
    assert [row[0] for row in rows] == ["0", "6"]
    for cells, row in zip(rows, outcome["clients"], strict=True):
        assert cells[3:6] == [f"{row['control']:.3f}", f"{row['accuracy']:.3f}", f"{row['difference']:+.3f}"]
        assert cells[6] == f"{row['bytes'] / 1e6:.2f}"
    assert means[4] == f"{outcome['mean_accuracy']:.3f}"
    assert page.table("setting", "value", "default") == [
        ["run.rounds", "2", "20"],
        ["run.evaluate-every", "1", "5"],
        ["data.clients", "0,6", "all"],
        ["train.epochs", "1", "2"],
    ]
    ledger = {row[1]: row for row in page.table("arm", "type") if row[0] == "federated"}
    assert ledger["train"][2] == "4"
    assert sum(float(row[3]) + float(row[4]) for row in ledger.values()) == pytest.approx(outcome["bytes"] / 1e6, abs=0.02)
    assert page.table("round")[0][0] == "1"


def test_a_second_report_replaces_the_first_and_leaves_nothing_else(tmp_path):
    path = made(tmp_path, status="running")
    assert "running" in shown(path).text
    (path / "manifest.json").write_text('{"status": "completed"}')
    assert "running" not in shown(path).text
    assert sorted(one.name for one in path.iterdir()) == ["config.toml", "manifest.json", "report.html"]


def test_a_failed_run_says_why(tmp_path):
    events = [*CLIENTS, *walk("federated", 0, {(1, 0): 0.5}), message("federated", "train", 1, 0, 10**6, 0, 1.0)]
    path = made(
        tmp_path, [*events, {"event": "round", "time": "2026-01-02"}], status="failed", error="RunError: client 6 <gone>"
    )
    (path / "config.toml").unlink()
    with (path / "events.jsonl").open("a") as file:
        file.write('{"event": "evaluate", "arm')
    page = shown(path)
    assert sections(page) == ["Run", "Settings", "Streams of tasks", "Byte ledger"]
    for told in ("failed", "RunError: client 6 <gone>", "2026-01-02", "config.toml is missing", "1 learned, task 0: 0.500"):
        assert told in page.text


def test_a_run_that_was_cut_gets_the_table_of_its_events(tmp_path):
    events = [*CLIENTS, *walk("federated", 0, HAND), *walk("federated", 1, {(1, 0): 0.5})]
    page = shown(made(tmp_path, events, status="running"))
    assert "wrote no results.json" in page.text
    assert [row[4] for row in page.table("client", "modality")] == ["0.600", "0.600"]
    assert "1 of 1 clients above chance." in page.text


def test_nothing_but_a_manifest(tmp_path):
    path = tmp_path / "bare"
    path.mkdir()
    (path / "manifest.json").write_text("{}")
    page = shown(path)
    assert sections(page) == ["Run", "Settings"]
    assert page.text.count("bare") == 2  # title and heading


def test_texts_of_the_run_folder_are_escaped(tmp_path):
    row = {
        "client": 0,
        "modality": HOSTILE,
        "classes": 2,
        "control": None,
        "accuracy": 0.5,
        "difference": None,
        "bytes": 0,
        "k": 3,
    }
    outcome = {"clients": [row], "mean_control": None, "mean_accuracy": 0.5, "mean_difference": None, "mean_k": 3, "bytes": 0}
    outcome |= {"clients_above_chance": 0, "seconds": 1.0, "metric": HOSTILE}
    events = [
        {"event": "warning", "client": HOSTILE, "text": HOSTILE},
        {"event": "refused", "arm": HOSTILE, "round": HOSTILE, "client": 0, "type": HOSTILE, "reason": HOSTILE},
        message(HOSTILE, HOSTILE, 1, HOSTILE, 1, 1, 1.0),
        validated(HOSTILE, 0, 1, 0.5),
        validated(HOSTILE, 1, 1, 0.5),
        {"event": "round", "arm": HOSTILE, "round": 1, "loss": 1.0},
        {"event": "continual", "arm": HOSTILE, "client": HOSTILE, "state": HOSTILE, "task": 0, "owned": 3, "method": HOSTILE},
        {"event": "continual-note", "arm": HOSTILE, "client": HOSTILE, "note": HOSTILE, "width": {HOSTILE: HOSTILE}},
    ]
    path = made(tmp_path, events, outcome, name=HOSTILE, error=HOSTILE, host=HOSTILE, versions={HOSTILE: HOSTILE})
    (path / "config.toml").write_text('[data]\ndata-dir = "</td><script>"\n"<i>" = "&amp;"\n')
    page = shown(path)  # no script, and every tag is closed
    assert page.text.count("<script>alert(1)</script>\"'&\ufffd[31m\ufffd") > 20
    assert page.table("setting", "value", "default") == [
        ["data.data-dir", "</td><script>", "(empty)"],
        ["data.<i>", "&amp;", "no such setting in this version"],
    ]
    assert "i" not in page.names


def test_a_section_that_cannot_be_made_leaves_the_others(tmp_path):
    page = shown(
        made(tmp_path, [{"event": "warning", "client": 0, "text": "seen"}], {"clients": [{"client": 0}]}), whole=False
    )
    assert sections(page) == ["Run", "Settings", "Result", "Warnings and refused replies"]
    assert "do not give this section: KeyError: 'modality'" in page.text
    assert page.table("client", "text") == [["0", "seen"]]


def test_a_folder_that_is_no_run_is_named_before_anything_is_written(tmp_path):
    path = made(tmp_path)
    with pytest.raises(ConfigError, match=r"expected the folder of a run"):
        report.main([path, tmp_path])
    assert not (path / "report.html").exists()


@pytest.mark.parametrize(("content", "told"), [("{", "is not JSON"), ("[]", "holds list, expected an object")])
def test_a_damaged_file_is_named(tmp_path, content, told):
    path = made(tmp_path)
    (path / "results.json").write_text(content)
    with pytest.raises(ValueError, match=rf"results\.json {told}"):
        report.main([path])


def test_each_run_gets_its_own_and_the_paths_are_printed(tmp_path, capsys):
    paths = [made(tmp_path / name) for name in ("a", "b") if not (tmp_path / name).mkdir()]
    report.main(paths)
    assert capsys.readouterr().out.split() == [str(path / "report.html") for path in paths]
