"""The subgroups of a data set: which classes, modality and domains each client owns.

Needs neither torch nor the data files, so that a config can be checked and described anywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from config import Data
from data_partition.files import DataError

Modality = Literal["image", "text", "series"]
Domains = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Subgroup:
    """What one client owns.

    ``classes`` are in the order of the client's labels; the same ``group`` means the same classes in the same order, whatever
    the modality; ``domain_index`` numbers the clients of one group and modality, and ``domains`` are their styles, sources or
    subjects.
    """

    partition_id: int
    modality: Modality
    group: int
    classes: tuple[str, ...]
    domain_index: int
    domains: tuple[str, ...]


def seeded_order(items: Iterable[str], seed: int, purpose: str) -> list[str]:
    """Order items by the sha1 of seed, purpose and item: the same on every machine and library version.

    The order of two items does not depend on the others, so a prefix of the order stays a prefix when items are added.
    """

    def rank(item: str) -> str:
        return hashlib.sha1(f"{seed}/{purpose}/{item}".encode(), usedforsecurity=False).hexdigest()

    return sorted(items, key=rank)


def subgroups(data: Data) -> list[Subgroup]:
    """Return the subgroups of ``data.grouping`` in the order of partition ids, without a missing modality.

    Those of ``data.also`` come after the others, with groups of their own.

    Raises:
        DataError: a setting names something that the data set does not have.
    """
    from data_partition.datasets import DATASETS  # its members are made of what is defined here

    found = DATASETS[data.dataset].subgroups(data)
    if data.modalities != "both":
        found = [one for one in found if one.modality == data.modalities]
    if data.also != "none":
        first = 1 + max(one.group for one in found)
        found = [*found, *(replace(one, group=first + one.group) for one in DATASETS[data.also].subgroups(data))]
    return [replace(one, partition_id=index) for index, one in enumerate(found)]


def find_subgroup(data: Data, partition_id: int) -> Subgroup:
    """Return the subgroup of one client.

    Raises:
        DataError: the partition id is not in the range of the grouping.
    """
    known = subgroups(data)
    if not 0 <= partition_id < len(known):
        raise DataError(
            f"partition id {partition_id} is unknown: data.grouping = '{data.grouping}' has the ids 0 to {len(known) - 1}; "
            "correct data.clients, or start no more nodes than that."
        )
    return known[partition_id]
