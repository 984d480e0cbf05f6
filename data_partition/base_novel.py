"""The base-to-novel protocol: some classes are trained on, the others are known by their names alone.

Each half is scored among its own classes: an image of a novel class competes with the other novel classes only. One number for
both is their harmonic mean, HM = 2 B N / (B + N). The first classes of a client are base, the last are novel.

Source: CoCoOp (Zhou, Yang, Loy & Liu, CVPR 2022), section 4.1; there accuracy is over examples, here the mean over classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from data_partition.metrics import balanced_accuracy


def base_classes(classes: int, novel_share: float) -> int:
    """Return how many of a client's classes are base.

    >>> base_classes(12, 0.5), base_classes(5, 0.5)
    (6, 3)

    Raises:
        ValueError: fewer than two would be base, or novel.
    """
    novel = int(novel_share * classes)
    if novel < 2 or classes - novel < 2:
        raise ValueError(
            f"clip.novel-share = {novel_share} of {classes} classes makes {classes - novel} base and {novel} novel: expected "
            "2 or more of both; change it, or use a data.grouping with more classes a client"
        )
    return classes - novel


def base_rows(labels: Tensor, base: int) -> Tensor:
    """Return the places of the examples of base classes, ascending, int64 (n,)."""
    return (labels < base).nonzero().flatten()


def harmonic_mean(base: float, novel: float) -> float:
    """Return HM; 0 if one of both is.

    >>> round(harmonic_mean(0.6, 0.3), 9)
    0.4
    """
    return 2 * base * novel / (base + novel) if base and novel else 0.0


def scores(logits: Tensor, labels: Tensor, base: int) -> dict[str, float]:
    """Return ``base``, ``novel``, their ``harmonic-mean``, and the ``balanced-accuracy`` among all classes.

    Args:
        logits: (n, classes), base classes first.
        labels: (n,); some must be base, some novel.
        base: number of base classes.
    """
    classes = logits.shape[1]
    known = labels < base
    first = balanced_accuracy(logits[known, :base].argmax(dim=1), labels[known], base)
    second = balanced_accuracy(logits[~known, base:].argmax(dim=1), labels[~known] - base, classes - base)
    return {
        "base": first,
        "novel": second,
        "harmonic-mean": harmonic_mean(first, second),
        "balanced-accuracy": balanced_accuracy(torch.argmax(logits, dim=1), labels, classes),
        "num-examples": len(labels),
    }
