"""Inputs on which models are compared: training examples of the target, the same for all of its candidates.

Source: ModelDiff (Li et al., ISSTA 2021), section 4.1, which compares a model's outputs on pairs of inputs. There the second
of a pair is a perturbed copy of the first, as in client/modeldiff/perturb.py; here it is by default another example.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from data_partition.client_data import Split

PAIRS = 400


@dataclass(frozen=True)
class Probes:
    """Inputs and pairs of them.

    Attributes:
        inputs: n of them, as in :class:`data_partition.client_data.Split`; images may be float32 in [0, 1] too.
            A perturbed copy is one of them.
        labels: int64 (n,); that of a perturbed copy is its original's.
        pairs: places of the two inputs of each pair, int64 (p, 2).
        offsets: what is added to the word embeddings of each input, float32 (n, N, D), in units of the root mean square of the
            embeddings of whichever model computes (client/modeldiff/embeddings.py); None: nothing. A probe perturbed in the
            space of embeddings has no tokens: it is its original's tokens and an offset.
    """

    inputs: Tensor
    labels: Tensor
    pairs: Tensor
    offsets: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)


def choose(split: Split, count: int, seed: int, num_pairs: int = PAIRS) -> Probes:
    """Choose probes, as equally many of each class as there are, and random pairs of them.

    Args:
        split: training examples of the target; never those for validation or test, which would choose the donor then.
        count: number of probes; all examples if there are not more. A smaller number is a subset of a larger one.
        seed: of the choice and of the pairs.
        num_pairs: see :func:`random_pairs`.

    Raises:
        ValueError: fewer than two probes.
    """
    chosen = places(split.labels, count, seed)
    return Probes(split.inputs[chosen], split.labels[chosen], random_pairs(len(chosen), num_pairs, seed))


def places(labels: Tensor, count: int, seed: int) -> Tensor:
    """Return the places of the examples that :func:`choose` takes, ascending, int64 (n,)."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    labels = labels[order]
    turn = torch.zeros_like(labels)  # an example's number among those of its class
    for label in torch.unique(labels):
        mine = labels == label
        turn[mine] = torch.arange(int(mine.sum()))
    return order[turn.argsort(stable=True)[:count]].sort().values


def random_pairs(n: int, count: int, seed: int) -> Tensor:
    """Draw pairs of two different probes, int64 (count, 2); none comes again before all n (n - 1) / 2 have come.

    Raises:
        ValueError: there are fewer than two probes.
    """
    if n < 2:
        raise ValueError(f"found {n} probes, expected at least 2 to make pairs of")
    generator = torch.Generator().manual_seed(seed)
    every = torch.combinations(torch.arange(n))
    times = -(-count // len(every))
    order = torch.cat([torch.randperm(len(every), generator=generator) for _ in range(max(times, 1))])
    return every[order[:count]]
