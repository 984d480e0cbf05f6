"""What is said of teachers and students, by hand."""

import pytest

from server import distil_summary, summary


def evaluated(arm: str, client: int, accuracy: float, split: str = "test") -> dict:
    return {"event": "evaluate", "arm": arm, "client": client, "split": split, "balanced_accuracy": accuracy}


EVENTS = [
    *({"event": "client", "client": n, "modality": "series", "classes": ["a", "b"], "group": 0} for n in (0, 1, 2)),
    *(evaluated("teacher", n, value) for n, value in enumerate((0.5, 0.7, 0.9))),
    *(evaluated("scratch", n, value) for n, value in enumerate((0.4, 0.6, 0.8))),
    evaluated("student", 0, 0.99, "val"),
    evaluated("student", 0, 0.6),
    evaluated("student", 1, 0.5),
    {"event": "taught", "client": 0, "teachers": [1, 2]},
    {"event": "taught", "client": 1, "teachers": [2]},
    {"event": "packed", "arm": "student", "client": 0, "effective_teachers": 1.5},
    {"event": "packed", "arm": "scratch", "client": 0, "effective_teachers": 0.0},
]


def test_arms_and_paired_differences():
    found = distil_summary.results(EVENTS)["distillation"]
    assert found["clients"] == [
        {
            "client": 0,
            "teachers": [1, 2],
            "student": 0.6,
            "scratch": 0.4,
            "teacher": pytest.approx(0.8),
            "effective_teachers": 1.5,
        },
        {"client": 1, "teachers": [2], "student": 0.5, "scratch": 0.6, "teacher": 0.9, "effective_teachers": None},
    ]
    assert found["means"] == pytest.approx({"teacher": 0.7, "scratch": 0.6, "student": 0.55})
    own = {"mean": 0.05, "deviation": pytest.approx(0.3 / 2**0.5), "better": 1, "clients": 2}
    assert found["student_over_scratch"] == {**own, "mean": pytest.approx(0.05)}
    assert found["student_over_teacher"]["mean"] == pytest.approx(-0.3)


def test_the_table_has_students_and_their_controls_and_no_teacher():
    outcome = summary.results(EVENTS, 1.0)
    assert [(row["client"], row["control"], row["accuracy"]) for row in outcome["clients"]] == [(0, 0.4, 0.6), (1, 0.6, 0.5)]
    told = summary.remarks(outcome)
    assert "teacher 0.700, scratch 0.600, student 0.550" in told
    assert "student over its control: +0.050 ± 0.212, 1 of 2 better" in told
    assert "student over its teachers: -0.300 ± 0.141, 0 of 2 better" in told


def test_one_client_without_a_control_has_no_deviation():
    events = [*EVENTS[:6], evaluated("student", 0, 0.6), {"event": "taught", "client": 0, "teachers": [0]}]
    found = distil_summary.results(events)["distillation"]
    assert "student_over_scratch" not in found
    assert found["student_over_teacher"] == {"mean": pytest.approx(0.1), "deviation": None, "better": 1, "clients": 1}
    assert distil_summary.lines({"distillation": found})[1] == "student over its teachers: +0.100, 1 of 1 better"


def test_other_runs_have_nothing_of_it():
    assert distil_summary.results(EVENTS[:9]) == {}
    assert distil_summary.lines({}) == []
