"""Removing the closed columns of a low-rank projection: fewer parameters and operations, the same output."""

from __future__ import annotations

from collections.abc import Sequence

from models.groups import copy_model
from models.linceiver import LinceiverIO
from models.low_rank import keep_columns


def open_columns(model: LinceiverIO) -> list[int]:
    """Return the columns that the gate leaves open, ascending.

    Raises:
        ValueError: the model has no gate.
    """
    if model.adapter.gate is None:
        raise ValueError("the model has no gate on its columns: set model.adaptive-k to prefix or hard-concrete")
    return model.adapter.gate.open_columns()


def slice_columns(model: LinceiverIO, columns: Sequence[int] | None = None) -> LinceiverIO:
    """Return a copy of a model without its closed columns; its output in evaluation mode is the same.

    Partly open columns stay, with their gate.

    Args:
        model: with a gate.
        columns: what to keep instead, ascending; for ``prefix`` the first ones.

    Raises:
        ValueError: the model has no gate, or one that closes no column (``sigmoid``).
    """
    columns = open_columns(model) if columns is None else columns
    sliced = copy_model(model)
    assert sliced.adapter.gate is not None
    assert sliced.projection is not None
    sliced.adapter.gate.keep(columns)
    keep_columns(sliced.projection, columns)
    if sliced.adapter.input_bias is not None:
        sliced.adapter.input_bias.keep(columns)
    return sliced
