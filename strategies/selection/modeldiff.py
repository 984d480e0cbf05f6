"""ModelDiff: two models are alike where they find the same pairs of probes far apart.

    DDV_f[i]  = 1 - cos(f(x_i), f(x'_i))        decision distance vector over the p pairs
    score     = cos(DDV_target, DDV_candidate)  in [0, 1], 1 for the target itself

A DDV has one entry for each pair whatever the width of the output, so that models with different heads can be compared. No
labels are used.

Where we differ: by default f is the mean latent, centred over the probes, so that the head plays no part (`score`); the paper
takes the logits as they are (`score_logits`). Which probes are paired is the caller's: the paper pairs a probe with an
adversarial one, we have drawn pairs at random.

A model that answers all probes alike has a DDV of zeros and scores 0, below every other.

Source: Li et al., "ModelDiff: Testing-Based DNN Similarity Comparison for Model Reuse Detection", ISSTA 2021, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from strategies.selection.features import centred, exact
from strategies.selection.scorer import Candidate, Outputs, Target

TIE = 2.0
"""Bootstrap standard deviations that the best candidate must lead by. 2 rather than 1.64 (5 % on one side), because the two
are picked for their scores, and pairs that share a probe are not independent: both make the bootstrap too sure. A tie costs
only a closer look at both."""
RESAMPLES = 1000


def score(target: Target, candidate: Candidate) -> float:
    """Similarity of the DDVs on the features."""
    return similarity(ddv_features(target.own, target.pairs), ddv_features(candidate.outputs, target.pairs))


def score_logits(target: Target, candidate: Candidate) -> float:
    """Similarity of the DDVs on the logits of each model's own head."""
    return similarity(ddv_logits(target.own, target.pairs), ddv_logits(candidate.outputs, target.pairs))


def ddv_features(outputs: Outputs, pairs: Tensor) -> Tensor:
    """DDV of centred features, which moving, scaling and rotating them leaves as it is; float64 (p,)."""
    return ddv(centred(outputs.features), pairs)


def ddv_logits(outputs: Outputs, pairs: Tensor) -> Tensor:
    """DDV of logits, which scaling and rotating them leaves as it is; float64 (p,)."""
    return ddv(outputs.logits, pairs)


def ddv(outputs: Tensor, pairs: Tensor) -> Tensor:
    """Cosine distance between the outputs on the two probes of each pair.

    Two rows of zeros are alike, at distance 0; a row of zeros is at distance 1 from any other.

    >>> ddv(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), torch.tensor([[0, 1], [0, 2]])).tolist()
    [1.0, 2.0]

    Args:
        outputs: of a model on the probes, (n, any).
        pairs: places of the two probes of each pair, int64 (p, 2).

    Returns:
        In [0, 2], float64 (p,).
    """
    unit = F.normalize(exact(outputs), dim=1, eps=1e-300)
    first, second = unit[pairs.cpu()].unbind(1)
    alike = (first == second).all(1)
    return torch.where(alike, 0.0, (1 - (first * second).sum(1)).clamp(0, 2))


def similarity(a: Tensor, b: Tensor) -> float:
    """Cosine of two DDVs, in [0, 1]; 0 if one is all zeros.

    >>> round(similarity(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0])), 6)
    0.8
    """
    a, b = exact(a), exact(b)
    length = float(a.norm() * b.norm())
    return min(1.0, float(a @ b) / length) if length > 0 else 0.0


@dataclass(frozen=True)
class Spread:
    """How far the similarities of some candidates depend on which pairs were drawn.

    Attributes:
        mean: of the similarity over the resamples, by partition id.
        std: its standard deviation, by partition id.
        best: candidate of the largest similarity on all pairs.
        gap: similarity of the best less that of the second on all pairs; None with one candidate.
        gap_std: its standard deviation over the resamples; None with one candidate.
        tie: gap <= TIE * gap_std; False with one candidate.
    """

    mean: dict[int, float]
    std: dict[int, float]
    best: int
    gap: float | None
    gap_std: float | None
    tie: bool


def bootstrap(
    target: Target, candidates: Sequence[Candidate], outputs_ddv: Callable[[Outputs, Tensor], Tensor] = ddv_features
) -> Spread:
    """Score the candidates on resampled pairs, the same ones for all.

    Args:
        target: its seed draws the resamples.
        candidates: at least one; of one modality, or calibrated, so that their scores can be compared.
        outputs_ddv: `ddv_features`, or `ddv_logits`.

    Raises:
        ValueError: there is no candidate, or no pair.
    """
    p = len(target.pairs)
    if not candidates or not p:
        raise ValueError(f"found {len(candidates)} candidates and {p} pairs: expected at least one of each")
    rng = np.random.default_rng(target.seed)
    times_RP = torch.from_numpy(rng.multinomial(p, np.full(p, 1 / p), size=RESAMPLES)).double()
    times_RP = torch.cat([torch.ones(1, p, dtype=torch.float64), times_RP])  # all pairs, then the resamples
    own_P = outputs_ddv(target.own, target.pairs)
    others_CP = torch.stack([outputs_ddv(candidate.outputs, target.pairs) for candidate in candidates])
    length_RC = ((times_RP @ own_P**2)[:, None] * (times_RP @ others_CP.T**2)).sqrt()
    dot_RC = times_RP @ (own_P * others_CP).T
    scores_RC = torch.where(length_RC > 0, dot_RC / length_RC.where(length_RC > 0, 1.0), 0.0).clamp(max=1.0)
    all_pairs, resampled = scores_RC[0].tolist(), scores_RC[1:]
    ids = [candidate.partition_id for candidate in candidates]
    places = sorted(range(len(ids)), key=lambda place: (-all_pairs[place], ids[place]))
    gap = gap_std = None
    if len(ids) > 1:
        gap = all_pairs[places[0]] - all_pairs[places[1]]
        gap_std = float((resampled[:, places[0]] - resampled[:, places[1]]).std())
    return Spread(
        mean=dict(zip(ids, resampled.mean(0).tolist(), strict=True)),
        std=dict(zip(ids, resampled.std(0).tolist(), strict=True)),
        best=ids[places[0]],
        gap=gap,
        gap_std=gap_std,
        tie=gap is not None and gap_std is not None and gap <= TIE * gap_std,
    )
