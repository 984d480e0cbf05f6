"""How alike two clients' models are by what each told of its own in 2 KB (client/modeldiff/sketch.py and responses.py)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIZE = 512
"""Sums of a group of parameters."""
PAIRS = 1000
"""Pairs of common probes."""
SHAPES = {"weights": (2, SIZE), "responses": (PAIRS,)}
"""Of what a client tells, by ``selection.sketch``; of weights one row for the backbone and one for the adapter."""
Sketch = NDArray[np.float16]


def similarity(a: Sketch, b: Sketch, *, same_modality: bool = True) -> float:
    """Return the cosine of two sketches of weights, or the correlation of two of responses, in [-1, 1]; 0 if one is constant.

    Args:
        a: of one client.
        b: of another, of one shape with a.
        same_modality: otherwise of weights the backbones alone are compared, as adapters differ.

    Raises:
        ValueError: they have different shapes, or are not finite.
    """
    if a.shape != b.shape or not 1 <= a.ndim <= 2:
        raise ValueError(f"found sketches of shapes {a.shape} and {b.shape}, expected one shape")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("found a sketch with values NaN or infinite, expected finite ones")
    x, y = a.astype(np.float64), b.astype(np.float64)
    if a.ndim == 1:
        x, y = x - x.mean(), y - y.mean()
    elif not same_modality:
        x, y = x[0], y[0]
    norms = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float((x * y).sum()) / norms if norms > 0 else 0.0
