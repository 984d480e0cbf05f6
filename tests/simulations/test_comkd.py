"""ComKD-CLIP from end to end in one process."""

from __future__ import annotations

import json

import numpy as np
import pytest

from config import ConfigError, parse
from data_partition.base_novel import harmonic_mean
from server import summary
from simulations.comparison import lines, read_run, render
from strategies.protocol import RunError
from strategies.teacher_card import TEXT_FEATURES
from tests.client.comkd.helpers import SMALL
from tests.simulations.helpers import arrays_of, facts, run, watch


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One small run, and every message that crossed in it."""
    with pytest.MonkeyPatch.context() as patch:
        crossed = watch(patch)
        folder = run(tmp_path_factory.mktemp("runs"), **SMALL)
    return folder, crossed


def test_the_image_branch_and_text_features_travel_once_and_nothing_else(finished):
    _, crossed = finished
    sent = {}
    for message, reply in crossed:
        for one, way in ((message, "down"), (reply, "up")):
            if arrays := arrays_of(one):
                sent.setdefault((message.metadata.message_type, way), []).append(arrays)
    assert {key: len(found) for key, found in sent.items()} == {("query.clip", "up"): 1, ("train.clip_student", "down"): 2}
    names = set(sent["query.clip", "up"][0])
    assert TEXT_FEATURES in names
    assert all(name == TEXT_FEATURES or name.startswith("image.") for name in names)
    assert [set(found) for found in sent["train.clip_student", "down"]] == [names, names]
    assert sent["query.clip", "up"][0][TEXT_FEATURES].numpy().shape == (12, 16)


def test_results_tell_base_novel_and_hm(finished):
    folder, _ = finished
    results = json.loads((folder / "results.json").read_text())
    entry = results["base_to_novel"]
    assert (len(entry["base"]), len(entry["novel"]), set(entry["base"]) & set(entry["novel"])) == (6, 6, set())
    assert [one["arm"] for one in entry["models"]] == ["clip-teacher", "without-student", "comkd", "without-teacher"]
    assert [[row["client"] for row in one["clients"]] for one in entry["models"]] == [[0], [1, 2], [1, 2], [1, 2]]
    for one in entry["models"]:
        assert one["base"] == pytest.approx(np.mean([row["base"] for row in one["clients"]]))
        assert one["harmonic_mean"] == pytest.approx(harmonic_mean(one["base"], one["novel"]))
    last = {e["client"]: e for e in facts(folder) if e["event"] == "evaluate" and e["split"] == "test" and e["arm"] == "comkd"}
    rows = {row["client"]: row["accuracy"] for row in results["clients"]}
    assert sorted(rows) == [0, 1, 2]
    assert rows[1] == last[1]["balanced_accuracy"]
    told = "\n".join(summary.lines(results))
    assert f"students: Base {entry['models'][2]['base']:.3f}" in told
    assert "chance: base 0.167, novel 0.167" in told


def test_compare_has_a_column_for_each_score(finished):
    folder, _ = finished
    table = lines([read_run(folder)])
    heading, _, row = render(table, "md").strip().splitlines()
    assert [cell.strip() for cell in heading.split("|")[-4:-1]] == ["Base", "Novel", "HM"]
    students = json.loads((folder / "results.json").read_text())["base_to_novel"]["models"][2]
    assert [cell.strip() for cell in row.split("|")[-4:-1]] == [
        f"{students[name]:.3f}" for name in ("base", "novel", "harmonic_mean")
    ]


def test_a_run_without_modules_resumes_to_the_same_bits(tmp_path, monkeypatch):
    """Also the ablation of both modules: no alpha, and the loss is the KL alone."""
    less = {**SMALL, "clip.attention": False, "clip.ifalign-weight": 0.0}
    whole = run(tmp_path, name="whole", **less)
    trained = [event for event in facts(whole) if event["event"] == "train" and event["arm"] == "comkd"]
    assert trained
    assert all(event["loss"] == event["kl"] and "alpha" not in event for event in trained)

    from client import comkd

    def die(*_):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        train = comkd.train
        patch.setattr(comkd, "train", lambda config, told, *rest: (die if told.round == 2 else train)(config, told, *rest))
        with pytest.raises(RunError, match="killed"):
            run(tmp_path, name="cut", **less)
    cut = run(tmp_path, name="cut", **{**less, "run.resume": True})
    scores = [[e for e in facts(folder) if e["event"] == "evaluate"] for folder in (whole, cut)]
    assert scores[0] == scores[1]
    crossed = [e["type"] for e in facts(cut) if e["event"] == "message"]
    assert crossed.count("train.clip") == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"clip.teacher": 5}, r"clip\.teacher = 5 does not take part: found the clients \[0, 1, 2\]"),
        ({"data.clients": "0,1,3"}, r"clients \[3\] of \[0, 1, 3\]: expected clients with images of the teacher's classes"),
        ({"data.clients": "0,6"}, r"clients \[6\] of \[0, 6\]"),
        ({"data.clients": "0"}, r"at least one beside it"),
        ({"clip.novel-share": 0.95}, r"1 base and 11 novel: expected 2 or more of both"),
    ],
)
def test_clients_that_cannot_take_part_are_named(changes, said, tmp_path):
    with pytest.raises(RunError, match=said):
        run(tmp_path, **{**SMALL, **changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"clip.heads": 3}, "clip.heads = 3 does not divide clip.width = 16"),
        ({"clip.patch-size": 5}, "clip.patch-size = 5 does not divide the image side of 32"),
        ({"clip.context": " "}, "clip.context is empty"),
        ({"data.modalities": "text"}, "'comkd' is for clients with images"),
        ({"train.restart-optimizer": False}, "train.restart-optimizer = false is not for"),
        ({"data.tasks-per-client": 2}, ""),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, said):
    if not said:
        from strategies.table import check_tasks

        with pytest.raises(RunError, match="trains one task a client"):
            check_tasks(parse({**SMALL, **changes}))
        return
    with pytest.raises(ConfigError, match=said):
        parse({**SMALL, **changes})
