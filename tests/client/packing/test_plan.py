"""What is refused, and what is warned of, before the first step; stages, maps, labels and weights of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from client.packing.data import PackData, Parent
from client.packing.labels import LogitRule, ReusedHead, logit_rule, teacher_labels
from client.packing.losses.table import NEEDS
from client.packing.needs import PackingError, Pair, doubts, refusals
from client.packing.packer import pack
from client.packing.plan import make_plan
from client.packing.projectors import Projector, Resampler, make_map, related, stage_pairs
from client.packing.teachers import Teacher
from config import Packing
from models.factory import BUILDERS
from tests.client.packing.helpers import CLASSES, CPU, HOW, data, model, packing, random, teacher, tensors, texts
from tests.models.helpers import tiny

PAIR = Pair("t", True, ((4, 4), (8, 8)), ((16, 16), (16, 16)), 1.0, 3, True)


@pytest.mark.parametrize("name", list(NEEDS))
def test_losses_that_compare_samples_are_refused_on_unpaired_ones(name: str) -> None:
    found = refusals(name, NEEDS[name], replace(PAIR, paired=False))
    if name == "ifalign":
        assert found == []
    else:
        assert len(found) == 1
        for word in (f"'{name}'", "'t'", "would teach noise", "'ifalign'"):
            assert word in found[0]
    assert refusals(name, NEEDS[name], PAIR) == []


@pytest.mark.parametrize("name", list(NEEDS))
def test_latents_of_unrelated_arrays_are_doubted_where_rows_are_compared(name: str) -> None:
    strangers = replace(PAIR, related=0.02)
    found = doubts(name, NEEDS[name], strangers)
    if name in ("cosine", "mse", "mse-batch", "amd", "amd-local"):
        for word in (f"'{name}'", "0.02", "'sp'"):
            assert word in found[0]
    else:
        assert found == []
    assert doubts(name, NEEDS[name], PAIR) == doubts(name, NEEDS[name], replace(PAIR, related=None)) == []
    # A resampler learns which is which.
    other = doubts(name, NEEDS[name], replace(strangers, rows=((4, 6), (8, 6))))
    assert other == (found if name in ("amd", "amd-local") else [])


def test_amd_needs_positions() -> None:
    assert "found ((1, 1),)" in refusals("amd", NEEDS["amd"], replace(PAIR, rows=((1, 1),), widths=((16, 16),)))[0]
    assert "[(4, 6)] rows" in refusals("amd", NEEDS["amd"], replace(PAIR, rows=((4, 6),), widths=((16, 16),)))[0]
    # Features behind the maps of a convolutional network are one row: left out.
    assert refusals("amd", NEEDS["amd"], replace(PAIR, rows=((64, 64), (1, 1)))) == []
    assert "8 rows or more" in refusals("amd-local", NEEDS["amd-local"], replace(PAIR, rows=((4, 4), (1, 1))))[0]


def other_student(net: nn.Module) -> Teacher:
    return Teacher("self", net, CLASSES)


UNPAIRED = Teacher("text", model(1, modality="text"), CLASSES, inputs=texts(9), paired=False)
BAD: dict[str, tuple[Callable[[], list[Teacher]], PackData, dict[str, Any], list[str]]] = {
    "unpaired": (lambda: [UNPAIRED, teacher(1)], data(), {"losses": "kd,sp"}, ["'kd'", "'sp'", "'text'", "noise"]),
    "unpaired without inputs": (lambda: [replace(teacher(1), paired=False)], data(), {}, ["'teacher-1'", "Teacher.inputs"]),
    "unpaired with weights": (
        lambda: [replace(UNPAIRED, losses=("ifalign",)), teacher(1)],
        data(),
        {"losses": "kd,ifalign", "weights": "ebkd"},
        ["'ebkd'", "'text'", "'similarity'"],
    ),
    "twins missing": (
        lambda: [Teacher("text", model(1, modality="text"), CLASSES, inputs=texts(9))],
        data(10, 12),
        {},
        ["'text' has 9 inputs, expected 22"],
    ),
    "names": (lambda: [teacher(1, "a"), teacher(2, "a")], data(), {}, ["two teachers are named 'a'"]),
    "disjoint": (
        lambda: [teacher(1, classes=("x", "y", "z"))],
        data(),
        {},
        ["'teacher-1'", "0 classes in common", "teach nothing", "'teacher-head'"],
    ),
    "no loss": (lambda: [teacher(1, losses=("sp",))], data(), {}, ["'teacher-1' teaches by ('sp',)", "'kd'"]),
    "amd on other rows": (
        lambda: [teacher(1, net=model(1, latents=6))],
        data(),
        {"losses": "amd"},
        ["'amd'", "(4, 6)", "'sp'"],
    ),
    "no prototypes": (lambda: [teacher(1)], data(), {"losses": "edu-attention"}, ["'edu-attention'", "Teacher.prototypes"]),
    "no similarity": (lambda: [teacher(1)], data(), {"weights": "similarity"}, ["'teacher-1'", "Teacher.similarity"]),
    "unknown classes": (
        lambda: [teacher(1), teacher(2, classes=("ant", "bee", "owl"))],
        data(),
        {"weights": "ca-mkd"},
        ["'teacher-2' does not know ['cat']", "'ebkd'"],
    ),
    "weights without labels": (lambda: [teacher(1), teacher(2)], data(0), {"weights": "cross-entropy"}, ["found 0"]),
    "no unlabelled": (
        lambda: [teacher(1)],
        data(10, 0),
        {"distil_on": "unlabelled"},
        ["no input to ask teachers about", "10 labelled and 0 unlabelled"],
    ),
    "nothing": (lambda: [], data(0), {}, ["nothing is left to learn by", "0 labelled", "0 teachers"]),
    "stops without labels": (lambda: [teacher(1)], data(0), {"stop_epoch": 1}, ["nothing is left", "packing.stop-epoch = 1"]),
    "no consent": (
        lambda: [teacher(1)],
        data(parents=(Parent(7, data().task.train.inputs), Parent(8, data().task.train.inputs))),
        {"data": "both", "consent": "8"},
        ["donor 7, who has not consented", "packing.consent = '8'"],
    ),
    "no parents": (lambda: [teacher(1)], data(), {"data": "parent", "consent": "all"}, ["no inputs of a donor came"]),
}


@pytest.mark.parametrize("name", list(BAD))
def test_what_would_teach_noise_is_refused_with_the_reason(name: str) -> None:
    teachers, material, settings, words = BAD[name]
    student = model(0)
    before = tensors(student)
    with pytest.raises(PackingError) as raised:
        pack(student, teachers(), material, packing(**settings), HOW)
    for word in words:
        assert word in str(raised.value)
    assert all(torch.equal(value, before[key]) for key, value in tensors(student).items())


def test_all_reasons_are_listed() -> None:
    with pytest.raises(PackingError) as raised:
        pack(model(0), [UNPAIRED, teacher(1, net=model(1, latents=6))], data(), packing(losses="kd,amd"), HOW)
    assert str(raised.value).count("\n  - ") == 3  # kd and amd of the first, rows of the second


def test_a_student_cannot_teach_itself_while_it_learns() -> None:
    student = model(0)
    with pytest.raises(PackingError, match="'self' shares parameters with the student"):
        pack(student, [other_student(student)], data(), packing(), HOW)


def test_inputs_of_parents_are_not_touched_unless_they_are_wanted() -> None:
    secret = Parent(7, torch.full((5, 3, 16, 16), float("nan")))
    material = data(10, 12, parents=(secret,))
    pack(model(0), [teacher(1)], material, packing(views="clean", losses="kd,sp"), HOW)  # NaN would be found


def test_unrelated_latents_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    packed = pack(model(0), [teacher(1)], data(), packing(losses="cosine", epochs=1), HOW)
    assert "row by row" in packed.warnings[0]
    assert "row by row" in caplog.text
    assert pack(model(1), [teacher(1)], data(), packing(losses="cosine", epochs=1), HOW).warnings == ()


def test_padding_of_token_models_is_warned_of() -> None:
    small = {"name": "beit3", "dim": 32, "heads": 2, "cross_heads": 2, "layers": 1}
    student, own = (tiny("text", num_classes=3, seed=seed, **small) for seed in (0, 1))
    task = data().task
    material = PackData(replace(task, train=replace(task.train, inputs=texts(10))), CLASSES)
    assert "padding" in pack(student, [teacher(1, net=own)], material, packing(losses="kd,sp"), HOW).warnings[0]
    assert pack(student, [teacher(1, net=own)], material, packing(), HOW).warnings == ()


@pytest.mark.parametrize(
    ("student", "other", "pairs"),
    [
        (3, 3, ((0, 0), (1, 1), (2, 2))),
        (3, 5, ((0, 0), (1, 2), (2, 4))),
        (5, 3, ((0, 0), (1, 1), (2, 1), (3, 2), (4, 2))),
        (2, 4, ((0, 0), (1, 3))),
        (3, 1, ((0, 0), (1, 0), (2, 0))),
        (1, 3, ((0, 2),)),
    ],
)
def test_stages(student: int, other: int, pairs: object) -> None:
    assert stage_pairs(student, other) == pairs
    assert stage_pairs(student, other, "last") == ((student - 1, other - 1),)


def test_maps_go_from_the_student_to_the_teacher() -> None:
    x = random(2, 4, 16)
    resampler = make_map(NEEDS["cosine"], (4, 6), (16, 32), always=False)
    assert isinstance(resampler, Resampler)
    assert resampler(x).shape == (2, 6, 32)
    scores = resampler.queries @ resampler.to_k(x).transpose(1, 2) / 32**0.5
    torch.testing.assert_close(resampler(x), scores.softmax(dim=-1) @ resampler.to_v(x))
    assert isinstance(make_map(NEEDS["ifalign"], (4, 6), (16, 32), always=False), Projector)
    assert isinstance(make_map(NEEDS["cosine"], (4, 4), (16, 16), always=False), nn.Identity)
    assert isinstance(make_map(NEEDS["sp"], (4, 6), (16, 32), always=True), nn.Identity)
    assert torch.equal(make_map(NEEDS["cosine"], (4, 4), (16, 16), always=True)(x), x)  # begins as the identity


def test_related_latents() -> None:
    assert related(model(0), model(0)) == pytest.approx(1.0)
    assert abs(related(model(0), model(1)) or 0.0) < 0.4
    assert related(model(0), model(0, latents=6)) == 0.0
    assert related(tiny("image", name="lenet5"), tiny("image", name="lenet5")) is None


def test_logit_rules() -> None:
    assert logit_rule(CLASSES, CLASSES, "none") == LogitRule("columns", (0, 1, 2), (0, 1, 2))
    assert logit_rule(CLASSES, ("cat", "x", "ant"), "teacher-head") == LogitRule("columns", (0, 2), (2, 0))
    assert logit_rule(CLASSES, ("cat", "x"), "none").kind == "none"
    assert logit_rule(CLASSES, ("y", "x"), "teacher-head").kind == "teacher-head"
    with pytest.raises(ValueError, match="a class is there twice"):
        logit_rule(("a", "a"), CLASSES, "none")


def test_labels_of_the_teacher() -> None:
    rule = logit_rule(CLASSES, ("cat", "x", "ant"), "none")
    assert teacher_labels(torch.tensor([0, 1, 2, 0]), rule).tolist() == [2, -1, 0, 2]


@pytest.mark.parametrize("name", list(BUILDERS))
def test_the_reused_head_is_the_teachers(name: str) -> None:
    """Its classifier reads the mean of the queries, in every model."""
    net = tiny("image", name=name, **({"width": 1 / 16} if name in ("lenet5", "vgg16-bn") else {})).eval()
    side = 32 if name in ("lenet5", "vgg16-bn") else 16
    trace = net.trace(torch.rand(2, 3, side, side))  # type: ignore[operator]
    head = ReusedHead(nn.Identity(), net)
    torch.testing.assert_close(head(trace.queries.mean(dim=1)), trace.logits)
    assert not list(head.parameters())


def weights_of(settings: Packing, teachers: list[Teacher], material: PackData) -> torch.Tensor:
    return make_plan(model(0), teachers, material, settings, 0, CPU).weights


def test_ca_mkd_weighs_labelled_rows_by_the_teachers_losses() -> None:
    material, teachers = data(10, 4), [teacher(1), teacher(2, classes=("bee", "cat", "ant"))]
    found = weights_of(packing(weights="ca-mkd"), teachers, material)
    labels = material.task.train.labels
    shifted = torch.tensor([2, 0, 1])[labels]
    with torch.no_grad():
        losses = [
            F.cross_entropy(one.model(material.task.train.inputs), own, reduction="none")
            for one, own in zip(teachers, (labels, shifted), strict=True)
        ]
    torch.testing.assert_close(found[:10], 1 - torch.stack(losses, dim=1).softmax(dim=1), rtol=1e-4, atol=1e-5)
    assert found[10:].tolist() == [[0.5, 0.5]] * 4


@pytest.mark.parametrize("weights", ["uniform", "similarity", "ebkd", "ca-mkd", "cross-entropy"])
@pytest.mark.parametrize("number", [1, 3])
def test_weights_of_every_row_sum_to_one(weights: str, number: int) -> None:
    teachers = [teacher(k, similarity=0.1 * k) for k in range(1, number + 1)]
    found = weights_of(packing(weights=weights), teachers, data(10, 12))
    assert found.shape == (22, number)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(22))
