"""Builds ``emojipairs.parquet`` and ``vocab.txt`` from the ten pinned npm packages.

Run ``python -m data_partition.emojipairs.build`` (needs npm, and ``pip install resvg-py==0.5.0``). An emoji is a concept;
its class is its Unicode subgroup; each art style that draws it gives one image, each text source that describes it one text.
Train and test are disjoint in concepts, for images and texts alike. Two builds with the same pyarrow, pillow and tokenizers
are byte-identical; the sha256 of the shipped files are in ``dataset.py``.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import logging
import re
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from tokenizers import BertWordPieceTokenizer
from tokenizers.normalizers import BertNormalizer

from data_partition.emojipairs.catalogue import (
    CLASSES,
    ENGLISH_SOURCES,
    IMAGE_SIZE,
    LANGUAGES,
    PARQUET_NAME,
    SPECIAL_TOKENS,
    THEMES,
    VOCAB_NAME,
)
from data_partition.emojipairs.sources import (
    CLDR,
    EMOJI_MART,
    EMOJILIB,
    STYLES,
    VARIATION_SELECTOR,
    IconSet,
    Sources,
    check_packages,
    fetch_packages,
    read_sources,
)
from data_partition.text import VOCAB_SIZE, clean

logger = logging.getLogger(__name__)

MIN_STYLES: Final = 3
MAX_CONCEPTS: Final = 40
MIN_TEST: Final = 4
COMPONENT_GROUP: Final = 2  # skin tones and hair pieces, which are no pictures of their own
RENDER_SIZE: Final = 2 * IMAGE_SIZE

SCHEMA: Final = pa.schema(
    [
        ("modality", pa.string()),
        ("image", pa.binary()),
        ("text", pa.string()),
        ("label", pa.int32()),
        ("class_name", pa.string()),
        ("theme", pa.string()),
        ("domain", pa.string()),
        ("concept", pa.string()),
        ("name", pa.string()),
        ("split", pa.string()),
        ("license", pa.string()),
    ]
)

Render = Callable[[str], bytes]
"""Turns an SVG document into a PNG of RENDER_SIZE x RENDER_SIZE pixels."""


@dataclass(frozen=True)
class Concept:
    """One emoji that was chosen, and the icon that draws it in each style that has it."""

    code: str
    emoji: str
    name: str
    class_name: str
    split: str
    icons: dict[str, str]


def render_svg(svg: str) -> bytes:
    """Rasterise with resvg on a white background."""
    import resvg_py

    return bytes(
        resvg_py.svg_to_bytes(
            svg_string=svg, width=RENDER_SIZE, height=RENDER_SIZE, background="#ffffff", skip_system_fonts=True
        )
    )


def slugify(name: str) -> str:
    """Write a CLDR name the way Iconify names icons.

    >>> slugify("piñata"), slugify("woman’s hat")
    ('pinata', 'womans-hat')
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower().replace("&", "and")
    return re.sub(r"[^a-z0-9]+", "-", plain.replace("'", "")).strip("-")


def is_variant(emoji: dict[str, Any]) -> bool:
    """Tell whether an entry is a gendered variant or a component: near-duplicates that would cross the split."""
    code = emoji["hexcode"]
    gendered = "gender" in emoji or re.search(r"-200D-264[02]", code) or re.match(r"1F46[89]-200D", code)
    return bool(gendered) or emoji.get("group", COMPONENT_GROUP) == COMPONENT_GROUP


def find_icons(emoji: dict[str, Any], icon_sets: dict[str, IconSet]) -> dict[str, str]:
    """Return style -> icon name: by code point where the set lists them, else by name (own slug, then other sets' names)."""
    codes = [emoji["hexcode"].lower(), emoji["hexcode"].lower().replace("-fe0f", "")]
    known = sorted({icons.chars[code] for icons in icon_sets.values() for code in codes if code in icons.chars})
    found: dict[str, str] = {}
    for style, icons in icon_sets.items():
        by_code = [icons.chars[code] for code in codes if code in icons.chars]
        by_name = [name for name in (slugify(emoji["label"]), *known) if icons.has(name)]
        if by_code or by_name:
            found[style] = (by_code + by_name)[0]
    return found


def drop_shared_icons(found: list[dict[str, str]], icon_sets: dict[str, IconSet]) -> list[dict[str, str]]:
    """Leave out drawings that several emoji lead to: an older set has one cricket, and the name does not say which."""
    uses = Counter((style, icon_sets[style].svg(name)) for icons in found for style, name in icons.items())
    return [{style: name for style, name in icons.items() if uses[style, icon_sets[style].svg(name)] == 1} for icons in found]


def select_concepts(sources: Sources) -> list[Concept]:
    """Choose the concepts of every class and their split.

    Emoji with at least MIN_STYLES drawings and an entry in CLDR, in the order of the sha1 of their code points, at
    most MAX_CONCEPTS a class; the first quarter of a class, and at least MIN_TEST, is the test split.
    """
    class_of = {subgroup: name for classes in THEMES.values() for name, members in classes.items() for subgroup in members}
    emojis = [emoji for emoji in sources.emojis if not is_variant(emoji)]
    icons_of = drop_shared_icons([find_icons(emoji, sources.icon_sets) for emoji in emojis], sources.icon_sets)
    candidates: dict[str, list[tuple[dict[str, Any], dict[str, str]]]] = {name: [] for name in CLASSES}
    for emoji, icons in zip(emojis, icons_of, strict=True):
        class_name = class_of.get(sources.subgroup_names[emoji["subgroup"]])
        described = _without_selector(emoji["emoji"]) in sources.annotations["en"]
        if class_name is not None and described and len(icons) >= MIN_STYLES:
            candidates[class_name].append((emoji, icons))
    concepts: list[Concept] = []
    for class_name, members in candidates.items():
        members.sort(key=lambda member: _sha1(member[0]["hexcode"].lower()))
        del members[MAX_CONCEPTS:]
        num_test = max(MIN_TEST, round(len(members) / 4))
        for index, (emoji, icons) in enumerate(members):
            split = "test" if index < num_test else "train"
            concepts.append(Concept(emoji["hexcode"].lower(), emoji["emoji"], emoji["label"], class_name, split, icons))
    return concepts


def draw(svg: str, render: Render) -> bytes:
    """Return the drawing as PNG, IMAGE_SIZE pixels a side, RGB, down-sampled from twice the size with Lanczos."""
    with Image.open(io.BytesIO(render(svg))) as picture:
        small = picture.convert("RGB").resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def describe(concept: Concept, sources: Sources) -> list[tuple[str, str, str]]:
    """Return the texts of a concept as (text source, text, licence); a source without an entry gives none."""
    texts: list[tuple[str, str, str]] = []
    bare = _without_selector(concept.emoji)
    for language in LANGUAGES:
        entry = sources.annotations[language].get(bare)
        if entry:
            texts.append((f"cldr-{language}", _join(entry["tts"][0], entry.get("default", [])), CLDR.license))
    words = sources.emojilib.get(bare)
    if words:
        texts.append(("emojilib-en", ", ".join(word.replace("_", " ") for word in words), EMOJILIB.license))
    mart = sources.emoji_mart.get(bare)
    if mart:
        keywords = [word.replace("_", " ") for word in mart["keywords"]]
        texts.append(("emojimart-en", _join(mart["name"], keywords), EMOJI_MART.license))
    return texts


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _without_selector(emoji: str) -> str:
    return emoji.replace(VARIATION_SELECTOR, "")


def _join(name: str, keywords: list[str]) -> str:
    return f"{name}: {', '.join(keywords)}" if keywords else name


def build_table(sources: Sources, render: Render = render_svg) -> pa.Table:
    """Return all rows, images before texts, each in the order of classes, concepts and domains."""
    theme_of = {name: theme for theme, classes in THEMES.items() for name in classes}
    images: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    for concept in select_concepts(sources):
        common = {
            "label": CLASSES.index(concept.class_name),
            "class_name": concept.class_name,
            "theme": theme_of[concept.class_name],
            "concept": concept.code,
            "name": concept.name,
            "split": concept.split,
        }
        for style, icon in concept.icons.items():
            image = draw(sources.icon_sets[style].svg(icon), render)
            images.append({"modality": "image", "image": image, "domain": style, "license": STYLES[style].license, **common})
        for domain, text, spdx in describe(concept, sources):
            texts.append({"modality": "text", "text": text, "domain": domain, "license": spdx, **common})
    metadata = {"classes": list(CLASSES), "themes": {theme: list(classes) for theme, classes in THEMES.items()}}
    return pa.Table.from_pylist(images + texts, SCHEMA.with_metadata({"emojipairs": json.dumps(metadata)}))


def train_vocabulary(texts: Iterable[str], size: int = VOCAB_SIZE) -> list[str]:
    """Train a lower-case WordPiece vocabulary; the special tokens come first, then single characters.

    ``tokenizers`` numbers the continuing characters (``##a``) in the order of a hash map and breaks ties between merges by
    number, so that two trainings differ; naming the alphabet as special tokens fixes the numbers, and with them the result.
    """
    cleaned = sorted(clean(text) for text in texts)
    tokenizer = BertWordPieceTokenizer(lowercase=True)
    normalizer = BertNormalizer(lowercase=True)
    letters = sorted({letter for text in cleaned for letter in normalizer.normalize_str(text) if not letter.isspace()})
    fixed = [*SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters)]
    tokenizer.train_from_iterator(cleaned, vocab_size=size, min_frequency=2, special_tokens=fixed, show_progress=False)
    vocabulary = tokenizer.get_vocab()
    return sorted(vocabulary, key=lambda token: vocabulary[token])


def write_files(table: pa.Table, folder: Path) -> None:
    """Write the parquet (zstd, one row group) and the vocabulary of its English training texts."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / PARQUET_NAME, compression="zstd", compression_level=19, row_group_size=len(table))
    rows = table.select(["text", "domain", "split"]).to_pylist()
    english = [row["text"] for row in rows if row["domain"] in ENGLISH_SOURCES and row["split"] == "train"]
    text = "\n".join(train_vocabulary(english)) + "\n"
    (folder / VOCAB_NAME).write_bytes(text.encode())


def main(arguments: list[str] | None = None) -> None:
    """Command line of the build."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent, help="folder the files are written to")
    parser.add_argument("--sources", type=Path, help="folder of the ten tarballs; missing ones are fetched with npm pack")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.sources or Path(scratch)
        fetch_packages(folder)
        check_packages(folder)
        write_files(build_table(read_sources(folder)), options.out)
    for name in (PARQUET_NAME, VOCAB_NAME):
        content = (options.out / name).read_bytes()
        logger.info("%s  %s  %d bytes", hashlib.sha256(content).hexdigest(), options.out / name, len(content))


if __name__ == "__main__":
    main()
