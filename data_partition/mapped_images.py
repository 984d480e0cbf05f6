"""A tensor whose rows stay in a file until they are indexed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from data_partition.splits import MappedRows

aten = torch.ops.aten


class MappedImages(Tensor):
    """Images of one client, uint8 (n, 3, S, S), which take no memory of the process.

    Indexing by rows returns an ordinary tensor with a copy of those rows; slices and splits along the first axis are mapped
    again. Anything else reads all rows first, and works on the copy: nothing can be written into the file.

    Built as a wrapper subclass: https://docs.pytorch.org/docs/stable/notes/extending.html.
    """

    rows: MappedRows
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # all is done below

    @staticmethod
    def __new__(cls, rows: MappedRows) -> MappedImages:
        """Wrap rows of a file."""
        # Outside inference mode: a tensor that is made there cannot be indexed outside, and the other way round.
        with torch.inference_mode(False):
            made: MappedImages = Tensor._make_wrapper_subclass(
                cls, (len(rows.places), *rows.pixels.shape[1:]), dtype=torch.uint8
            )
        made.rows = rows
        return made

    def __init__(self, rows: MappedRows) -> None:
        super().__init__()

    def read(self) -> Tensor:
        """Return all rows as an ordinary tensor."""
        return torch.from_numpy(self.rows.read())

    def numpy(self, *, force: bool = False) -> Any:
        return self.rows.read()

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"MappedImages({tuple(self.shape)})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[Any, Any] | None = None
    ) -> Any:
        with torch.inference_mode(False):
            if isinstance(args[0], cls):
                rows, rest = args[0].rows, tuple(args[1:])
                if func is aten.index.Tensor and _is_one_list(rest):
                    return torch.from_numpy(rows[rest[0][0].cpu().numpy()].read())
                if func is aten.slice.Tensor and rest[:1] in ((), (0,)):
                    return cls(rows[slice(*rest[1:])])
                if func is aten.split.Tensor and rest[1:] in ((), (0,)):
                    return [cls(rows[start : start + rest[0]]) for start in range(0, len(rows.places), rest[0])]
            return func(*tree_map_only(cls, cls.read, args), **tree_map_only(cls, cls.read, kwargs or {}))


def _is_one_list(rest: tuple[Any, ...]) -> bool:
    """Say whether the arguments of an index are one list of row numbers."""
    return len(rest[0]) == 1 and rest[0][0].dtype == torch.int64 and rest[0][0].ndim == 1
