"""Groups of clients: found by average linkage on the cosine of their updates, drawn at random, and compared.

Source: Sattler, Müller, Samek, "Clustered Federated Learning: Model-Agnostic Distributed Multitask Optimization Under Privacy
Constraints", IEEE TNNLS 2020, which tells clients apart by the cosine of their updates (Eq. 9). We differ: the mean update is
taken off first; and the paper splits a cluster in two whenever averaging has come to a halt, while here the clusters are cut
once from the tree of average linkage, at the number that the silhouette (Rousseeuw, J. Comput. Appl. Math. 1987) prefers.

A grouping is a list of labels, one a client; which label a group has says nothing.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from math import comb

import numpy as np


def cosine_distances(updates: np.ndarray, *, centred: bool = True) -> np.ndarray:
    """Return 1 − cosine of each pair of rows; an update of zeros has distance 1 to all others.

    Centred, the mean of all rows is taken from each first: away from one initialisation all clients go the same way at first,
    whatever their data, and that says nothing. (Two centred rows are always opposite.)

    Args:
        updates: (N, P).
        centred: whether to compare the rows about their mean.

    Returns:
        Distances in [0, 2], (N, N), symmetric, with zeros on the diagonal.
    """
    rows = unit(updates - updates.mean(axis=0) if centred else updates)
    distances: np.ndarray = np.clip(1.0 - rows @ rows.T, 0.0, 2.0)
    distances = 0.5 * (distances + distances.T)
    np.fill_diagonal(distances, 0.0)
    return distances


def unit(updates: np.ndarray) -> np.ndarray:
    """Scale each row to length 1, in float64; zeros stay zeros."""
    rows = np.asarray(updates, dtype=np.float64)
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    scaled: np.ndarray = rows / np.where(lengths > 0, lengths, 1.0)
    return scaled


def silhouette(distances: np.ndarray, labels: Sequence[Hashable]) -> float | None:
    """Return the mean over all items of (b − a) / max(a, b).

    a is an item's mean distance to the others of its group, b that to the nearest other group; an item alone counts 0.

    Args:
        distances: (N, N).
        labels: group of each item.

    Returns:
        A value in [−1, 1]; None where it says nothing: one group, or all items alone.
    """
    names = list(dict.fromkeys(labels))
    if not 1 < len(names) < len(labels):
        return None
    groups = {name: np.array([i for i, label in enumerate(labels) if label == name]) for name in names}
    total = 0.0
    for item, label in enumerate(labels):
        if len(groups[label]) == 1:
            continue
        a = distances[item, groups[label]].sum() / (len(groups[label]) - 1)
        b = min(distances[item, groups[other]].mean() for other in names if other != label)
        total += (b - a) / max(a, b) if max(a, b) > 0 else 0.0
    return float(total / len(labels))


def linked(distances: np.ndarray, count: int = 0) -> list[int]:
    """Group items by average linkage.

    Args:
        distances: (N, N).
        count: number of groups, at most N; 0: from 2 to N − 1, the number with the highest silhouette, the smallest of equals.
            Up to two items, for which the silhouette says nothing, are one group.

    Returns:
        Labels from 0, in the order in which groups appear.
    """
    from scipy.cluster.hierarchy import cut_tree, linkage
    from scipy.spatial.distance import squareform

    number = len(distances)
    if number <= 1 or (not count and number == 2):
        return [0] * number
    tree = linkage(squareform(distances, checks=False), method="average")
    cuts = {n: _by_appearance(cut_tree(tree, n_clusters=[n])[:, 0]) for n in ([count] if count else range(2, number))}
    return max(cuts.values(), key=lambda labels: silhouette(distances, labels) or 0.0) if len(cuts) > 1 else cuts.popitem()[1]


def spread(labels: Sequence[Hashable], seed: str) -> list[int]:
    """Draw groups of the same sizes as those given, with as few pairs as possible of items that are together in both.

    The largest groups are dealt out first, each item to the new group with the fewest of its old one, then with the most room:
    wherever no pair need stay together, none does (Gale, Pacific J. Math. 1957).
    """
    drawn = random.Random(seed)  # noqa: S311
    sizes = Counter(labels)
    room = dict(enumerate(sizes.values()))
    new = [0] * len(labels)
    old = sorted(sizes, key=lambda name: (-sizes[name], drawn.random()))
    for name in old:
        items = [item for item, label in enumerate(labels) if label == name]
        drawn.shuffle(items)
        held = dict.fromkeys(room, 0)
        for item in items:
            new[item] = min((n for n in room if room[n]), key=lambda n: (held[n], -room[n], drawn.random()))
            room[new[item]] -= 1
            held[new[item]] += 1
    return new


def adjusted_rand_index(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """Return how well two groupings agree: 1 if they are the same, 0 in the mean over random ones of these sizes.

    (index − expected) / (largest − expected), where the index counts the pairs that are together in both; 1 where both are one
    group or both have all items alone.

    Source: Hubert and Arabie, "Comparing partitions", Journal of Classification 1985, Eq. 5.
    """
    both, one, two = (_pairs(labels) for labels in (list(zip(first, second, strict=True)), first, second))
    every = comb(len(first), 2)
    expected = one * two / every if every else 0.0
    largest = (one + two) / 2
    return 1.0 if largest == expected else (both - expected) / (largest - expected)


def _pairs(labels: Sequence[Hashable]) -> int:
    return sum(comb(size, 2) for size in Counter(labels).values())


def _by_appearance(labels: Iterable[Hashable]) -> list[int]:
    order: dict[Hashable, int] = {}
    return [order.setdefault(label, len(order)) for label in labels]
