"""Named tensors as named NumPy arrays, which is what travels and what is stored.

NumPy and Flower's arrays have no bfloat16: such tensors become float32, which holds each of their values exactly. An array
that is copied into a model takes the model's dtype.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import nn

from models.groups import get_tensors, set_tensors

Arrays = dict[str, np.ndarray]


def get_arrays(model: nn.Module, names: Iterable[str]) -> Arrays:
    """Return copies of some tensors of a model; bfloat16 as float32."""
    return {
        name: (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        for name, tensor in get_tensors(model, names).items()
    }


def set_arrays(model: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Copy arrays into a model in place, from any floating-point dtype to the model's own.

    Raises:
        ValueError: see :func:`models.groups.set_tensors`.
    """
    set_tensors(model, {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})
