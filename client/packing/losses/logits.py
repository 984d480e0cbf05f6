"""Distillation of logits.

    L = tau^2 sum_c p_c log(p_c / q_c),   p = softmax(teacher / tau), q = softmax(student / tau)

The sum over classes, one value for each sample: its mean over a batch is the ``batchmean`` of PyTorch. PyTorch's default,
``mean``, is smaller by the number of classes. With tau^2 the gradient is about as large at every tau.

Source: Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531, section 2.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def hinton(student_BC: Tensor, teacher_BC: Tensor, temperature: float) -> Tensor:
    """Return the loss of each sample, (B,), >= 0, in nats.

    Args:
        student_BC: logits, of the same classes in the same order as the teacher's.
        teacher_BC: logits.
        temperature: tau > 0.
    """
    log_p = F.log_softmax(teacher_BC / temperature, dim=-1)
    log_q = F.log_softmax(student_BC / temperature, dim=-1)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(dim=-1)
