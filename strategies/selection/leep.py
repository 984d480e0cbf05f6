"""LEEP: how well the donor's own classes, as its head guesses them, tell the target's classes.

    P(y, z) = mean over probes of [label = y] softmax(logits)_z
    score   = mean over probes of log sum_z P(y_i | z) softmax(logits_i)_z

At most 0; logits that are the same for all probes score minus the entropy of the labels. Probes of one class score 0.

It needs the donor's head on the donor's adapter, so it is defined inside the modality only. A candidate of another modality,
which works with the target's head, scores -inf: a ranking places it last, and a choice must pass it over. A caller that wants
to rank other modalities takes another scorer for all candidates.

Source: Nguyen et al., "LEEP: A New Measure to Evaluate Transferability of Learned Representations", ICML 2020, section 3.
"""

from __future__ import annotations

import math

from torch.nn import functional as F

from strategies.selection.features import exact, relabelled
from strategies.selection.scorer import Candidate, Target


def score(target: Target, candidate: Candidate) -> float:
    """Log expected empirical prediction; -inf for a candidate of another modality."""
    if not candidate.same_modality:
        return -math.inf
    guesses_NK = exact(candidate.outputs.logits).softmax(1)
    labels = relabelled(target.labels)
    joint_CK = F.one_hot(labels).double().T @ guesses_NK
    given_CK = joint_CK / joint_CK.sum(0).clamp(min=1e-300)
    return float((guesses_NK * given_CK[labels]).sum(1).log().mean())
