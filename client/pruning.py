"""Adaptive k on the client: which columns it keeps, and what the model costs with and without the others."""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch import Tensor, nn

from models.gates import SigmoidGate
from models.linceiver import LinceiverIO
from models.size import measure
from models.slicing import open_columns, slice_columns


def kept_columns(model: nn.Module) -> dict[str, float | list[int]]:
    """Return the metrics ``columns``, those left open, and ``k``, their number; nothing without a gate."""
    if not isinstance(model, LinceiverIO) or model.adapter.gate is None:
        return {}
    columns = open_columns(model)
    facts: dict[str, float | list[int]] = {"columns": columns, "k": len(columns)}
    if isinstance(model.adapter.gate, SigmoidGate):
        facts["effective-k"] = model.adapter.gate.effective_k()
    return facts


def without_closed_columns(model: nn.Module, sample: Tensor | None) -> tuple[nn.Module, dict[str, float]]:
    """Remove closed columns.

    Args:
        model: any model.
        sample: a batch to measure costs on; None: do not.

    Returns:
        The model that is left, the same if nothing was removed, and metrics: ``k``, and for macs, parameters, bytes and
        milliseconds each a value ``…-full`` with all columns and a value ``…-kept``; ``logit-change``, the largest
        difference that removing made to a logit of the sample.
    """
    if not isinstance(model, LinceiverIO) or model.adapter.gate is None:
        return model, {}
    facts: dict[str, float] = {"k": len(open_columns(model)), "k-max": model.adapter.gate.k_max}
    if isinstance(model.adapter.gate, SigmoidGate):
        return model, facts | {"effective-k": model.adapter.gate.effective_k()}
    kept = slice_columns(model)
    if sample is not None:
        for name, one in (("full", model), ("kept", kept)):
            facts |= {f"{key}-{name}": value for key, value in asdict(measure(one, sample)).items()}
        with torch.inference_mode():
            facts["logit-change"] = float((model(sample) - kept(sample)).abs().max())
    return kept, facts
