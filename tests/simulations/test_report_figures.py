"""Figures of the report, and its texts and numbers."""

import re

import pytest

from simulations.report_curves import mean_over_clients, validation_accuracy
from simulations.report_figures import Curve, Part, heat_map, line_chart, stacked_bars, tick_text, ticks
from simulations.report_html import count, decimals, escape, tag
from tests.simulations.pages import made, sections, shown, validated


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
