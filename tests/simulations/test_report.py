"""The report of a run: what it shows is what the run folder holds, it asks for nothing else, and it trusts no text."""

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from config import ConfigError, flatten, parse, to_toml
from server.summary import results as results_of
from simulations import report, runner
from simulations.report_curves import mean_over_clients, validation_accuracy
from simulations.report_figures import Curve, Part, heat_map, line_chart, stacked_bars, tick_text, ticks
from simulations.report_html import count, decimals, escape, tag
from simulations.report_ledger import by_kind
from tests.server.test_continual_summary import CLIENTS, HAND, walk
from tests.simulations.helpers import run

VOID = ("meta",)
HOSTILE = "<script>alert(1)</script>\"'&\x1b[31m\ud800"


class Page(HTMLParser):
    """A page taken apart: its tables as rows of texts, all text, all attributes; a tag that is not closed is an error."""

    def __init__(self, text):
        super().__init__()
        self.open, self.names, self.attributes, self.tables, self.classes = [], [], [], [], []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, name, attributes):
        self.names.append(name)
        self.attributes += attributes
        if name not in VOID:
            self.open.append(name)
        if name == "table":
            self.tables.append([])
        elif name == "tr":
            self.tables[-1].append([])
            self.classes.append(dict(attributes).get("class"))
        elif name in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, name, attributes):
        self.names.append(name)
        self.attributes += attributes

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data

    def table(self, *headings):
        (found,) = [one for one in self.tables if one[0][: len(headings)] == list(headings)]
        return found[1:]


def made(tmp_path, events=(), results=None, **manifest):
    """Write a run folder by hand."""
    path = tmp_path / "made"
    path.mkdir()
    told = {"name": "made", "strategy": "shared-fedavg", "status": "completed", "seed": 0, **manifest}
    (path / "manifest.json").write_text(json.dumps(told))
    (path / "config.toml").write_text(to_toml(flatten(parse({"run.name": "made"}))))
    if events:
        (path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    if results is not None:
        (path / "results.json").write_text(json.dumps(results))
    return path


def shown(path, whole=True):
    """Write the report and take it apart: XML too, no script, nothing from elsewhere, every section made if ``whole``."""
    text = report.write(path).read_text(encoding="utf-8")
    page = Page(text)
    assert ("do not give this section" not in page.text) == whole
    ElementTree.fromstring(text.removeprefix("<!doctype html>"))
    assert not {"script", "link", "img", "iframe", "object", "base", "form", "a", "use", "image"} & set(page.names)
    assert not [name for name, _ in page.attributes if name in ("src", "href", "xlink:href", "style") or name.startswith("on")]
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    for reference in ("http:", "https:", "url(", "@import", "//"):
        assert reference not in style
    return page


def sections(page):
    known = ("Run", "Settings", "Result", "Curves", "Streams of tasks", "Continual learning", "Byte ledger")
    return [name for name in (*known, "Warnings and refused replies") if re.search(rf"^{name}$", page.text, re.MULTILINE)]


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


def test_streams_by_hand(tmp_path):
    """ACC (.6 + .5 + .7) / 3, and R of the mean with a client that has .5 everywhere."""
    same = dict.fromkeys(HAND, 0.5)
    events = [*CLIENTS, *walk("control", 0, same), *walk("federated", 0, HAND), *walk("federated", 1, same)]
    outcome = results_of(events, 1.0)
    page = shown(made(tmp_path, events, outcome))
    assert sections(page) == ["Run", "Settings", "Result", "Streams of tasks"]
    assert page.table("stream") == [
        ["0", "0.600", "-0.200", "+0.300"],
        ["1", "0.500", "+0.000", "+0.000"],
        ["mean", "0.550", "-0.100", "+0.150"],
        ["control", "0.500", "+0.000", "+0.000"],
    ]
    assert page.names.count("rect") == 5 * (9 + 3)  # matrices of two means and three clients: 9 cells, and 3 frames
    for value in ("1 learned, task 0: 0.600", "2 learned, task 1: 0.650", "3 learned, task 2: 0.600"):
        assert value in page.text
    assert "1 learned, task 1" not in page.text
    assert "0 is none." in page.text
    assert "of equal size" not in page.text  # nobody measured FWT


def test_a_run_shows_the_mean_matrix_at_its_end(tmp_path, capsys):
    events = [*CLIENTS, *walk("federated", 0, HAND), *walk("federated", 1, dict.fromkeys(HAND, 0.5))]
    runner.show(made(tmp_path, events, results_of(events, 1.0)))
    screen = capsys.readouterr().out
    assert "accuracy on task j after learning i tasks, mean over clients" in " ".join(screen.split())
    body = screen.rpartition("learned")[2].splitlines()
    assert [re.findall(r"[\d.]+", line) for line in body if line.startswith("│")] == [
        ["1", "0.600"],
        ["2", "0.700", "0.650"],
        ["3", "0.550", "0.500", "0.600"],
    ]


def fact(task, state, **fields):
    return {"event": "continual", "arm": "cpg", "client": 3, "task": task, "method": "cpg", "state": state, **fields}


FACTS = [
    fact(0, "begin", owned=1000, free=0, validation=None),
    fact(0, "prune", stage=1, ratio=0.5, validation=0.8125, owned=600, free=400),
    {"event": "continual-note", "arm": "cpg", "client": 3, "task": 0, "note": "goal-not-met", "goal": 0.9},
    fact(1, "begin", owned=400, free=0),
    fact(1, "retrain", validation=0.75, owned=150, free=250, width={"latent": 64, "<b>": 2}),
    fact(1, "done"),
    {"event": "continual", "client": 10},
]


def test_facts_of_continual_learning_by_hand(tmp_path):
    page = shown(made(tmp_path, FACTS))
    assert sections(page) == ["Run", "Settings", "Continual learning"]
    first, second = [one for one in page.tables if one[0][0] == "task"]
    assert first == [
        ["task", "state", "stage", "ratio", "validation", "owned", "free", "goal", "width"],
        ["0", "begin", "–", "–", "–", "1,000", "0", "–", "–"],
        ["0", "prune", "1", "0.500", "0.812", "600", "400", "–", "–"],
        ["0", "note: goal-not-met", "–", "–", "–", "–", "–", "0.900", "–"],
        ["1", "begin", "–", "–", "–", "400", "0", "–", "–"],
        ["1", "retrain", "–", "–", "0.750", "150", "250", "–", "latent 64, <b> 2"],
        ["1", "done", *["–"] * 7],
    ]
    assert second[1:] == [["–"] * 7]
    assert page.classes.count("note") == 1
    assert "client 3, cpg, facts: 5, notes: 1" in page.text
    for told in ("client 3, task 0: 600 of 1,000", "client 3, task 1: 150 of 1,000", "client 3, free: 250 of 1,000"):
        assert told in page.text
    assert "client 10, task" not in page.text


def message(arm, kind, round_, client, down, up, seconds):
    where = {"event": "message", "arm": arm, "type": kind, "round": round_, "client": client}
    return {**where, "bytes_down": down, "bytes_up": up, "framing_down": 10_000, "framing_up": 20_000, "seconds": seconds}


def test_ledger_by_hand(tmp_path):
    """Two rounds of training wait 2 s and 4 s; the slowest of each request counts, and a refused reply is part of it."""
    events = [
        message("federated", "train", 1, 0, 1_000_000, 500_000, 1.0),
        {"event": "refused", "arm": "federated", "round": 1, "client": 0, "type": "train", "reason": "no reply in time"},
        message("federated", "train", 1, 6, 1_000_000, 500_000, 2.0),
        {"event": "round", "arm": "federated", "round": 1, "loss": 1.0},
        message("federated", "train", 2, 0, 2_000_000, 500_000, 4.0),
        message("federated", "evaluate", 2, 0, 0, 0, 0.5),
        message("federated", "evaluate", 2, 0, 0, 0, 0.25),
        {"event": "warning", "client": 6, "text": "no validation example of the class x"},
    ]
    page = shown(made(tmp_path, events))
    assert page.table("arm", "type") == [
        ["federated", "train", "3", "4.00", "1.50", "0.09", "6.0"],
        ["federated", "evaluate", "2", "0.00", "0.00", "0.06", "0.8"],
        ["all", "", "5", "4.00", "1.50", "0.15", "6.8"],
    ]
    assert page.table("client", "messages") == [["0", "4", "3.00", "1.00", "0.12"], ["6", "1", "1.00", "0.50", "0.03"]]
    assert page.table("arm", "round") == [["federated", "1", "0", "train", "no reply in time"]]
    assert page.table("client", "text") == [["6", "no validation example of the class x"]]


def test_messages_that_something_came_between_were_not_sent_together():
    events = [message("a", "train", 1, client, 0, 0, 1.0) for client in (0, 6)]
    assert by_kind(events)["a", "train"].seconds == 1.0
    assert by_kind([events[0], {"event": "evaluate"}, events[1]])["a", "train"].seconds == 2.0


def validated(arm, client, round_, value, **fields):
    where = {"event": "evaluate", "arm": arm, "client": client, "round": round_, "split": "val"}
    return {**where, "balanced_accuracy": value, **fields}


def test_curves_by_hand(tmp_path):
    events = [
        {"event": "client", "client": 6, "modality": "text", "classes": ["a", "b"]},
        validated("control", 0, 5, 0.2),
        validated("federated", 0, 5, 0.25),
        validated("federated", 6, 5, 0.5),
        validated("federated", 6, 10, 0.75),
        {**validated("federated", 6, 10, 0.0), "split": "test"},
        {"event": "round", "arm": "federated", "round": 5, "loss": 1.5},
        {"event": "round", "arm": "federated", "round": 10, "loss": 0.5},
    ]
    page = shown(made(tmp_path, events))
    assert sections(page) == ["Run", "Settings", "Result", "Curves"]
    assert page.tables[-1] == [
        ["round", "control val", "federated val", "federated loss"],
        ["5", "0.200", "0.375", "1.500"],
        ["10", "–", "0.750", "0.500"],
    ]
    # Two means, two clients of one arm, one loss; a dot for each point of the thick ones and for a client with one point.
    assert page.names.count("polyline") == 5
    assert page.names.count("circle") == 1 + 2 + 1 + 2
    assert "federated, mean, round 5: 0.375" in page.text


def test_validation_of_several_tasks_in_one_round_is_their_mean():
    events = [validated("cpg", 0, 2, value, task=task, after=2) for task, value in enumerate((0.5, 0.75))]
    assert validation_accuracy(events) == {"cpg": {0: {2: 0.625}}}
    assert mean_over_clients({0: {1: 0.5, 2: 0.5}, 1: {2: 1.0}}) == {1: 0.5, 2: 0.75}


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


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.12, 0.38, [0.1, 0.2, 0.3, 0.4]), (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), (7.0, 7.0, [7.0, 7.2])],
)
def test_ticks_are_round_and_enclose_the_values(low, high, expected):
    found = ticks(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    assert found == expected


def test_ticks_of_values_that_are_all_but_equal_are_apart():
    low, high = 0.3, 0.1 + 0.2
    assert low < high < low + 1e-15
    found = ticks(low, high)
    assert found == sorted(set(found))
    assert "nan" not in line_chart([Curve("a", [(1, low), (2, high)], 0)], "accuracy")


def test_ticks_of_rounds_are_whole_and_their_text_has_the_places_of_the_step():
    assert ticks(1, 3, least_step=1.0) == [1, 2, 3]
    assert tick_text(0.5, [0.0, 0.05]) == "0.50"
    assert tick_text(20.0, [0.0, 10.0]) == "20"


def test_a_chart_maps_values_to_places():
    """Rounds 1 to 3 over 56 to 704, values 0 to 1 over 260 to 12."""
    chart = line_chart([Curve("a", [(1, 0.0), (2, 0.5), (3, 1.0)], 9)], "accuracy")
    assert 'points="56.0,260.0 380.0,136.0 704.0,12.0"' in chart
    assert 'class="curve c1 dash"' in chart
    assert line_chart([Curve("one", [(5, 0.5)], 0, thin=True)], "accuracy").count("<circle") == 1


def test_a_heat_map_is_blank_where_nothing_is_known():
    drawn = heat_map([[0.5, None], [2.0, 0.0]], ["a", "b"], ["x", "y"], "told", {(0, 0), (0, 1)})
    assert (drawn.count('class="cell"'), drawn.count('class="empty"'), drawn.count('class="marked"')) == (3, 1, 1)
    assert re.findall(r'fill-opacity="([\d.]+)"', drawn) == ["0.35", "0.7", "0"]


def test_bars_share_one_scale():
    drawn = stacked_bars([("a", [Part("task 0", 300, 0), Part("free", 100, None)]), ("b", [Part("task 0", 200, 0)])], "told")
    widths = [float(value) + 1 for value in re.findall(r'width="([\d.]+)" height', drawn)]
    assert widths[0] == pytest.approx(3 * widths[1], abs=0.5)
    assert widths[2] == pytest.approx(2 * widths[1], abs=0.5)
    assert sum(widths[:2]) < 720
    assert stacked_bars([("a", [Part("task 0", 0, 0)])], "told").count("<rect") == 1
    long = stacked_bars([("a" * 500, [Part("task 0", 9, 0)])], "told")
    assert float(re.search(r'width="([\d.]+)" height', long)[1]) > 300


def test_texts_and_numbers():
    assert escape("a\x00<\ud800") == "a\ufffd&lt;\ufffd"
    assert tag("p", tag("b", "<"), title='"') == '<p title="&quot;"><b>&lt;</b></p>'
    assert (decimals(True), decimals(float("nan")), decimals("1"), decimals(0.12345)) == ("–", "–", "–", "0.123")
    assert (count(1234567), count(None)) == ("1,234,567", "–")
