"""How many bytes a record takes on the wire: the values themselves, and the framing around them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, RecordDict


@dataclass(frozen=True)
class WireSize:
    """Bytes of one direction of one message.

    Attributes:
        parameters: number of values in arrays.
        payload: their bytes (parameters × bytes per value).
        framing: everything else: array headers, names, instruction, metrics.
    """

    parameters: int = 0
    payload: int = 0
    framing: int = 0


def wire_size(content: RecordDict) -> WireSize:
    """Measure a record in Flower's own serialised form (each object deflated, arrays in .npy form)."""
    parameters = payload = total = 0
    for key, record in content.items():
        total += len(key)
        if isinstance(record, ArrayRecord):
            for name, array in record.items():
                values = math.prod(array.shape)
                parameters += values
                payload += values * np.dtype(array.dtype).itemsize
                total += len(name) + len(array.dtype) + 8 * len(array.shape) + len(array.data)
        else:
            total += len(record.deflate())
    return WireSize(parameters, payload, total - payload)
