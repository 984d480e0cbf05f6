"""What the embedded data set consists of: themes, classes, art styles and text sources.

Plain constants and no imports, so that a config check can name every subgroup without reading a row.
"""

from __future__ import annotations

from typing import Final

THEMES: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "animals": {
        "mammal": ("animal-mammal",),
        "bird": ("animal-bird",),
        "marine": ("animal-marine",),
        "bug": ("animal-bug",),
    },
    "food": {
        "fruit": ("food-fruit",),
        "vegetable": ("food-vegetable",),
        "meal": ("food-prepared", "food-asian"),
        "drink": ("drink",),
    },
    "world": {
        "plant": ("plant-flower", "plant-other"),
        "vehicle": ("transport-ground", "transport-water", "transport-air"),
        "building": ("place-building", "place-religious"),
        "sky": ("sky-weather",),
    },
    "things": {
        "clothing": ("clothing",),
        "tool": ("tool",),
        "paper": ("book-paper", "mail", "writing"),
        "device": ("phone", "computer", "light-video"),
    },
    "play": {
        "sport": ("sport",),
        "game": ("game",),
        "music": ("sound", "music", "musical-instrument"),
        "festival": ("event",),
    },
    "people": {
        "hand": (
            "hand-fingers-open",
            "hand-fingers-partial",
            "hand-single-finger",
            "hand-fingers-closed",
            "hands",
            "hand-prop",
        ),
        "happy": ("face-smiling", "face-affection", "face-tongue"),
        "unhappy": ("face-concerned", "face-negative", "face-unwell"),
        "person": ("person", "person-role"),
    },
}
"""Theme -> class -> the Unicode subgroups (UTS #51 data files) whose emoji belong to the class."""

CLASSES: Final[tuple[str, ...]] = tuple(name for classes in THEMES.values() for name in classes)
"""The 24 class names; the label of a row is the index of its class here."""

IMAGE_STYLES: Final[tuple[str, ...]] = ("noto", "noto-v1", "twemoji", "emojione", "fluent", "fluent-flat")
"""The image domains: independently licensed sets of drawings."""

LANGUAGES: Final[tuple[str, ...]] = ("en", "de", "es", "fr", "it", "pt", "ja", "ko")
ENGLISH_SOURCES: Final[tuple[str, ...]] = ("cldr-en", "emojilib-en", "emojimart-en")
TEXT_SOURCES: Final[tuple[str, ...]] = (*(f"cldr-{language}" for language in LANGUAGES), *ENGLISH_SOURCES[1:])
"""The text domains: a source of keywords in one language."""

IMAGE_SIZE: Final = 32
PARQUET_NAME: Final = "emojipairs.parquet"
VOCAB_NAME: Final = "vocab.txt"
SPECIAL_TOKENS: Final[tuple[str, ...]] = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""The first entries of the vocabulary; the id of a token is its index."""
