"""The weighted mean of FedAvg (McMahan et al., AISTATS 2017, Algorithm 1), in one fixed order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

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


def masked_mean(
    clients: Iterable[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray], float]],
) -> dict[str, np.ndarray]:
    """Average every number over the clients whose own it is; one that is nobody's is 0.

    Args:
        clients: arrays by name, where they are the client's own (bool, same names and shapes), and weight (> 0) of each
            client, in the order of their ids.

    Returns:
        Means in float32.

    Source: HeteroFL (Diao et al., ICLR 2021), Eq. 3, for single numbers.

    >>> one = ({"w": np.array([1.0, 2.0, 3.0])}, {"w": np.array([True, True, False])}, 1.0)
    >>> two = ({"w": np.array([5.0, 6.0, 7.0])}, {"w": np.array([True, False, False])}, 3.0)
    >>> masked_mean([one, two])["w"].tolist()
    [4.0, 2.0, 0.0]
    """
    sums: dict[str, np.ndarray] = {}
    totals: dict[str, np.ndarray] = {}
    for arrays, masks, weight in clients:
        for name, value in arrays.items():
            if name not in sums:
                sums[name], totals[name] = np.zeros(value.shape), np.zeros(value.shape)
            np.add(sums[name], value.astype(np.float64) * weight, out=sums[name], where=masks[name])
            np.add(totals[name], weight, out=totals[name], where=masks[name])
    return {name: (sums[name] / np.where(totals[name] > 0, totals[name], 1.0)).astype(np.float32) for name in sums}


def column_mean(previous: np.ndarray, clients: Iterable[tuple[np.ndarray, float, Sequence[int]]]) -> np.ndarray:
    """Average each column of a matrix over the clients that kept it; a column that none kept stays as it was.

    So a client that closed a column neither pulls it to its stale copy nor loses it for good: the next round brings the mean
    back, and the client may open the column again.

    Args:
        previous: the matrix before the round (R, K).
        clients: each client's matrix (R, K), its weight and the columns that it kept, in the order of their ids.

    Returns:
        Means in float32, (R, K).

    Source: HeteroFL (Diao et al., ICLR 2021), Eq. 3, and FjORD (Horváth et al., NeurIPS 2021), applied to columns.

    >>> old = np.array([[9.0, 9.0, 9.0]])
    >>> column_mean(old, [(np.array([[1.0, 2.0, 3.0]]), 1.0, [0, 1]), (np.array([[3.0, 5.0, 7.0]]), 1.0, [0])]).tolist()
    [[2.0, 2.0, 9.0]]
    """
    total = np.zeros(previous.shape[-1])
    sums = np.zeros(previous.shape)
    for matrix, weight, columns in clients:
        kept = np.asarray(columns, dtype=np.intp)
        sums[..., kept] += matrix[..., kept].astype(np.float64) * weight
        total[kept] += weight
    return np.where(total > 0, sums / np.where(total > 0, total, 1.0), previous).astype(np.float32)
