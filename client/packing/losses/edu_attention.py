"""EduAttention: student features ask the teacher's class prototypes, and add what they are told.

    f_att = softmax(FC_q(P(u_s)) FC_k(w)^T / C) FC_v(w),   f_e = P(u_s) + alpha f_att
    L = tau^2 KL(softmax(q_t / tau) || softmax(q_s / tau)),   q_t from (u_t, w), q_s from (f_e, w)

u_s, u_t are features of student and teacher, w (classes, D) the teacher's prototypes: its text features in CLIP, the mean of
its features of each class otherwise. alpha starts at 0, so training starts as plain distillation. P is the projector of the
student, which IFAlign may share. The value of C is not published; the root of D is what attention usually has.

Source: ComKD-CLIP (Chen, Qiao, Sun & Li, arXiv 2408.04145), section on educational attention.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LOGIT_SCALE = 100.0
"""What cosines are multiplied by to be logits: the largest that CLIP lets itself learn (Radford et al., ICML 2021)."""


class EduAttention(nn.Module):
    """The module; see above.

    Args:
        projector: P, from the student's width to the teacher's.
        width: channels D of the teacher's features and prototypes.
        scale: C; 0: the root of D.
    """

    def __init__(self, projector: nn.Module, width: int, scale: float = 0.0) -> None:
        super().__init__()
        self.projector = projector
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.scale = scale or math.sqrt(width)
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, features_BE: Tensor, prototypes_CD: Tensor) -> Tensor:
        """Student features (B,E) and prototypes (C,D) to refined features f_e (B,D)."""
        own_BD = self.projector(features_BE)
        scores_BC = self.query(own_BD) @ self.key(prototypes_CD).T / self.scale
        refined_BD: Tensor = own_BD + self.alpha * (scores_BC.softmax(dim=-1) @ self.value(prototypes_CD))
        return refined_BD


def prototype_logits(features_BD: Tensor, prototypes_CD: Tensor, logit_scale: float = LOGIT_SCALE) -> Tensor:
    """Return the logits (B,C) of features: their cosine to each prototype, scaled (ComKD-CLIP, Eq. 1)."""
    return logit_scale * F.normalize(features_BD, dim=-1) @ F.normalize(prototypes_CD, dim=-1).T


def class_prototypes(features_nD: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return the mean feature of each class, (C,D).

    Args:
        features_nD: of labelled examples.
        labels: (n,), in [0, C).
        num_classes: C.

    Raises:
        ValueError: a class has no example.
    """
    counts = torch.bincount(labels, minlength=num_classes)
    if missing := (counts == 0).nonzero().flatten().tolist():
        raise ValueError(f"classes {missing} have no example: a prototype is a mean of 1 or more")
    sums = features_nD.new_zeros(num_classes, features_nD.shape[1]).index_add_(0, labels, features_nD)
    return sums / counts[:, None]
