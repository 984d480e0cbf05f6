"""Scores and loss weights for classes of unequal size."""

from __future__ import annotations

import torch
from torch import Tensor


def balanced_accuracy(predictions: Tensor, labels: Tensor, num_classes: int) -> float:
    """Mean over classes of the share of a class's examples that are predicted right; chance is 1 / classes present.

    >>> balanced_accuracy(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1]), 2)
    0.75

    Args:
        predictions: class indices, (n,).
        labels: class indices, (n,), in [0, num_classes).
        num_classes: classes of the client; those without an example do not count.

    Raises:
        ValueError: there is no example, or the two shapes differ.
    """
    if predictions.shape != labels.shape or labels.numel() == 0:
        raise ValueError(
            f"predictions {tuple(predictions.shape)} and labels {tuple(labels.shape)}: expected one shape, not empty"
        )
    labels = labels.long()
    counts = torch.bincount(labels, minlength=num_classes)
    hits = torch.bincount(labels[predictions == labels], minlength=num_classes)
    present = counts > 0
    return float((hits[present].double() / counts[present].double()).mean())


def class_weights(labels: Tensor, num_classes: int) -> Tensor:
    """Loss weights by inverse class frequency, float32 (num_classes,), whose mean over the examples is 1.

    A class without an example gets weight 0.

    >>> class_weights(torch.tensor([0, 0, 0, 1]), 2)
    tensor([0.6667, 2.0000])
    """
    counts = torch.bincount(labels.long(), minlength=num_classes).float()
    present = counts > 0
    return torch.where(present, labels.numel() / (present.sum() * counts.clamp(min=1)), 0.0)
