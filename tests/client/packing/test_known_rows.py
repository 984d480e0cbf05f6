"""Teachers that have no input for some rows are not asked about these."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from client.packing.needs import PackingError
from client.packing.packer import pack
from client.packing.plan import make_plan
from client.packing.teachers import Teacher
from tests.client.packing.helpers import CLASSES, CPU, HOW, data, model, packing, same, teacher, tensors, texts

ROWS = 10 + 12  # labelled, unlabelled


def reader(known: Tensor | None, inputs: Tensor | None = None) -> Teacher:
    """A teacher of the other modality."""
    return teacher(
        5, name="text", net=model(5, modality="text"), inputs=texts(ROWS) if inputs is None else inputs, known=known
    )


def some() -> Tensor:
    known = torch.ones(ROWS, dtype=torch.bool)
    known[[1, 4, 15]] = False
    return known


def weights(*teachers: Teacher, **settings: object) -> Tensor:
    return make_plan(model(0), teachers, data(), packing(**settings), 0, CPU).weights


@pytest.mark.parametrize("how", ["uniform", "ebkd", "ca-mkd", "cross-entropy"])
def test_weights_of_a_row_are_shared_by_those_who_have_an_input(how: str) -> None:
    known = some()
    found = weights(reader(known), teacher(1), weights=how)
    whole = weights(reader(None), teacher(1), weights=how)
    assert torch.equal(found[~known], torch.tensor([[0.0, 1.0]]).expand(3, 2))
    assert found.sum(dim=1).tolist() == pytest.approx([1.0] * ROWS)
    if how != "cross-entropy":  # which is a mean over rows
        assert torch.allclose(found[known], whole[known])


def test_the_mean_cross_entropy_leaves_out_what_is_not_there() -> None:
    """Two rows of noise in place of inputs change nothing; read as inputs they do."""
    known, noise = some(), texts(ROWS).flip(1)
    inputs = torch.where(known[:, None], texts(ROWS), noise)
    how = {"weights": "cross-entropy", "weight_temperature": 50.0}
    one, other = (weights(reader(known, x), teacher(1), **how) for x in (texts(ROWS), inputs))
    assert torch.equal(one, other)
    read = weights(reader(None, inputs), teacher(1), **how)
    assert not torch.allclose(read[0], weights(reader(None), teacher(1), **how)[0], atol=1e-6)


@pytest.mark.parametrize("losses", ["kd", "sp", "ifalign"])
def test_what_stands_in_for_a_missing_input_is_not_read(losses: str) -> None:
    known = some()
    results = []
    for inputs in (texts(ROWS), torch.where(known[:, None], texts(ROWS), texts(ROWS).flip(1))):
        student = model(0)
        packed = pack(student, [reader(known, inputs)], data(), packing(losses=losses), HOW)
        results.append((tensors(student), packed))
    assert same(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
    assert results[0][1].epochs[0].effective_teachers == 1


def test_a_teacher_without_any_input_teaches_nothing() -> None:
    nothing = torch.zeros(ROWS, dtype=torch.bool)
    alone, taught = model(0), model(0)
    settings = packing(distil_on="labelled")
    pack(alone, [], data(), settings, HOW)
    log = pack(taught, [reader(nothing)], data(), settings, HOW)
    assert same(tensors(alone), tensors(taught))
    assert log.epochs[0].effective_teachers == 0
    assert "kd" not in log.epochs[0].losses


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: reader(torch.ones(ROWS - 1, dtype=torch.bool)),
        lambda: replace(reader(some()), paired=False),
        lambda: Teacher("own", model(1), CLASSES, known=some()),
    ],
)
def test_rows_that_do_not_fit_are_refused(wrong: object) -> None:
    with pytest.raises(PackingError, match=r"expected \(22,\)"):
        make_plan(model(0), [wrong()], data(), packing(losses="ifalign"), 0, CPU)  # type: ignore[operator]
