"""Runs of Back-Pack pooled over their seeds, by hand."""

import csv
import json
import statistics

import pytest
from typer.testing import CliRunner

from config import ConfigError, flatten, parse, to_toml
from server.summary import results as summary_of
from simulations.cli import app
from simulations.comparison import read_run
from simulations.comparison_transfer import HEADINGS, by_part, choices, lines, main, pool
from simulations.significance import holm, t_test_p, wilcoxon_p
from tests.server.test_summary import evaluated
from tests.server.test_transfer import CLIENTS, ROUTING, WHOLE, routed


def folder(tmp_path, name, events, seed=0, **flat):
    path = tmp_path / name
    path.mkdir()
    settings = {"strategy.name": "backpack", "run.seed": seed, "run.name": name, **flat}
    (path / "config.toml").write_text(to_toml(flatten(parse(settings))))
    (path / "results.json").write_text(json.dumps(summary_of(events, 1.0, "modeldiff")))
    return path


def moved(events, by):
    """Return events with other accuracies of what was learned on top of donors."""
    on_top = ("pair-", "backpack")
    return [
        {**e, "balanced_accuracy": e["balanced_accuracy"] + by}
        if e["event"] == "evaluate" and e["arm"].startswith(on_top)
        else e
        for e in events
    ]


def pooled(*seeds):
    return {
        (line.part, line.name, line.among): line for line in pool("", [summary_of(one, 1.0, "")["transfer"] for one in seeds])
    }


def test_seeds_of_a_target_are_averaged_first():
    """Gains 7 and 9, 0 and 2, −10 and −8: three differences, not six."""
    line = pooled(WHOLE, moved(WHOLE, 0.02))["choice", " − control", ""]
    assert (line.seeds, line.targets, line.better) == (2, 3, "2/3")
    assert line.gain == pytest.approx((8 + 1 - 9) / 3)
    assert line.p_t == pytest.approx(t_test_p([8.0, 1.0, -9.0]))
    assert line.p_wilcoxon == pytest.approx(wilcoxon_p([8.0, 1.0, -9.0]))
    assert (line.abstained, line.siblings, line.siblings_number) == (pytest.approx(1 / 3), 0.0, 2)
    assert (line.siblings_low, line.siblings_high) == pytest.approx((0.0, 1 - 0.025**0.5))
    assert line.holm_t is None


def test_targets_that_a_seed_lacks_are_left_out_of_gains_and_not_of_choices():
    other = [event for event in WHOLE if not (event["event"] == "evaluate" and event["client"] == 2)]
    line = pooled(WHOLE, other)["choice", " − control", ""]
    assert (line.targets, line.gain) == (2, pytest.approx(3.5))
    assert line.abstained == pytest.approx(2 / 6)


def test_only_the_last_round_counts():
    first = [summary_of([*WHOLE, routed(0, [[1, 0.8], [2, 0.7]], [1], round=2)], 1.0, "modeldiff")["transfer"]]
    (line,) = choices("", first)
    assert (line.name, line.siblings, line.targets) == ("modeldiff − control", 1.0, 3)
    assert line.rank == pytest.approx((1 + 2) / 2)


def test_more_epochs_of_the_own_model_are_a_second_control():
    found = pooled([*WHOLE, evaluated("own", 0, 0.6), evaluated("own", 6, 0.25)])
    line = found["choice", " − own, more epochs", ""]
    assert (line.targets, line.gain, line.rank) == (2, pytest.approx((-3 + 5) / 2), None)


def test_directions_are_averaged_per_target_and_corrected_together():
    """Inside images target 0 has two donors, and target 1, of the second kind of events, one."""
    more = [evaluated("control", 1, 0.4), evaluated("pair-000", 1, 0.45), evaluated("pair-007", 1, 0.3)]
    found = pooled([*WHOLE, *more], moved([*WHOLE, *more], 0.02))
    inside, across = found["direction", "image→image", ""], found["direction", "text→image", ""]
    assert (inside.targets, inside.gain) == (2, pytest.approx((8 + 6) / 2))
    assert (across.targets, across.gain) == (2, pytest.approx((-5 - 9) / 2))
    lines_ = [line for (part, *_), line in found.items() if part == "direction"]
    assert [line.name for line in lines_] == ["image→image", "image→text", "text→image", "text→text"]
    assert [line.p_t is None for line in lines_] == [False, True, False, True]  # the others have one target
    assert [line.holm_t for line in lines_] == holm([line.p_t for line in lines_])
    assert inside.holm_t == pytest.approx(min(1.0, 4 * inside.p_t))
    assert found["relation", "sibling", ""].gain == pytest.approx((11 + 6) / 2)


def test_the_runs_scorer_against_rules_and_scorers():
    """Own modality first, target 0 gains 4 and target 6 loses 1; at random .5 and 1, at random inside 7 and −1."""
    named = [{**event, "scorer": "modeldiff"} if event["event"] == "routing" else event for event in WHOLE]
    found = pooled(named)
    line = found["over rules", "modeldiff − random", "own-first"]
    assert line.gain == pytest.approx(statistics.fmean([3.5, -2.0]))
    assert line.holm_t == pytest.approx(min(1.0, 3 * line.p_t))
    inside = found["over rules", "modeldiff − same-modality-random", "own-first"]
    assert inside.gain == pytest.approx(statistics.fmean([-3.0, 0.0]))
    assert {name for part, name, _ in found if part == "over rules"} == {
        f"modeldiff − {rule}" for rule in ("best-on-average", "same-modality-random", "random")
    }
    assert not [one for one in found if one[0] == "over scorers"]  # cka scored the own modality only
    assert found["scorer", "random", "all"].siblings == pytest.approx(0.25)
    assert found["scorer", "random", "all"].siblings_low is None


def test_without_pairs_there_are_choices_and_siblings():
    events = [event for event in WHOLE if not str(event.get("arm")).startswith(("pair-", "control-"))]
    found = pooled(events)
    assert {part for part, *_ in found} == {"choice", "scorer"}
    assert found["scorer", "cka", "own"].gain is None
    assert found["scorer", "cka", "own"].siblings == 1.0


def test_settings_are_told_apart(tmp_path):
    runs = [
        folder(tmp_path, "a0", WHOLE, seed=0),
        folder(tmp_path, "a1", moved(WHOLE, 0.02), seed=1),
        folder(tmp_path, "b0", WHOLE, seed=0, **{"selection.top": 3}),
    ]
    table = lines([read_run(path) for path in runs])
    found = {line.setting: line.seeds for line in table if line.part == "choice"}
    assert found == {"backpack selection.top=1": 2, "backpack selection.top=3": 1}
    headings, body = by_part(table)[0]
    assert list(headings.values())[:2] == ["setting", "choice"]
    assert [row[0] for row in body] == list(found)


def test_formats(tmp_path, capsys):
    paths = [folder(tmp_path, f"a{seed}", WHOLE, seed=seed) for seed in (0, 1)]
    main(paths, "csv")
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert {row["part"] for row in rows} == {"choice", "scorer", "relation", "direction", "over rules"}
    assert (rows[0]["siblings"], rows[0]["siblings_number"], rows[0]["holm_t"]) == ("0.0", "2", "")
    main(paths, "json")
    assert json.loads(capsys.readouterr().out)[0]["targets"] == 3
    main(paths, "md")
    text = capsys.readouterr().out
    assert "| 0/2 [0.00, 0.84] |" in text
    assert text.splitlines()[0].startswith("| choice | seeds |")
    assert "|\n\n| scorer | among |" in text
    main(paths, "latex")
    assert r"image$\to$text" in capsys.readouterr().out
    main(paths, "table")
    assert HEADINGS["p_wilcoxon"] in capsys.readouterr().out
    with pytest.raises(ConfigError, match="expected one of"):
        main(paths, "pdf")


def test_the_command(tmp_path):
    paths = [str(folder(tmp_path, f"a{seed}", WHOLE, seed=seed)) for seed in (0, 1)]
    plain, pooled_ = (CliRunner().invoke(app, ["compare", *more, *paths, "--format", "json"]) for more in ([], ["--transfer"]))
    assert json.loads(plain.stdout)[0]["against"] == "matched control"
    assert json.loads(pooled_.stdout)[0]["part"] == "choice"


def test_a_run_of_another_strategy_is_named(tmp_path):
    path = folder(tmp_path, "plain", [*CLIENTS, evaluated("local", 0, 0.5)])
    with pytest.raises(ConfigError, match=r"plain: results\.json has no 'transfer'"):
        main([path], "table")


def test_a_run_that_was_routed_without_results_of_pairs_has_a_line(tmp_path):
    main([folder(tmp_path, "bare", [*CLIENTS, *ROUTING])], "md")
