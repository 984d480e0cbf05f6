"""The weighted mean of FedAvg (McMahan et al., AISTATS 2017, Algorithm 1), in one fixed order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np


def weighted_mean(tensors: Iterable[tuple[Mapping[str, np.ndarray], float]]) -> dict[str, np.ndarray]:
    """Return Σ w_i x_i / Σ w_i for every named array.

    Sums run in float64 in the order given, so give clients in the order of their ids: floating-point sums depend on it.

    Args:
        tensors: arrays by name and weight (> 0) of each client; names and shapes are equal for all.

    Returns:
        Means in float32.

    >>> weighted_mean([({"w": np.array([0.0, 2.0])}, 1.0), ({"w": np.array([4.0, 4.0])}, 3.0)])["w"].tolist()
    [3.0, 3.5]
    """
    sums: dict[str, np.ndarray] = {}
    total = 0.0
    for arrays, weight in tensors:
        for name, value in arrays.items():
            if name in sums:
                sums[name] += value.astype(np.float64) * weight
            else:
                sums[name] = value.astype(np.float64) * weight
        total += weight
    if total <= 0.0:
        raise ValueError("nothing to average: no client, or weights that sum to 0")
    return {name: (value / total).astype(np.float32) for name, value in sums.items()}
