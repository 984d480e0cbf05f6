import csv
import json

import pytest

from config import ConfigError, flatten, parse, to_toml
from simulations.comparison import HEADINGS, STREAM_HEADINGS, lines, main, mean_per_client, read_run, render


def finished(tmp_path, name, seed, accuracies, controls=None, **flat):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "config.toml").write_text(to_toml(flatten(parse({"run.seed": seed, "run.name": name, **flat}))))
    rows = [
        {"client": i, "accuracy": value, "control": controls[i] if controls else None} for i, value in enumerate(accuracies)
    ]
    (folder / "results.json").write_text(json.dumps({"clients": rows, "bytes": 2_000_000, "seconds": 10.0}))
    return folder


def test_mean_sd_and_paired_difference_by_hand(tmp_path):
    runs = [
        finished(tmp_path, "a0", 0, [0.5, 0.7], [0.4, 0.4]),
        finished(tmp_path, "a1", 1, [0.7, 0.9], [0.6, 0.6]),
        finished(tmp_path, "b0", 0, [0.5, 0.5], **{"strategy.name": "local"}),
    ]
    table = lines([read_run(path) for path in runs])
    assert [(line.setting, line.against, line.seeds) for line in table] == [
        ("shared-fedavg", "matched control", 2),
        ("local", "shared-fedavg", 1),
    ]
    assert table[0].accuracy == pytest.approx(0.7)
    assert table[0].sd == pytest.approx(0.141421, abs=1e-6)
    assert table[0].difference == pytest.approx(20.0)
    assert table[0].better == "2/2"
    assert table[1].difference == pytest.approx(-20.0)
    assert table[1].megabytes == pytest.approx(2.0)


def test_packed_models_are_compared_with_their_controls(tmp_path):
    paths = [finished(tmp_path, f"p{seed}", seed, [0.5, 0.7]) for seed in (0, 1)]
    for path, gain in zip(paths, (0.1, 0.2), strict=True):
        told = json.loads((path / "results.json").read_text())
        values = {"pack": (0.5 + gain, 0.7), "start": (0.5, 0.7 - gain), "self": (0.5, 0.7), "kd,sp": (0.7 + gain, 0.6)}
        arms = [
            {"arm": arm, "clients": [{"client": i, "accuracy": value} for i, value in enumerate(found)]}
            for arm, found in values.items()
        ]
        (path / "results.json").write_text(json.dumps({**told, "packing": {"arms": arms}}))
    (_, start, own, other) = lines([read_run(path) for path in paths])
    assert (start.setting, start.against, start.better) == ("shared-fedavg packed", "packing start", "2/2")
    assert start.accuracy == pytest.approx(0.675)
    assert (start.difference, own.difference) == (pytest.approx(15.0), pytest.approx(7.5))
    assert (own.against, own.better) == ("packing self", "1/2")
    assert (other.setting, other.against, other.better) == ("shared-fedavg packed by kd,sp", "shared-fedavg packed", "1/2")
    assert (other.accuracy, other.difference) == (pytest.approx(0.725), pytest.approx(5.0))


def test_settings_that_differ_are_named(tmp_path):
    paths = [finished(tmp_path, f"r{rounds}", 0, [0.5], **{"run.rounds": rounds}) for rounds in (3, 4)]
    assert [line.setting for line in lines([read_run(p) for p in paths])] == [
        "shared-fedavg run.rounds=3",
        "shared-fedavg run.rounds=4",
    ]


def test_a_seed_given_twice_is_refused(tmp_path):
    paths = [finished(tmp_path, name, 0, [0.5]) for name in ("a", "b")]
    with pytest.raises(ConfigError, match="repeat"):
        lines([read_run(path) for path in paths])


def test_only_clients_of_every_seed_are_averaged():
    assert mean_per_client([{0: 0.2, 1: 0.4}, {0: 0.4}]) == {0: pytest.approx(0.3)}


def test_formats(tmp_path, capsys):
    runs = [finished(tmp_path, "a", 0, [0.5, 0.6], [0.5, 0.5])]
    table = lines([read_run(path) for path in runs])
    assert json.loads(render(table, "json"))[0]["accuracy"] == pytest.approx(0.55)
    assert next(csv.DictReader(render(table, "csv").splitlines()))["setting"] == "shared-fedavg"
    assert render(table, "md").splitlines()[1].count("---") == 10
    assert render(table, "latex").startswith("\\begin{tabular}")
    main(runs, "table")
    assert "matched control" in capsys.readouterr().out


def with_streams(path, **means):
    results = json.loads((path / "results.json").read_text())
    known = dict.fromkeys(("average_accuracy", *STREAM_HEADINGS)) | means
    (path / "results.json").write_text(json.dumps({**results, "streams": {"means": known}}))
    return path


def test_scores_of_streams_are_columns_where_a_run_has_them(tmp_path):
    first = with_streams(finished(tmp_path, "a0", 0, [0.5]), forgetting=0.1, backward_transfer=-0.1)
    second = with_streams(finished(tmp_path, "a1", 1, [0.7]), forgetting=0.3, backward_transfer=None)
    plain = finished(tmp_path, "b", 0, [0.5], **{"strategy.name": "local"})
    table = lines([read_run(path) for path in (first, second, plain)])
    assert table[0].scores["forgetting"] == pytest.approx(0.2)
    assert table[0].scores["backward_transfer"] == pytest.approx(-0.1)
    assert table[1].scores == {}
    rows = list(csv.DictReader(render(table, "csv").splitlines()))
    assert list(rows[0])[-2:] == ["backward_transfer", "forgetting"]
    assert (rows[0]["backward_transfer"], rows[1]["forgetting"]) == ("-0.1", "")
    assert json.loads(render(table, "json"))[1]["forgetting"] is None
    markdown = render(table, "md").splitlines()
    assert markdown[0].endswith("| seconds | BWT | FGT |")
    assert markdown[2].endswith("| -0.100 | +0.200 |")
    assert markdown[3].endswith("| – | – |")
    assert render(table, "latex").startswith(f"\\begin{{tabular}}{{{'l' * 12}}}")
    main([first, plain], "table")


def test_without_streams_the_table_is_as_it_was(tmp_path):
    table = lines([read_run(finished(tmp_path, "a", 0, [0.5]))])
    assert list(json.loads(render(table, "json"))[0]) == list(HEADINGS)
    assert render(table, "csv").splitlines()[0] == ",".join(HEADINGS)


def test_a_folder_without_results_is_named(tmp_path):
    (tmp_path / "manifest.json").write_text('{"status": "failed"}')
    with pytest.raises(ConfigError, match="failed"):
        read_run(tmp_path)


def with_starts(path, **accuracies):
    results = json.loads((path / "results.json").read_text())
    starts = [
        {"start": name, "bytes": 3_000_000, "clients": [{"client": i, "accuracy": value} for i, value in enumerate(values)]}
        for name, values in accuracies.items()
    ]
    (path / "results.json").write_text(json.dumps({**results, "starts": starts}))
    return path


def test_other_starts_are_compared_with_scratch_and_with_the_first(tmp_path):
    scratch = [0.25, 0.25]
    runs = [
        with_starts(finished(tmp_path, "a", 0, [0.5, 0.75], scratch), scratch=scratch, cluster=[0.5, 0.75], donor=[0.5, 0.5]),
        with_starts(finished(tmp_path, "b", 1, [0.5, 0.75], scratch), scratch=scratch, cluster=[0.5, 0.75], donor=[0.75, 0.5]),
    ]
    table = lines([read_run(path) for path in runs])
    assert [(line.setting, line.against, line.better, line.megabytes) for line in table] == [
        ("shared-fedavg", "matched control", "2/2", 2.0),
        ("shared-fedavg start donor", "matched control", "2/2", 3.0),
        ("shared-fedavg start donor", "start cluster", "1/2", 3.0),
    ]
    assert table[1].accuracy == pytest.approx(0.5625)
    assert table[1].difference == pytest.approx(31.25)
    assert table[2].difference == pytest.approx(-6.25)
    assert table[2].sd == pytest.approx(0.0883883, abs=1e-6)
