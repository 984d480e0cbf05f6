"""Learned maps from a student's latents to a teacher's shape, and which stages are compared. Both are used in training alone.

They stand outside of the student: no tensor of theirs is in a group of the model, so none travels, is stored or is masked. The
student is mapped, whether it is smaller or larger, and never the teacher.

Shapes: B batch, N latents of the student, M of the teacher, D channels of the student, E of the teacher.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from client.packing.needs import Needs


class Projector(nn.Module):
    """One linear map of channels, D to E; the identity at the start where D = E.

    A plain linear map is what Miles & Mikolajczyk (AAAI 2024) take, also where D = E, and not a deeper one. What is compared
    behind it is normalised by the losses ``mse`` (LayerNorm) and ``mse-batch`` (BatchNorm), on both sides.
    """

    def __init__(self, width: int, teacher_width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, teacher_width)
        if width == teacher_width:
            nn.init.eye_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

    def forward(self, x_BND: Tensor) -> Tensor:
        """(…,D) -> (…,E)."""
        return self.linear(x_BND)  # type: ignore[no-any-return]


class Resampler(nn.Module):
    """M learned queries attend to the student's N latents: (B,N,D) -> (B,M,E), one cross-attention of a Perceiver.

    Which latent of the student plays the part of which of the teacher is learned, so the two arrays need not be related.
    """

    def __init__(self, width: int, teacher_rows: int, teacher_width: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(teacher_rows, teacher_width) / math.sqrt(teacher_width))
        self.to_k = nn.Linear(width, teacher_width, bias=False)
        self.to_v = nn.Linear(width, teacher_width)

    def forward(self, x_BND: Tensor) -> Tensor:
        """(B,N,D) -> (B,M,E)."""
        q_BME = self.queries.expand(len(x_BND), -1, -1)
        return F.scaled_dot_product_attention(q_BME, self.to_k(x_BND), self.to_v(x_BND))


def make_map(needs: Needs, rows: tuple[int, int], widths: tuple[int, int], always: bool) -> nn.Module:
    """Return the map that a loss puts behind the student's latents.

    Args:
        needs: of the loss; one that is not ``mapped`` gets the identity.
        rows: latents of student and teacher.
        widths: channels of student and teacher.
        always: a projector also where the shapes are equal.
    """
    if needs.mapped and needs.same_rows and rows[0] != rows[1]:
        return Resampler(widths[0], rows[1], widths[1])
    if needs.mapped and (always or widths[0] != widths[1]):
        return Projector(*widths)
    return nn.Identity()


def stage_pairs(student: int, teacher: int, which: str = "all") -> tuple[tuple[int, int], ...]:
    """Return the pairs (student's stage, teacher's stage) that are compared, both from 0.

    ``all``: stage i of S + 1 with stage i T / S, rounded, of T + 1, so that first is with first and last with last; each is
    paired with itself where they are as many. ``last``: the last two.

    >>> stage_pairs(3, 3), stage_pairs(3, 5), stage_pairs(4, 2), stage_pairs(1, 3)
    (((0, 0), (1, 1), (2, 2)), ((0, 0), (1, 2), (2, 4)), ((0, 0), (1, 0), (2, 1), (3, 1)), ((0, 2),))
    """
    if which == "last" or student == 1:
        return ((student - 1, teacher - 1),)
    return tuple((i, (2 * i * (teacher - 1) + student - 1) // (2 * (student - 1))) for i in range(student))


def related(student: nn.Module, teacher: nn.Module) -> float | None:
    """Return the mean cosine of the two models' latent arrays, row by row; None: they have none, their rows are places.

    Of arrays of another width the channels that both have are compared: a student may begin as a slice of its teacher. 0 for
    arrays of different length.
    """
    own, other = (dict(model.named_parameters()).get("backbone.latents") for model in (student, teacher))
    if own is None or other is None:
        return None
    if len(own) != len(other):
        return 0.0
    width = min(own.shape[1], other.shape[1])
    mine, theirs = (array[:, :width].detach().cpu().float() for array in (own, other))
    return float(F.cosine_similarity(mine, theirs, dim=-1).mean())
