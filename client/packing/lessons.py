"""What one teacher teaches one student: the terms of the loss between them, with the maps that they need.

    L = a_ce CE(z_s, y) + sum over teachers k and losses l of  a_l  mean over b of  w_bk L_l(student, teacher k)_b

A loss of latents is the mean over the pairs of stages, so that its weight does not depend on depth. A loss of a batch is
multiplied by the batch's mean of w_bk.

Shapes: B batch, K teachers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from client.packing.labels import LogitRule, ReusedHead
from client.packing.losses.edu_attention import EduAttention, prototype_logits
from client.packing.losses.logits import hinton
from client.packing.losses.table import LATENT_LOSSES, NEEDS
from client.packing.needs import Pair, usable_stages
from client.packing.projectors import Projector, make_map
from client.packing.teachers import Answers
from config import Packing
from models.trace import Trace


@dataclass(frozen=True)
class Shape:
    """Shapes of what a model computes: rows and channels of each stage, and channels of its features."""

    rows: tuple[int, ...]
    widths: tuple[int, ...]
    features: int


class Lesson(nn.Module):
    """The terms between a student and one teacher; it is trained with the student, and dropped after.

    Args:
        settings: temperature, weights and so on.
        losses: names of those that this teacher teaches by.
        pair: what there is between the two.
        stages: pairs of stages, in the order of ``pair.rows``.
        rule: for logits.
        shapes: of student and teacher.
        teacher: whose classifier may be read.
        prototypes: of the teacher.
    """

    def __init__(
        self,
        settings: Packing,
        losses: tuple[str, ...],
        pair: Pair,
        stages: tuple[tuple[int, int], ...],
        rule: LogitRule,
        shapes: tuple[Shape, Shape],
        teacher: nn.Module,
        prototypes: Tensor | None,
    ) -> None:
        super().__init__()
        self.temperature, self.losses, self.stages, self.rule = settings.temperature, losses, stages, rule
        self.usable = {name: usable_stages(NEEDS[name], pair) for name in losses if name in LATENT_LOSSES}
        self.maps = nn.ModuleDict()  # one for each pair of stages and kind of map: losses share them, as in ComKD-CLIP
        always = settings.projector == "always"
        for name, usable in self.usable.items():
            for i in usable:
                if (key := self._key(name, i)) not in self.maps:
                    self.maps[key] = make_map(NEEDS[name], pair.rows[i], pair.widths[i], always)
        widths = shapes[0].features, shapes[1].features
        self.reused = ReusedHead(Projector(*widths), teacher) if "kd" in losses and rule.kind == "teacher-head" else None
        self.attention: EduAttention | None = None
        if "edu-attention" in losses:
            assert prototypes is not None  # refused before
            self.attention = EduAttention(Projector(*widths), widths[1], settings.attention_scale)
            self.register_buffer("prototypes", prototypes.detach().float().clone())

    @staticmethod
    def _key(name: str, stage: int) -> str:
        needs = NEEDS[name]
        return f"{stage}-{'rows' if needs.mapped and needs.same_rows else 'channels' if needs.mapped else 'none'}"

    def forward(self, student: Trace, answers: Answers) -> dict[str, Tensor]:
        """Return each term by its name: (B,), or a scalar for a loss of a batch.

        Args:
            student: float32, of the same instances in the same order, unless all losses take unpaired ones.
            answers: of the teacher, on the same device.
        """
        found = {name: self._latent_term(name, student, answers) for name in self.usable}
        if "kd" in self.losses and self.rule.kind != "none":
            found["kd"] = self._logit_term(student, answers)
        if self.attention is not None:
            prototypes = self.get_buffer("prototypes")
            refined = self.attention(student.queries.mean(dim=1), prototypes)
            own, other = (prototype_logits(features, prototypes) for features in (refined, answers.features))
            found["edu-attention"] = hinton(own, other, self.temperature)
        return found

    def _latent_term(self, name: str, student: Trace, answers: Answers) -> Tensor:
        terms = []
        for i in self.usable[name]:
            own, other = self.stages[i]
            mapped = self.maps[self._key(name, i)](student.latents[own])
            grid = answers.grids[other] if answers.grids else ()
            terms.append(LATENT_LOSSES[name](mapped, answers.latents[other], grid))
        return torch.stack(terms).mean(dim=0)

    def _logit_term(self, student: Trace, answers: Answers) -> Tensor:
        if self.reused is not None:
            return hinton(self.reused(student.queries.mean(dim=1)), answers.logits, self.temperature)
        return hinton(student.logits[:, self.rule.student], answers.logits[:, self.rule.teacher], self.temperature)

    def agreement(self, student: Trace, answers: Answers) -> Tensor | None:
        """Return where student and teacher choose the same class, bool (B,), among those in common; None: there are none."""
        if self.rule.kind != "columns" or len(student.logits) != len(answers.logits):
            return None
        own, other = student.logits[:, self.rule.student], answers.logits[:, self.rule.teacher]
        return own.argmax(dim=1) == other.argmax(dim=1)


def total(terms: Mapping[str, Tensor], weights: Mapping[str, float], weights_B: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Weigh the terms of one teacher.

    Args:
        terms: of :class:`Lesson`.
        weights: a_l of each loss.
        weights_B: w_bk of this teacher for each sample; of an unpaired one any number of samples.

    Returns:
        The scalar to descend, and for the log each term weighted by the teacher's weight alone.
    """
    weighed = {
        name: (weights_B * term).mean() if NEEDS[name].per_sample else weights_B.mean() * term for name, term in terms.items()
    }
    loss = torch.stack([weights[name] * term for name, term in weighed.items()]).sum()
    return loss, {name: float(term.detach()) for name, term in weighed.items()}
