"""The subgroups of the data set: which classes, modality and domains each client owns.

Needs neither torch nor the data files, so that a config can be checked and described anywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from config import Data
from data_partition.emojipairs.catalogue import CLASSES, IMAGE_STYLES, TEXT_SOURCES, THEMES
from data_partition.files import DataError

Modality = Literal["image", "text"]
Domains = tuple[tuple[str, ...], ...]

PERMUTATION_SEED: Final = 7
"""Seed of the class permutation behind ``mixed``, ``siblings`` and ``tri``; fixed, so that runs are comparable."""

NUM_CLASS_GROUPS: Final = {"mixed": 6, "theme": 6, "siblings": 3, "tri": 2}

IMAGE_DOMAINS: Final[dict[str, Domains]] = {
    "mixed": (IMAGE_STYLES,),
    "theme": (IMAGE_STYLES,),
    "siblings": (("noto", "noto-v1", "emojione"), ("twemoji", "fluent", "fluent-flat")),
    "tri": (("noto", "noto-v1"), ("twemoji", "emojione"), ("fluent", "fluent-flat")),
}
"""Grouping -> art styles of each domain. Near-duplicates (fluent and fluent-flat, noto and noto-v1) stay in one domain."""

TEXT_DOMAINS: Final[dict[str, Domains]] = {
    "siblings": (("cldr-en",), ("emojilib-en", "emojimart-en")),
    "tri": (("cldr-en",), ("emojilib-en",), ("emojimart-en",)),
}
"""Grouping -> text sources of each domain; ``mixed`` and ``theme`` take ``data.text_sources``."""


@dataclass(frozen=True)
class Subgroup:
    """What one client owns.

    ``classes`` are in the order of the client's labels; the same ``group`` means the same classes in the same order, whatever
    the modality; ``domain_index`` numbers the clients of one group and modality, and ``domains`` are their styles or sources.
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


def class_groups(grouping: str) -> list[tuple[str, ...]]:
    """Return the classes of each class group, in the order of labels."""
    if grouping == "theme":
        return [tuple(classes) for classes in THEMES.values()]
    permuted = seeded_order(CLASSES, PERMUTATION_SEED, "classes")
    size = len(CLASSES) // NUM_CLASS_GROUPS[grouping]
    return [tuple(permuted[start : start + size]) for start in range(0, len(CLASSES), size)]


def subgroups(data: Data) -> list[Subgroup]:
    """Return the subgroups of ``data.grouping`` in the order of partition ids: images first, then texts.

    Image client k and text client k + 6 are twins: same classes, and same concepts whatever ``data.concepts`` is.

    Raises:
        DataError: ``data.text_sources`` names an unknown source.
    """
    groups = class_groups(data.grouping)
    found: list[Subgroup] = []
    modalities: tuple[tuple[Modality, Domains], ...] = (
        ("image", IMAGE_DOMAINS[data.grouping]),
        ("text", TEXT_DOMAINS.get(data.grouping) or (_text_sources(data.text_sources),)),
    )
    for modality, domains in modalities:
        for group, classes in enumerate(groups):
            for index, members in enumerate(domains):
                found.append(Subgroup(len(found), modality, group, classes, index, members))
    return found


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


def _text_sources(names: str) -> tuple[str, ...]:
    sources = tuple(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    unknown = [name for name in sources if name not in TEXT_SOURCES]
    if unknown or not sources:
        raise DataError(f"data.text-sources = {names!r}: expected comma-separated names out of {', '.join(TEXT_SOURCES)}")
    return sources
