"""Rules that order donors without looking at any model: the controls that a scorer has to beat, and the oracle that none can.

Each returns all donors, best first, without the target itself. Equal donors are ordered by partition id.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np

from strategies.selection.ranking import order


def random_rank(target: int, donors: Collection[int], seed: int) -> list[int]:
    """Order the donors at random: another order for another target or seed, whatever order they come in.

    Args:
        target: partition id.
        donors: partition ids; the target's is passed over.
        seed: of the run, >= 0.
    """
    ids = sorted(set(donors) - {target})
    return [ids[place] for place in np.random.default_rng([seed, target]).permutation(len(ids))]


def same_modality_random_rank(target: int, modalities: Mapping[int, str], seed: int) -> list[int]:
    """Order the donors at random, those of the target's modality before all others.

    Args:
        target: partition id.
        modalities: of every client by partition id, the target among them.
        seed: of the run, >= 0.
    """
    ranked = random_rank(target, modalities, seed)
    return sorted(ranked, key=lambda donor: modalities[donor] != modalities[target])


def best_on_average_rank(target: int, gains: Mapping[tuple[int, int], float]) -> list[int]:
    """Order the donors by the mean gain that they gave to targets other than this one.

    What the target itself gained, and would not know before it chose, plays no part.

    Args:
        target: partition id.
        gains: by (donor, target): accuracy with the donor less that without any. Gains, not accuracies: donors are averaged
            over different targets, some of them harder. NaN counts as not measured; donors without a measured gain come last.
    """
    known: dict[int, list[float]] = {donor: [] for donor, _ in gains}
    for (donor, other), gain in gains.items():
        if other not in (donor, target) and not math.isnan(gain):
            known[donor].append(gain)
    return order({donor: float(np.mean(own)) if own else math.nan for donor, own in known.items()}, target)


def oracle_rank(target: int, accuracies: Mapping[int, float]) -> list[int]:
    """Order the donors by the accuracy that the target reached with each, measured afterwards.

    Args:
        target: partition id.
        accuracies: by donor; NaN comes last.
    """
    return order(accuracies, target)
