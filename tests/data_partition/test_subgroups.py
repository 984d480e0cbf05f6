from __future__ import annotations

import subprocess
import sys

import pytest

from config import Data
from data_partition.emojipairs.catalogue import CLASSES, ENGLISH_SOURCES, IMAGE_STYLES, THEMES
from data_partition.files import DataError
from data_partition.subgroups import find_subgroup, seeded_order, subgroups

GROUPINGS = {"mixed": (6, 4, 1), "theme": (6, 4, 1), "siblings": (3, 8, 2), "tri": (2, 12, 3)}


@pytest.mark.parametrize(("grouping", "geometry"), GROUPINGS.items())
def test_geometry(grouping, geometry):
    groups, classes, domains = geometry
    found = subgroups(Data(grouping=grouping))
    assert [item.partition_id for item in found] == list(range(12))
    assert [item.modality for item in found] == ["image"] * 6 + ["text"] * 6
    assert [(item.group, item.domain_index) for item in found[:6]] == [(g, d) for g in range(groups) for d in range(domains)]
    assert all(len(item.classes) == classes for item in found)
    owned = [name for item in found[:6] if item.domain_index == 0 for name in item.classes]
    assert sorted(owned) == sorted(CLASSES)
    for image, text in zip(found[:6], found[6:], strict=True):
        assert (image.classes, image.group, image.domain_index) == (text.classes, text.group, text.domain_index)


@pytest.mark.parametrize("grouping", GROUPINGS)
def test_domains_cover_all_styles_and_sources_once(grouping):
    found = [item for item in subgroups(Data(grouping=grouping)) if item.group == 0]
    styles = [style for item in found if item.modality == "image" for style in item.domains]
    sources = [source for item in found if item.modality == "text" for source in item.domains]
    assert sorted(styles) == sorted(IMAGE_STYLES)
    assert sorted(sources) == sorted(ENGLISH_SOURCES)


@pytest.mark.parametrize("grouping", ["siblings", "tri"])
def test_near_duplicate_styles_stay_in_one_domain(grouping):
    for item in subgroups(Data(grouping=grouping))[:6]:
        assert ("fluent" in item.domains) == ("fluent-flat" in item.domains)
        assert ("noto" in item.domains) == ("noto-v1" in item.domains)


def test_class_groups_come_from_one_permutation():
    order = {
        grouping: [name for item in subgroups(Data(grouping=grouping))[:6] if item.domain_index == 0 for name in item.classes]
        for grouping in GROUPINGS
    }
    assert order["mixed"] == order["siblings"] == order["tri"] != list(CLASSES)
    assert order["mixed"][:4] == ["marine", "sport", "game", "happy"]  # golden: results depend on it
    assert order["theme"] == [name for classes in THEMES.values() for name in classes]


def test_text_sources_of_mixed():
    found = subgroups(Data(grouping="mixed", text_sources="cldr-en, cldr-de"))
    assert found[6].domains == ("cldr-en", "cldr-de")
    for wrong in ("cldr-xx", " , "):
        with pytest.raises(DataError, match="text-sources"):
            subgroups(Data(grouping="theme", text_sources=wrong))


@pytest.mark.parametrize("partition_id", [-1, 12])
def test_unknown_partition_id(partition_id):
    with pytest.raises(DataError, match="0 to 11"):
        find_subgroup(Data(), partition_id)


def test_seeded_order_is_nested():
    order = seeded_order("abcdefgh", 3, "p")
    assert seeded_order("abcdef", 3, "p") == [item for item in order if item in "abcdef"]
    assert seeded_order("abcdefgh", 4, "p") != order != seeded_order("abcdefgh", 3, "q")


def test_listing_subgroups_imports_no_heavy_library():
    code = (
        "import sys; from config import Data; from data_partition.subgroups import subgroups; subgroups(Data());"
        "print([name for name in ('torch', 'pyarrow', 'PIL', 'tokenizers', 'flwr') if name in sys.modules])"
    )
    path = find_subgroup.__code__.co_filename.rsplit("/", 2)[0]
    result = subprocess.run([sys.executable, "-c", code], cwd=path, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
