"""The ensemble of N models: the upper reference for one packed student, at N times its cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from client.packing.teachers import ask_all


def ensemble_logits(
    models: Sequence[nn.Module],
    inputs: Tensor,
    device: torch.device,
    *,
    weights: Sequence[float] | None = None,
    over: Literal["logits", "probabilities"] = "logits",
    precision: str = "float32",
) -> Tensor:
    """Return the weighted mean of what models answer, (n, classes), on the host; models run one after another.

    Args:
        models: for the same classes in the same order.
        inputs: n of them.
        device: where to compute.
        weights: of the models, with the sum 1; None: equal.
        over: ``logits``; or ``probabilities``, of which the logarithm is returned. FedDF (Lin et al., NeurIPS 2020) has both.
        precision: of the forward passes.

    Raises:
        ValueError: there is no model, or weights are not as many or do not have the sum 1.
    """
    shares = [1 / len(models)] * len(models) if weights is None and models else list(weights or ())
    if not models or len(shares) != len(models) or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"found {len(models)} models and weights {shares}: expected one weight for each, with the sum 1")
    found: Tensor | None = None
    for model, share in zip(models, shares, strict=True):
        logits = ask_all(model.to(device), inputs, (), device, precision).logits
        part = share * (logits if over == "logits" else logits.softmax(dim=1))
        found = part if found is None else found + part
    assert found is not None
    return found if over == "logits" else found.clamp(min=1e-30).log()
