"""Sparse arrays on the wire and on disk: one bit for each position, four bytes for each value that is not zero.

    (3.0, 0, 0, -1.5)  ->  positions 0b10010000, values (3.0, -1.5)

An array of n numbers, k of them not zero, takes ceil(n / 8) + 4 k bytes in place of 4 n: fewer from 1/32 of zeros on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from models.arrays import Arrays

POSITIONS = ".positions"
VALUES = ".values"


def sparse(array: np.ndarray) -> Arrays:
    """Return the positions (uint8, 8 each, the rest of the last byte 0) and the values (float32) of what is not zero.

    >>> {name: part.tolist() for name, part in sparse(np.array([[3.0, 0.0], [0.0, -1.5]])).items()}
    {'positions': [144], 'values': [3.0, -1.5]}
    """
    flat = np.asarray(array, dtype=np.float32).reshape(-1)
    return {"positions": np.packbits(flat != 0), "values": flat[flat != 0]}


def dense(parts: Mapping[str, np.ndarray], shape: Sequence[int]) -> np.ndarray:
    """Return the array, float32, that :func:`sparse` took apart.

    Raises:
        ValueError: positions and values do not belong together, or not to the shape.
    """
    size = math.prod(shape)
    positions, values = parts["positions"], parts["values"]
    if positions.dtype != np.uint8 or positions.shape != (-(-size // 8),):
        raise ValueError(f"found positions {positions.dtype} {positions.shape}, expected uint8 {(-(-size // 8),)}")
    where = np.unpackbits(positions).astype(bool)
    if where[size:].any() or values.shape != (where.sum(),):
        raise ValueError(f"found {where.sum()} positions and values {values.shape} for shape {tuple(shape)}")
    array = np.zeros(size, np.float32)
    array[where[:size]] = values
    return array.reshape(tuple(shape))


def sparse_all(arrays: Mapping[str, np.ndarray]) -> Arrays:
    """Return two arrays for each array, ``NAME.positions`` and ``NAME.values``."""
    return {f"{name}.{part}": value for name, array in arrays.items() for part, value in sparse(array).items()}


def dense_all(arrays: Mapping[str, np.ndarray], shapes: Mapping[str, Sequence[int]]) -> Arrays:
    """Return the arrays that :func:`sparse_all` took apart.

    Args:
        arrays: two for each name.
        shapes: of every array.

    Raises:
        ValueError: an array is missing, unknown or of another shape.
    """
    expected = {name + part for name in shapes for part in (POSITIONS, VALUES)}
    if wrong := expected ^ set(arrays):
        raise ValueError(f"{sorted(wrong)[:4]} are missing or unknown: found {len(arrays)} arrays, expected {len(expected)}")
    return {
        name: dense({"positions": arrays[name + POSITIONS], "values": arrays[name + VALUES]}, shape)
        for name, shape in shapes.items()
    }
