"""Scores of a stream of tasks, computed from its accuracy matrix R.

R[i, j] is the accuracy on task j after learning the tasks 0 … i, both counted from 0, shape (T, T). Below the diagonal and on
it a task has been learned, above it not yet. NaN: not measured. A score that needs an entry which was not measured raises
:class:`NotMeasuredError` and names it; none is computed over the rest.

The scores after the first k tasks are those of ``matrix[:k, :k]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


class NotMeasuredError(ValueError):
    """A score needs accuracies that nobody measured."""


def accuracy_matrix(measured: Mapping[tuple[int, int], float], num_tasks: int) -> Matrix:
    """Return R of single measurements.

    >>> accuracy_matrix({(1, 0): 0.9, (2, 0): 0.6, (2, 1): 0.8}, 2)
    array([[0.9, nan],
           [0.6, 0.8]])

    Args:
        measured: accuracy by (number of tasks learned, from 1; task, from 0).
        num_tasks: T.

    Returns:
        R, float64 (T, T), NaN where nothing was measured.

    Raises:
        ValueError: an index is out of range.
    """
    matrix = np.full((num_tasks, num_tasks), np.nan)
    for (learned, task), accuracy in measured.items():
        if not (1 <= learned <= num_tasks and 0 <= task < num_tasks):
            raise ValueError(
                f"accuracy on task {task} after {learned} tasks: expected a task from 0 to {num_tasks - 1} "
                f"and 1 to {num_tasks} tasks learned"
            )
        matrix[learned - 1, task] = accuracy
    return matrix


def average_accuracy(matrix: Matrix) -> float:
    """ACC = 1/T Σ_j R[T-1, j]: the mean accuracy over all tasks at the end of the stream.

    Source: Lopez-Paz and Ranzato, Gradient Episodic Memory, NeurIPS 2017, Section 2.
    """
    _need(matrix, [(len(matrix) - 1, task) for task in range(_tasks(matrix))])
    return float(matrix[-1].mean())


def backward_transfer(matrix: Matrix) -> float:
    """BWT = 1/(T-1) Σ_{j<T-1} (R[T-1, j] - R[j, j]): what later tasks did to a task since it was learned.

    Below 0: forgetting; above 0: later tasks helped. In [-1, 1].

    Raises:
        ValueError: there is no earlier task, T < 2.

    Source: Lopez-Paz and Ranzato, NeurIPS 2017, Section 2.
    """
    last = _tasks(matrix, least=2) - 1
    earlier = range(last)
    _need(matrix, [*((last, task) for task in earlier), *((task, task) for task in earlier)])
    return float(np.mean([matrix[last, task] - matrix[task, task] for task in earlier]))


def forgetting(matrix: Matrix) -> float:
    """FGT = 1/(T-1) Σ_{j<T-1} (max_{j ≤ i < T-1} R[i, j] - R[T-1, j]): how far a task fell from its best earlier accuracy.

    In [-1, 1]; 0 if nothing changes; never below ``-backward_transfer``, which takes R[j, j] in place of the best. The paper
    lets i start at the first task; rows before task j was learned hold nothing to forget, and are left out here.

    Raises:
        ValueError: there is no earlier task, T < 2.

    Source: Chaudhry et al., Riemannian Walk for Incremental Learning, ECCV 2018, the forgetting measure F_k.
    """
    last = _tasks(matrix, least=2) - 1
    earlier = range(last)
    _need(matrix, [(row, task) for task in earlier for row in range(task, last + 1)])
    return float(np.mean([matrix[task:last, task].max() - matrix[last, task] for task in earlier]))


def forward_transfer(matrix: Matrix, untrained: Sequence[float]) -> float:
    """1/(T-1) Σ_{j>0} (R[j-1, j] - b_j): what earlier tasks do for a task before it is learned (zero-shot).

    It needs the diagonal above the main one, so the head of task j is that of a model which has not seen the task. The paper
    calls it FWT; in our tables FWT is :func:`transfer_gain`, and this is headed ``zero-shot``.

    Args:
        matrix: R, (T, T).
        untrained: b, the accuracy on each task of the model as initialised, (T,); b_0 is not used.

    Raises:
        ValueError: T < 2, or ``untrained`` is of another length.

    Source: Lopez-Paz and Ranzato, NeurIPS 2017, Section 2.
    """
    total = _tasks(matrix, least=2)
    base = _one_a_task(untrained, total, "untrained")
    later = range(1, total)
    _need(matrix, [(task - 1, task) for task in later])
    _need_each(base, later, "before any task was learned")
    return float(np.mean([matrix[task - 1, task] - base[task] for task in later]))


def transfer_gain(matrix: Matrix, scratch: Sequence[float]) -> float:
    """FWT = 1/T Σ_j (R[j, j] - s_j): what a model that kept or received something learns better than a fresh one.

    Forward transfer with training from scratch as the reference (over whole learning curves: Wołczyk et al., Continual World,
    NeurIPS 2021); :func:`forward_transfer` is the other meaning. The first task counts, because its backbone may come from
    another client. Fair only at the same parameters and gradient steps.

    Args:
        matrix: R, (T, T).
        scratch: s, the accuracy on each task of a fresh model of the same size that learned this task alone, (T,).

    Raises:
        ValueError: ``scratch`` is of another length.
    """
    total = _tasks(matrix)
    alone = _one_a_task(scratch, total, "scratch")
    _need(matrix, [(task, task) for task in range(total)])
    _need_each(alone, range(total), "learned from scratch")
    return float((np.diagonal(matrix) - alone).mean())


def capacity(parameters: int, parameters_of_one: int) -> float:
    """Return the parameters stored for all tasks as a multiple of those of one model for one task.

    T separate models have capacity T. Everything that evaluation needs counts: heads, masks in units of a parameter, adapters.

    Raises:
        ValueError: a number is not above 0.
    """
    if parameters <= 0 or parameters_of_one <= 0:
        raise ValueError(f"{parameters} parameters, one model {parameters_of_one}: expected both above 0")
    return parameters / parameters_of_one


def _tasks(matrix: Matrix, least: int = 1) -> int:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < least:
        raise ValueError(f"accuracy matrix of shape {matrix.shape}: expected (T, T) with T = {least} or more tasks")
    return len(matrix)


def _need(matrix: Matrix, entries: Iterable[tuple[int, int]]) -> None:
    missing = [entry for entry in entries if np.isnan(matrix[entry])]
    if missing:
        told = ", ".join(f"R[{row}, {task}]" for row, task in missing)
        raise NotMeasuredError(f"{told} not measured: evaluate these tasks (second index) after learning the first one's")


def _need_each(values: NDArray[np.float64], tasks: Iterable[int], when: str) -> None:
    missing = [task for task in tasks if np.isnan(values[task])]
    if missing:
        raise NotMeasuredError(f"accuracy on task {', '.join(map(str, missing))} {when}: not measured")


def _one_a_task(values: Sequence[float], total: int, name: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (total,):
        raise ValueError(f"{name} has shape {array.shape}, expected one accuracy for each of {total} tasks")
    return array
