"""Values by hand, what the losses claim to be invariant to, and numbers that overflow."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from client.packing.losses.amd import MARGIN, SCALE, amd, amd_local
from client.packing.losses.edu_attention import EduAttention, class_prototypes, prototype_logits
from client.packing.losses.ifalign import ifalign
from client.packing.losses.logits import hinton
from client.packing.losses.rows import cosine, mse, mse_batch
from client.packing.losses.similarity import cka, sp
from client.packing.losses.table import LATENT_LOSSES, NEEDS
from config import DISTILL_WEIGHTS
from tests.client.packing.helpers import random


def value(name: str, student: Tensor, teacher: Tensor) -> float:
    return float(LATENT_LOSSES[name](student, teacher, ()).mean())


def rows_of(*values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_the_table_has_every_loss_of_the_config() -> None:
    assert set(NEEDS) == set(DISTILL_WEIGHTS)
    assert {name for name, needs in NEEDS.items() if needs.reads == "latents"} == set(LATENT_LOSSES)


@pytest.mark.parametrize("name", list(LATENT_LOSSES))
def test_losses_return_what_they_declare(name: str) -> None:
    student, teacher = random(6, 16, 8), random(6, 16, 8, seed=1)
    found = LATENT_LOSSES[name](student.requires_grad_(), teacher, ())
    assert found.shape == ((6,) if NEEDS[name].per_sample else ())
    found.mean().backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()
    assert student.grad.any()
    # A perfect student has nothing to learn.
    assert value(name, teacher, teacher) == pytest.approx(0.0, abs=1e-6)
    assert float(found.detach().mean()) > 1e-3


def test_hinton_by_hand() -> None:
    student, teacher = rows_of([0.0, 0.0]), rows_of([2 * math.log(3), 0.0])
    by_hand = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)  # of (3/4, 1/4) to (1/2, 1/2), at tau = 2
    assert float(hinton(student, teacher, 2.0)) == pytest.approx(4 * by_hand, rel=1e-12)


def test_hinton_is_the_batchmean_and_not_the_mean() -> None:
    student, teacher = random(5, 14), random(5, 14, seed=1)
    logs = F.log_softmax(student / 4, dim=1), F.softmax(teacher / 4, dim=1)
    found = float(hinton(student, teacher, 4.0).mean())
    assert found == pytest.approx(16 * float(F.kl_div(*logs, reduction="batchmean")), rel=1e-5)
    with pytest.warns(UserWarning, match="batchmean"):
        by_default = float(F.kl_div(*logs, reduction="mean"))
    assert found == pytest.approx(14 * 16 * by_default, rel=1e-5)


def test_gradient_is_as_large_at_every_temperature() -> None:
    """Without tau^2 that of tau = 16 is 250 times smaller than that of tau = 1."""
    norms = []
    for temperature in (1.0, 2.0, 4.0, 8.0, 16.0):
        student = random(64, 14).requires_grad_()
        hinton(student, random(64, 14, seed=1), temperature).mean().backward()
        norms.append(float(student.grad.norm()))
    assert max(norms) < 1.25 * min(norms)


def test_row_losses_by_hand() -> None:
    student = rows_of([[1, 0], [3, 0]])
    assert float(cosine(student, rows_of([[0, 1], [2, 0]]))) == pytest.approx(0.5)
    # LayerNorm makes (-1, 1) of (0, 2), and (1, -1) of (6, 4)
    assert float(mse(rows_of([[0, 2]]), rows_of([[6, 4]]))) == pytest.approx(4.0, rel=1e-4)
    # BatchNorm over two samples makes -1 and 1 of 0 and 2, and 1 and -1 of 6 and 4
    assert mse_batch(rows_of([[0]], [[2]]), rows_of([[6]], [[4]])).tolist() == pytest.approx([4.0, 4.0], rel=1e-4)


def test_similarity_losses_by_hand() -> None:
    # Products of (1, 1): all 1, so rows of sqrt(1/2); of (1, 0): the rows (1, 0) and (0, 0)
    half = math.sqrt(0.5)
    by_hand = ((half - 1) ** 2 + 3 * half**2) / 4
    assert float(sp(rows_of([[1]], [[1]]), rows_of([[1]], [[0]]))) == pytest.approx(by_hand)
    ramp = rows_of([[-1]], [[0]], [[1]])
    assert float(cka(ramp, rows_of([[1]], [[-2]], [[1]]))) == pytest.approx(1.0)
    assert float(cka(ramp, 3 * ramp + 5)) == pytest.approx(0.0, abs=1e-12)
    # cos^2 between (-1, 0, 1) and (-1, 1, 0): (1 / 2)^2
    assert float(cka(ramp, rows_of([[-1]], [[1]], [[0]]))) == pytest.approx(0.75)


def test_one_sample_has_nothing_to_compare() -> None:
    one = random(1, 3, 4).requires_grad_()
    assert float(sp(one, random(1, 2, 5)).detach()) == pytest.approx(0.0)
    loss = cka(one, random(1, 2, 5))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert not one.grad.any()


def test_ifalign_by_hand() -> None:
    student = rows_of([[0, 0]], [[2, 4]])  # means 1 and 2, variances 1 and 4
    assert float(ifalign(student, torch.zeros(5, 1, 2).double())) == pytest.approx(8.0)
    # over channels: means 0 and 3, variances 0 and 1, of two rows
    assert float(ifalign(student, torch.zeros(2, 1, 2).double(), over="channels")) == pytest.approx((0 + 0 + 3 + 1) / 2)


def as_in_the_paper(student: Tensor, teacher: Tensor) -> Tensor:
    """Eq. 7 term by term, with exponentials."""

    def terms(latents: Tensor) -> list[Tensor]:
        a = (latents**2).sum(dim=2)
        q = (a / (a**2).sum(dim=1, keepdim=True).sqrt()).clamp(-1 + 1e-7, 1 - 1e-7)
        n = 1 - a / (a**2).sum(dim=1, keepdim=True).sqrt()
        p = SCALE * torch.cos(MARGIN * torch.acos(q))
        g = torch.log(torch.exp(p) / (torch.exp(p) + torch.exp(SCALE * n)))
        return [x / (x**2).sum(dim=1, keepdim=True).sqrt() for x in (g, p, SCALE * n)]

    return sum(((x - y) ** 2).sum(dim=1) for x, y in zip(terms(student), terms(teacher), strict=True)) / 3  # type: ignore[return-value]


@pytest.mark.parametrize("rows", [2, 3, 16, 64])
def test_amd_is_the_formula_of_the_paper(rows: int) -> None:
    student, teacher = random(8, rows, 6, dtype=torch.float64), random(8, rows, 9, seed=1, dtype=torch.float64)
    torch.testing.assert_close(amd(student, teacher), as_in_the_paper(student, teacher), rtol=0, atol=1e-10)


def test_amd_by_hand() -> None:
    # Activity (1, 0) against (0, 1): Qp and Qn swap their places
    turned = math.cos(MARGIN * math.pi / 2)
    positive = 2 * ((1 - turned) / math.hypot(1, turned)) ** 2
    student, teacher = rows_of([[1], [0]]), rows_of([[0], [1]])
    assert float(amd(student, teacher)) == pytest.approx((2 + positive + 2) / 3, rel=1e-3)


def test_amd_local_is_the_mean_of_quadrants() -> None:
    student, teacher = random(2, 16, 3), random(2, 16, 3, seed=1)
    maps = [x.view(2, 4, 4, 3) for x in (student, teacher)]
    corners = [(slice(None), slice(y, y + 2), slice(x, x + 2)) for y in (0, 2) for x in (0, 2)]
    by_hand = torch.stack([amd(*(whole[corner].flatten(1, 2) for whole in maps)) for corner in corners]).mean(dim=0)
    torch.testing.assert_close(amd_local(student, teacher, (4, 4)), by_hand)
    assert not torch.allclose(amd_local(student, teacher), by_hand)  # rows that are no map: quarters


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_amd_is_finite_in_bfloat16(scale: float) -> None:
    student = (scale * random(4, 8, 16)).to(torch.bfloat16)
    student[0, 1:] = 0.0  # all activity in one place
    student[1] = 0.0
    student.requires_grad_()
    loss = amd(student, random(4, 8, 16, seed=1).to(torch.bfloat16))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(student.grad).all()


def rotation(width: int) -> Tensor:
    return torch.linalg.qr(random(width, width, seed=7))[0]


ORDER = torch.tensor([3, 0, 2, 1, 5, 4, 7, 6])
UNCHANGED = {
    "cosine": set(),
    "mse": set(),
    "mse-batch": set(),
    "amd": {"rotated"},
    "amd-local": {"rotated"},
    "sp": {"permuted", "rotated"},
    "cka": {"permuted", "rotated"},
    "ifalign": {"permuted", "shuffled"},
}


@pytest.mark.parametrize("name", list(LATENT_LOSSES))
@pytest.mark.parametrize("change", ["permuted", "rotated", "shuffled"])
def test_invariances(name: str, change: str) -> None:
    """A perfect student, its latents permuted, its channels rotated, or its samples in another order than its teacher's."""
    teacher = random(8, 8, 6)
    student = {"permuted": teacher[:, ORDER], "rotated": teacher @ rotation(6), "shuffled": teacher[ORDER]}[change]
    if change in UNCHANGED[name]:
        assert value(name, student, teacher) == pytest.approx(0.0, abs=1e-5)
        # and not because it is 0 for everyone
        assert value(name, random(8, 8, 6, seed=1), teacher) > 1e-3
    else:
        assert value(name, student, teacher) > 1e-3
    assert NEEDS[name].paired == ("shuffled" not in UNCHANGED[name])
    assert NEEDS[name].by_row == ("permuted" not in UNCHANGED[name])


def test_sp_and_cka_take_any_number_of_rows_and_channels() -> None:
    for name in ("sp", "cka"):
        assert math.isfinite(value(name, random(5, 4, 8), random(5, 6, 3, seed=1)))


def identity(width: int) -> nn.Linear:
    layer = nn.Linear(width, width)
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def test_edu_attention_starts_as_plain_distillation() -> None:
    module = EduAttention(nn.Linear(3, 4), 4)
    features, prototypes = random(5, 3), random(6, 4, seed=1)
    assert float(module.alpha.detach()) == 0.0
    assert torch.equal(module(features, prototypes), module.projector(features))
    module(features, prototypes).sum().backward()
    assert module.alpha.grad  # so it does not stay there


def test_edu_attention_by_hand() -> None:
    module = EduAttention(nn.Identity(), 2, scale=1.0)
    module.query, module.key, module.value = (identity(2) for _ in range(3))
    nn.init.ones_(module.alpha)
    share = math.e / (math.e + 1)
    found = module(torch.tensor([[1.0, 0.0]]), torch.eye(2))
    assert found.flatten().tolist() == pytest.approx([1 + share, 1 - share], rel=1e-6)


def test_prototypes_by_hand() -> None:
    features, labels = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]]), torch.tensor([0, 0, 1])
    prototypes = class_prototypes(features, labels, 2)
    assert prototypes.tolist() == [[2.0, 0.0], [0.0, 5.0]]
    assert prototype_logits(torch.tensor([[0.6, 0.8]]), prototypes, 10.0).flatten().tolist() == pytest.approx([6.0, 8.0])
    with pytest.raises(ValueError, match=r"classes \[2\] have no example"):
        class_prototypes(features, labels, 3)
