"""What a scorer of donors is: a function of one target and one candidate, larger is better.

A score is computed on the target, where its data are. Everything here is the target's own, but for what the candidate model
computes on it. The same target gives every candidate the same probes and pairs, so that scores can be compared.

Shapes: n probes, p pairs, F features, K classes of the donor's head, C classes of the target's task.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Outputs:
    """What a model computes on n inputs.

    Attributes:
        features: mean over the latents after the latent stack, float32 (n, F).
        logits: of its own head, float32 (n, K).
    """

    features: Tensor
    logits: Tensor


@dataclass(frozen=True)
class Target:
    """One target.

    Attributes:
        labels: of the probes, int64 (n,).
        num_classes: C.
        pairs: places of the two probes of each pair, int64 (p, 2).
        own: of the target's own model on the probes.
        seed: of everything random.
    """

    labels: Tensor
    num_classes: int
    pairs: Tensor
    own: Outputs
    seed: int


@dataclass(frozen=True)
class Candidate:
    """One donor's backbone as it would work on the target.

    Inside the modality that is with the donor's adapter and head, across modalities with the target's (see
    client/modeldiff/swap.py).

    Attributes:
        partition_id: of the donor.
        same_modality: as the target's.
        outputs: on the probes.
        tune: trains a copy for a few steps on the target's training data and returns its validation accuracy.
    """

    partition_id: int
    same_modality: bool
    outputs: Outputs
    tune: Callable[[], float]


class Scorer(Protocol):
    """Gives a candidate a score."""

    def __call__(self, target: Target, candidate: Candidate) -> float: ...
