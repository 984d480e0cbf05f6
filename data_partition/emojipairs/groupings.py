"""The groupings of the embedded data set: which classes, modality, and art styles or text sources each client owns."""

from __future__ import annotations

from typing import Final

from config import Data
from data_partition.emojipairs.catalogue import CLASSES, IMAGE_STYLES, TEXT_SOURCES, THEMES
from data_partition.files import DataError
from data_partition.subgroups import Domains, Modality, Subgroup, seeded_order

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


def class_groups(grouping: str) -> list[tuple[str, ...]]:
    """Return the classes of each class group, in the order of labels."""
    if grouping == "theme":
        return [tuple(classes) for classes in THEMES.values()]
    permuted = seeded_order(CLASSES, PERMUTATION_SEED, "classes")
    size = len(CLASSES) // NUM_CLASS_GROUPS[grouping]
    return [tuple(permuted[start : start + size]) for start in range(0, len(CLASSES), size)]


def group_names(data: Data) -> tuple[str, ...]:
    """Return the names of the class groups, in the order of ``Subgroup.group``."""
    if data.grouping == "theme":
        return tuple(THEMES)
    return tuple(f"group {number}" for number in range(1, NUM_CLASS_GROUPS[data.grouping] + 1))


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


def _text_sources(names: str) -> tuple[str, ...]:
    sources = tuple(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    unknown = [name for name in sources if name not in TEXT_SOURCES]
    if unknown or not sources:
        raise DataError(f"data.text-sources = {names!r}: expected comma-separated names out of {', '.join(TEXT_SOURCES)}")
    return sources
