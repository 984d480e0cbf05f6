"""Reading the pickles of CIFAR without running what is in them.

A pickle is a program that may call any function by its name. Here the names are looked up in a table of four stand-ins, which
keep bytes and call nothing; any other name is refused before it is imported. What comes out are bytes, numbers, lists, dicts
and arrays of uint8. The files were written by Python 2: their texts are bytes.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from data_partition.files import DataError


class _Type:
    """Stands in for numpy.dtype: uint8 or refused."""

    def __init__(self, name: object = b"", *_: object) -> None:
        if name not in (b"u1", "u1"):
            raise pickle.UnpicklingError(f"an array of the type {name!r}, expected 'u1' (uint8)")

    def __setstate__(self, state: object) -> None:
        pass


class _Array:
    """Stands in for numpy.ndarray: the bytes and the shape that the pickle gives it."""

    content: NDArray[np.uint8] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, content = state
        if not isinstance(kind, _Type) or not isinstance(content, bytes) or fortran:
            raise pickle.UnpicklingError("an array in an unexpected form, expected the bytes of uint8 in row order")
        self.content = np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _encode(text: str, encoding: str) -> bytes:
    """Stand in for _codecs.encode, by which Python 3 writes bytes for Python 2."""
    if (type(text), encoding) != (str, "latin1"):
        raise pickle.UnpicklingError(f"a text in {encoding!r}, expected 'latin1'")
    return text.encode("latin1")


ALLOWED: Final = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
}
"""What a pickle may name, and what it gets."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, expected nothing but arrays, lists and texts")
        return ALLOWED[module, name]

    def persistent_load(self, pid: object) -> Any:
        raise pickle.UnpicklingError("it refers to objects outside of the file")


def read_pickle(path: Path) -> dict[bytes, Any]:
    """Return the dict of a pickle; its arrays are read-only numpy arrays of uint8.

    Raises:
        DataError: the file is no pickle, was cut short, is no dict, or names anything that CIFAR does not need.
    """
    try:
        found = _Unpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except Exception as error:  # a damaged pickle may raise anything
        raise DataError(f"{path} is refused: {error or type(error).__name__}; unpack the official archive again.") from None
    if not isinstance(found, dict):
        raise DataError(f"{path} holds a {type(found).__name__}, expected a dict; unpack the official archive again.")
    return {_as_bytes(key): value.content if isinstance(value, _Array) else value for key, value in found.items()}


def _as_bytes(key: Any) -> Any:
    return key.encode() if isinstance(key, str) else key
