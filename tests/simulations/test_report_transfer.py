"""Back-Pack in the report: by hand, with hostile texts, and of a small run with all pairs."""

import json

import pytest

from server.summary import results as summary_of
from simulations.comparison_transfer import main
from simulations.report_transfer import shade
from tests.server.test_transfer import CLIENTS, CONTROLS, ROUTING, SCORES, WHOLE, evaluated, routed
from tests.simulations.pages import HOSTILE, made, sections, shown, validated
from tests.simulations.test_backpack import walk

REFUSED = {"event": "refused", "arm": "donor", "type": "query.backbone", "round": 1, "client": 7, "target": 0, "reason": "NaN"}
CLUSTER = {"event": "cluster", "clusters": [[0, 1], [6]], "similarity": "modeldiff"}


def page_of(tmp_path, events):
    return shown(made(tmp_path, events, summary_of(events, 1.0, "modeldiff")))


def test_choices_by_hand(tmp_path):
    page = page_of(tmp_path, [*WHOLE, REFUSED, CLUSTER])
    assert sections(page) == ["Run", "Settings", "Result", "Transfer", "Warnings and refused replies"]
    head = next(table[0] for table in page.tables if table[0][0] == "round")
    assert head[2:8] == ["donor", "scorer", "score", "tie", "shortlist", "sibling"]
    assert head[8:] == ["validation", "without", "gain", "rank", "regret", "tau"]
    assert page.table("round") == [
        ["1", "0", "2", "modeldiff", "0.900", "yes", "1, 2", "no", "–", "–", "+7.0", "2 of 5", "6.0", "0.33"],
        ["1", "2", "0", "cka", "0.700", "–", "–", "–", "–", "–", "-10.0", "–", "–", "–"],
        ["1", "6", "none", "modeldiff", "–", "no", "–", "–", "0.400", "0.500", "+0.0", "2 of 3", "3.0", "-1.00"],
    ]
    assert page.table("donor", "by") == [["7", "0", "NaN"]]
    assert page.table("similarity") == [["modeldiff", "0, 1; 6"]]
    assert page.table("arm", "round") == [["donor", "1", "7", "query.backbone", "0", "NaN"]]
    assert [row[-1] for row in page.table("client", "modality")] == ["2", "0", "none", ""]


def test_matrix_by_hand(tmp_path):
    page = page_of(tmp_path, WHOLE)
    (matrix,) = [table for table in page.tables if table[0][0] == "target"]
    assert matrix == [
        ["target", "none", "0 image", "1 image", "2 image", "6 text", "7 text"],
        ["0 image", "0.520", "", "+10.0", "+4.0", "+0.0", "-12.0"],
        ["6 text", "0.300", "+3.0", "–", "–", "", "-1.0"],
    ]
    classes = [value for name, value in page.attributes if name == "class" and value.split()[0][:-1] in ("up", "down")]
    assert sorted(classes) == ["down1", "down4", "up2", "up2 picked", "up3"]
    assert "differ by 2.8 points" in page.text


def test_the_matrix_has_clients_of_one_modality_side_by_side(tmp_path):
    events = [{**e, "modality": "text"} if e["event"] == "client" and e["client"] == 0 else e for e in WHOLE]
    (matrix,) = [table for table in page_of(tmp_path, events).tables if table[0][0] == "target"]
    assert matrix[0][2:] == ["1 image", "2 image", "0 text", "6 text", "7 text"]
    assert matrix[1] == ["0 text", "0.520", "+10.0", "+4.0", "", "+0.0", "-12.0"]


def test_directions_and_scorers_by_hand(tmp_path):
    page = page_of(tmp_path, WHOLE)
    assert [row[:3] for row in page.table("direction")] == [
        ["image→image", "1", "+7.0"],
        ["image→text", "1", "+3.0"],
        ["text→image", "1", "-6.0"],
        ["text→text", "1", "-1.0"],
    ]
    assert page.table("relation")[0][:3] == ["sibling", "1", "+10.0"]
    scorers = [table[1:] for table in page.tables if table[0][:2] == ["scorer", "targets"]]
    assert len(scorers) == 3
    assert scorers[0][0] == ["modeldiff", "3", "2.00", "3.5", "+1.5", "-1.00", "0.00"]


def test_without_pairs_what_needs_them_is_absent(tmp_path):
    page = page_of(tmp_path, [*CLIENTS, *CONTROLS, *SCORES, *ROUTING, evaluated("backpack", 0, 0.57)])
    head = next(table[0] for table in page.tables if table[0][0] == "round")
    assert "gain" in head
    assert not {"rank", "regret", "tau", "over own"} & set(head)
    assert not [table for table in page.tables if table[0][0] in ("target", "direction", "relation")]
    assert next(table[0] for table in page.tables if table[0][0] == "scorer") == ["scorer", "targets", "siblings"]


def test_a_run_that_was_cut_is_ranked_by_the_scorer_of_its_config(tmp_path):
    page = shown(made(tmp_path, WHOLE, status="running"))
    assert page.table("round")[0][3] == "modeldiff"  # the default


def test_curves_leave_pairs_and_repeats_out(tmp_path):
    arms = ("control", "control-1", "pair-001", "pair-001-1", "backpack")
    page = shown(made(tmp_path, [*WHOLE, *(validated(arm, 0, 1, 0.5) for arm in arms)]))
    head = [table[0] for table in page.tables if "control val" in table[0]]
    assert head == [["round", "control val", "backpack val"]]


def test_texts_are_escaped(tmp_path):
    events = [
        {**event, "modality": HOSTILE + event["modality"]} if event["event"] == "client" else event
        for event in [*WHOLE, {**REFUSED, "reason": HOSTILE}, {**CLUSTER, "similarity": HOSTILE, "clusters": [[HOSTILE]]}]
    ]
    events.append(routed(0, [[2, 0.9]], [2], scorer=HOSTILE, round=2))
    outcome = summary_of(events, 1.0, HOSTILE)
    outcome["transfer"]["scorers"][0]["scorer"] = outcome["transfer"]["scorers"][0]["among"] = HOSTILE
    page = shown(made(tmp_path, events, outcome))  # no script, and every tag is closed
    assert page.text.count("<script>alert(1)</script>\"'&\ufffd[31m\ufffd") > 15


@pytest.mark.parametrize(("gain", "expected"), [(0.0, ""), (-0.9, ""), (1.0, "up1"), (-3.0, "down2"), (99.0, "up4")])
def test_shades(gain, expected):
    assert shade(gain) == expected


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    settings = {"selection.routing": "all-pairs", "selection.across": True, "selection.also": "cka", "selection.repeats": 2}
    return walk(tmp_path_factory.mktemp("pairs"), **settings, **{"data.clients": "0,1,6,7"})


def test_a_run_with_all_pairs(finished):
    found = json.loads((finished / "results.json").read_text())["transfer"]
    events = [json.loads(line) for line in (finished / "events.jsonl").read_text().splitlines()]
    tested = {
        (e["arm"], e["client"]): e["balanced_accuracy"] for e in events if e["event"] == "evaluate" and e["split"] == "test"
    }
    assert [row["client"] for row in found["routing"]] == [0, 1, 6, 7]
    for row in found["routing"]:
        (donor,) = row["chosen"]
        target = row["client"]
        arms = {None: "control"} | {d: f"pair-{d:03d}" for d in (0, 1, 6, 7) if d != target}
        truth = {d: (tested[arm, target] + tested[f"{arm}-1", target]) / 2 for d, arm in arms.items()}
        assert (row["rank"], row["candidates"]) == (1 + sum(value > truth[donor] for value in truth.values()), 4)
        assert row["regret"] == pytest.approx(100 * (max(truth.values()) - truth[donor]))
        assert row["sibling"] is True  # the only other client of its modality has its classes
        for over, gain in (("control", "gain"), ("own", "gain_own")):
            assert row[gain] == pytest.approx(100 * (tested["backpack", target] - tested[over, target]))
        column = found["matrix"]["donors"].index(donor)
        gain = found["matrix"]["gains"][found["matrix"]["targets"].index(target)][column]
        assert gain == pytest.approx(100 * (truth[donor] - truth[None]))
    assert found["matrix"]["repeats"] == 2
    assert found["matrix"]["noise"] > 0
    assert [row["pairs"] for row in found["directions"]] == [2, 4, 4, 2]
    assert {row["scorer"] for row in found["scorers"]} >= {"modeldiff", "cka", "random", "same-modality-random", "oracle"}


def test_the_report_and_the_comparison_of_that_run(finished, capsys):
    page = shown(finished)
    assert "Transfer" in sections(page)
    assert len(page.table("round", "client")) == 4
    assert len(page.table("direction")) == 4
    main([finished], "md")
    assert "| text→image | 1 | 2 |" in capsys.readouterr().out
