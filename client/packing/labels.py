"""Which logits of a teacher mean what to a student, when the two know different classes.

- two or more classes in common: both softmaxes are over these alone ("masked"). The rest says nothing, and is not padded.
- otherwise they are disjoint. By default such a teacher's logits are left out. ``teacher-head``: its frozen classifier reads
  the student's projected features, KL(softmax(z_t / tau) || softmax(h_t(P f_s) / tau)), which needs no class in common: the
  student learns features that the teacher would decide on as on its own.

Source of the reused classifier: Chen et al., "Knowledge Distillation with the Reused Teacher Classifier" (SimKD), CVPR 2022;
CA-MKD (ICASSP 2022) weighs features so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSIFIER = "head.classifier"


@dataclass(frozen=True)
class LogitRule:
    """How a student's logits are compared with a teacher's.

    Attributes:
        kind: ``columns``: those below; ``teacher-head``: see the module's docstring; ``none``: not at all.
        student: columns of the student, of the classes in common.
        teacher: columns of the teacher, in the same order of classes.
    """

    kind: Literal["columns", "teacher-head", "none"]
    student: tuple[int, ...]
    teacher: tuple[int, ...]


def logit_rule(student: Sequence[str], teacher: Sequence[str], disjoint: Literal["none", "teacher-head"]) -> LogitRule:
    """Return the rule for the classes of a student and of a teacher, each in the order of its logits.

    >>> logit_rule(("cat", "dog", "owl"), ("owl", "cat", "bee"), "none")
    LogitRule(kind='columns', student=(0, 2), teacher=(1, 0))

    Raises:
        ValueError: a class is there twice.
    """
    for names in (student, teacher):
        if len(set(names)) < len(names):
            raise ValueError(f"found {list(names)}: a class is there twice, and which logit is meant is open")
    common = [name for name in student if name in set(teacher)]
    columns = tuple(student.index(name) for name in common), tuple(teacher.index(name) for name in common)
    return LogitRule("columns" if len(common) > 1 else disjoint, *columns)


def teacher_labels(labels: Tensor, rule: LogitRule) -> Tensor:
    """Return the teacher's label of each of the student's, int64 (n,), -1 where the teacher does not know the class."""
    table = torch.full((int(labels.max()) + 1 if len(labels) else 1,), -1)
    for own, other in zip(rule.student, rule.teacher, strict=True):
        if own < len(table):
            table[own] = other
    return table[labels]


class ReusedHead(nn.Module):
    """A teacher's frozen classifier behind a learned projector of the student's features.

    Args:
        projector: from the student's width to the teacher's.
        teacher: its linear layer ``head.classifier`` is copied.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, projector: nn.Module, teacher: nn.Module) -> None:
        super().__init__()
        self.projector = projector
        classifier = teacher.get_submodule(CLASSIFIER)
        assert isinstance(classifier, nn.Linear)
        self.register_buffer("weight", classifier.weight.detach().clone())
        self.register_buffer("bias", classifier.bias.detach().clone())

    def forward(self, features_BD: Tensor) -> Tensor:
        """Student features (B,D) to logits of the teacher's classes."""
        return F.linear(self.projector(features_BD), self.weight, self.bias)
