"""What several scorers do with outputs first."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

ROUNDING = 1e-6
"""Differences of float32 outputs smaller than this share of their size are rounding, and taken as none."""


def exact(outputs: Tensor) -> Tensor:
    """The same in float64 on the CPU, where the scores of a hundred probes are fastest."""
    return outputs.detach().cpu().double()


def centred(features: Tensor) -> Tensor:
    """Less their mean over the probes, float64 (n, F).

    A row that differs from the mean by no more than rounding is 0, so that a model that answers every probe alike has zeros
    rather than noise.

    >>> centred(torch.tensor([[1.0, 2.0], [3.0, 2.0]])).tolist()
    [[-1.0, 0.0], [1.0, 0.0]]

    Args:
        features: of the probes, (n, F).
    """
    rows = exact(features)
    moved = rows - rows.mean(0)
    return torch.where(moved.norm(dim=1, keepdim=True) > ROUNDING * rows.norm(dim=1).max(), moved, 0.0)


def relabelled(labels: Tensor) -> Tensor:
    """Labels counted from 0 over the classes that are present, int64 (n,).

    >>> relabelled(torch.tensor([5, 2, 5])).tolist()
    [1, 0, 1]
    """
    return torch.from_numpy(np.unique(labels.cpu().numpy(), return_inverse=True)[1])
