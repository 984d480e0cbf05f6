"""IFAlign: student features have the mean and variance of the teacher's. The only loss here that needs no paired samples.

    L = |mu_s - mu_t|_1 + |sigma^2_s - sigma^2_t|_1

The paper's text leaves open over what moments are taken. Here: over the samples, and the rows of each, for every channel, so
that neither the order of samples nor that of latents matters. ``over="channels"`` takes them over the channels of each row;
then row is compared with row, and samples must be paired.

Source: ComKD-CLIP (Chen, Qiao, Sun & Li, arXiv 2408.04145), section on image feature alignment.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor


def ifalign(student_BND: Tensor, teacher_AMD: Tensor, over: Literal["samples", "channels"] = "samples") -> Tensor:
    """Return the loss of a batch, a scalar >= 0.

    Args:
        student_BND: latents behind a projector to the teacher's width D; features are latents with one row.
        teacher_AMD: for ``samples`` any number of samples A and rows M.
        over: see the module's docstring. ``channels``: mean over the rows of all samples.
    """
    axes = (0, 1) if over == "samples" else (2,)
    mean = (student_BND.mean(dim=axes) - teacher_AMD.mean(dim=axes)).abs()
    variance = (student_BND.var(dim=axes, correction=0) - teacher_AMD.var(dim=axes, correction=0)).abs()
    return (mean + variance).sum() if over == "samples" else (mean + variance).mean()
