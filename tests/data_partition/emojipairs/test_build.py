"""The build on a slice of made-up packages: five birds, a gendered variant, three styles, no network and no resvg."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_partition.emojipairs import build
from data_partition.emojipairs.catalogue import LANGUAGES, PARQUET_NAME, SPECIAL_TOKENS, VOCAB_NAME
from data_partition.emojipairs.sources import (
    CLDR,
    EMOJI_MART,
    EMOJIBASE,
    EMOJILIB,
    STYLES,
    IconSet,
    check_packages,
    read_sources,
)

BIRDS = {
    "1F426": ("🐦", "bird"),
    "1F427": ("🐧", "penguin"),
    "1F54A-FE0F": ("🕊️", "dove"),
    "1F985": ("🦅", "eagle"),
    "1F986": ("🦆", "duck"),
}


def write_tarball(folder: Path, name: str, members: dict[str, object]) -> None:
    with tarfile.open(folder / name, "w:gz") as archive:
        for path, content in members.items():
            encoded = json.dumps(content).encode()
            info = tarfile.TarInfo(f"package/{path}")
            info.size = len(encoded)
            archive.addfile(info, io.BytesIO(encoded))


@pytest.fixture
def tarballs(tmp_path):
    emojis = [
        {"hexcode": code, "emoji": emoji, "label": name, "group": 3, "subgroup": 35} for code, (emoji, name) in BIRDS.items()
    ]
    emojis += [
        {"hexcode": "1F9D4-200D-2642-FE0F", "emoji": "🧔‍♂️", "label": "man bird", "group": 3, "subgroup": 35, "gender": 1},
        {"hexcode": "1F3FB", "emoji": "🏻", "label": "light skin", "group": 2, "subgroup": 32},
        {"hexcode": "1F99C", "emoji": "🦜", "label": "parrot", "group": 3, "subgroup": 35},  # two drawings only
    ]
    groups = {"subgroups": {"35": "animal-bird", "32": "skin-tone"}}
    write_tarball(tmp_path, EMOJIBASE.tarball, {"en/data.json": emojis, "meta/groups.json": groups})
    for index, (style, package) in enumerate(STYLES.items()):
        names = [name for _, name in BIRDS.values() if index < 4] + (["parrot"] if index < 2 else []) + ["man-bird"]
        chars = {code.lower().replace("-fe0f", ""): name for code, (_, name) in BIRDS.items()} if style == "noto" else {}
        icons = {name: {"body": f"<!--{style} {name}-->"} for name in names}
        write_tarball(
            tmp_path, package.tarball, {"chars.json": chars, "icons.json": {"icons": icons, "width": 32, "height": 32}}
        )
    named = {emoji.replace("\ufe0f", ""): name for emoji, name in BIRDS.values()} | {"🦜": "parrot", "🧔‍♂": "man bird"}
    annotations = {"annotations": {"annotations": {e: {"tts": [n], "default": ["animal", n]} for e, n in named.items()}}}
    write_tarball(tmp_path, CLDR.tarball, {f"annotations/{lang}/annotations.json": annotations for lang in LANGUAGES})
    write_tarball(tmp_path, EMOJILIB.tarball, {"dist/emoji-en-US.json": {e: [n, "a_wing"] for e, n in named.items()}})
    mart = {n: {"name": n.title(), "keywords": ["fly"], "skins": [{"native": e}]} for e, n in named.items()}
    write_tarball(tmp_path, EMOJI_MART.tarball, {"sets/15/native.json": {"emojis": mart}})
    return tmp_path


def fake_render(svg: str) -> bytes:
    colour = (sum(svg.encode()) % 256, len(svg) % 256, 0)
    buffer = io.BytesIO()
    Image.new("RGB", (build.RENDER_SIZE, build.RENDER_SIZE), colour).save(buffer, format="PNG")
    return buffer.getvalue()


def test_two_builds_of_a_slice_are_byte_identical(tarballs, tmp_path):
    for name in ("one", "two"):
        build.write_files(build.build_table(read_sources(tarballs), fake_render), tmp_path / name)
    for file in (PARQUET_NAME, VOCAB_NAME):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_rows_of_a_slice(tarballs):
    rows = build.build_table(read_sources(tarballs), fake_render).to_pylist()
    assert {row["name"] for row in rows} == {name for _, name in BIRDS.values()}
    assert {row["class_name"] for row in rows} == {"bird"}
    assert [row["modality"] for row in rows] == ["image"] * 20 + ["text"] * 50
    assert all((row["image"] is None) == (row["modality"] == "text") for row in rows)
    assert len({row["concept"] for row in rows if row["split"] == "test"}) == 4
    texts = {row["domain"]: row["text"] for row in rows if row["name"] == "dove" and row["text"]}
    assert texts["cldr-en"] == "dove: animal, dove"
    assert texts["emojilib-en"] == "dove, a wing"
    assert texts["emojimart-en"] == "Dove: fly"


def test_a_drawing_two_emoji_lead_to_is_given_to_neither():
    icons = IconSet({}, {"cricket-game": {"body": "x"}, "bat": {"body": "y"}}, {"cricket": {"parent": "cricket-game"}}, 32, 32)
    found = [{"old": "cricket", "new": "bat"}, {"old": "cricket-game"}, {"old": "bat"}]
    assert build.drop_shared_icons(found, {"old": icons, "new": icons}) == [{"new": "bat"}, {}, {"old": "bat"}]


def test_a_mirrored_alias_is_mirrored():
    body = '<rect x="1" width="2" height="4"/>'
    icons = IconSet({}, {"right": {"body": body}}, {"left": {"parent": "right", "hFlip": True}}, 32, 32)
    assert f'<g transform="translate(32 0) scale(-1 1)">{body}</g>' in icons.svg("left")
    assert "transform" not in icons.svg("right")
    with pytest.raises(ValueError, match="rotate"):
        IconSet({}, {}, {"up": {"parent": "right", "rotate": 1}}, 32, 32).svg("up")


def test_images_are_small_rgb_pngs():
    with Image.open(io.BytesIO(build.draw("<svg/>", fake_render))) as image:
        assert (image.size, image.mode, image.format) == ((32, 32), "RGB", "PNG")


def test_vocabulary_training_repeats_exactly():
    texts = [
        f"{first}{second}ing: {second} {first}" for first in ("ca", "be", "do", "mu") for second in ("rt", "st", "nd", "lk")
    ]
    first = build.train_vocabulary(texts, 90)
    assert tuple(first[:5]) == SPECIAL_TOKENS
    assert all(build.train_vocabulary(list(reversed(texts)), 90) == first for _ in range(10))


def test_other_tarballs_than_the_pinned_ones_are_refused(tarballs):
    (tarballs / EMOJILIB.tarball).unlink()
    with pytest.raises(ValueError, match=r"emojilib-4.0.3.tgz: missing") as caught:
        check_packages(tarballs)
    assert str(caught.value).count("expected") == 9


def test_every_source_is_attributed():
    folder = Path(build.__file__).parent
    text = (folder / "ATTRIBUTION.md").read_text(encoding="utf-8")
    for package in (*STYLES.values(), EMOJIBASE, CLDR, EMOJILIB, EMOJI_MART):
        assert f"| {package.name} | {package.version} | {package.license} |" in text
    licenses = set(pq.read_table(folder / PARQUET_NAME, columns=["license"]).column("license").to_pylist())
    assert licenses == {"Apache-2.0", "CC-BY-4.0", "MIT", "Unicode-3.0"}
    assert all(f"## {name}" in text for name in licenses)
