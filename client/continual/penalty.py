"""Elastic weight consolidation: a baseline that lets weights move, and makes it dear where an earlier task needs them.

    penalty = strength / 2 * sum_i F_i (w_i - w*_i)^2

F is the diagonal of the Fisher information at w*, the mean over samples of the squared gradient of log p(y | x). With
``labels="sampled"``, y is drawn from the model's own prediction: the Fisher information itself, as in the paper. With
``labels="data"``, y is the sample's label: the empirical Fisher, which many codes use (Kunstner et al., NeurIPS 2019, on the
difference). The gradient is that of each sample by itself: the square of a batch's mean gradient is another, smaller number.

Source: Kirkpatrick et al., PNAS 2017, Eq. 3; one such sum for each earlier task, as there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def fisher_diagonal(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    names: Sequence[str],
    *,
    kind: Literal["sampled", "data"] = "sampled",
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Return the diagonal of the Fisher information of some parameters.

    Args:
        model: put in evaluation mode while this runs; samples go through it one by one.
        inputs: samples, first axis N >= 1.
        labels: (N,), read for ``data`` only.
        names: of parameters.
        kind: where labels come from; see the module's docstring.
        generator: of sampled labels, on the CPU.

    Returns:
        Tensors of the parameters' shapes, >= 0.

    Raises:
        ValueError: there is no sample.
    """
    if not len(inputs):
        raise ValueError("found no sample, expected 1 or more")
    known = dict(model.named_parameters())
    chosen = [known[name] for name in names]
    total = [torch.zeros_like(parameter) for parameter in chosen]
    mode = model.training
    model.eval()
    try:
        for sample, label in zip(torch.split(inputs, 1), torch.split(labels, 1), strict=True):
            log_p = F.log_softmax(model(sample).float(), dim=-1)
            if kind == "sampled":
                label = torch.multinomial(log_p.detach().exp().cpu(), 1, generator=generator).squeeze(1).to(log_p.device)
            grads = torch.autograd.grad(F.nll_loss(log_p, label), chosen, allow_unused=True, materialize_grads=True)
            torch._foreach_addcmul_(total, list(grads), list(grads))
    finally:
        model.train(mode)
    torch._foreach_div_(total, len(inputs))
    return dict(zip(names, total, strict=True))


def quadratic_penalty(
    parameters: Mapping[str, Tensor], fisher: Mapping[str, Tensor], anchor: Mapping[str, Tensor], strength: float
) -> Tensor:
    """Return the penalty of one earlier task, a scalar to add to the loss.

    Args:
        parameters: as they are now; those of ``fisher`` must be there.
        fisher: of the earlier task.
        anchor: the parameters at its end.
        strength: >= 0.
    """
    terms = [(fisher[name] * (parameters[name] - anchor[name]).square()).sum() for name in fisher]
    return 0.5 * strength * torch.stack(terms).sum()
