"""The ten pinned npm packages the data set is made of: fetching, checking and reading their tarballs.

Only the build uses this module; running the project needs neither npm nor the packages.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from data_partition.emojipairs.catalogue import LANGUAGES

VARIATION_SELECTOR: Final = "\ufe0f"  # asks for a coloured drawing of the character before it


@dataclass(frozen=True)
class Package:
    """One pinned npm package; ``sha256`` is that of the tarball ``npm pack`` writes."""

    name: str
    version: str
    license: str
    sha256: str

    @property
    def tarball(self) -> str:
        """File name given by ``npm pack``."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


EMOJIBASE: Final = Package(
    "emojibase-data", "17.0.0", "MIT", "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a"
)
CLDR: Final = Package(
    "cldr-annotations-full", "48.2.0", "Unicode-3.0", "28576e51225deb51e3ddd734b0f824a0079682cb5d8c27faa9f68149317a14d1"
)
EMOJILIB: Final = Package("emojilib", "4.0.3", "MIT", "7f9a6b43cff31d18985b7d65d11faba5bd971cbcc60020cf6d09322fbaaaf303")
EMOJI_MART: Final = Package(
    "@emoji-mart/data", "1.2.1", "MIT", "93899f6e12097a8842fb63d8b84b3d68f7ef2bbe625735a2f5d48bfc33237c2c"
)
STYLES: Final[dict[str, Package]] = {
    "noto": Package(
        "@iconify-json/noto", "1.2.9", "Apache-2.0", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad"
    ),
    "noto-v1": Package(
        "@iconify-json/noto-v1", "1.2.5", "Apache-2.0", "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37"
    ),
    "twemoji": Package(
        "@iconify-json/twemoji", "1.2.5", "CC-BY-4.0", "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7"
    ),
    "emojione": Package(
        "@iconify-json/emojione", "1.2.3", "CC-BY-4.0", "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e"
    ),
    "fluent": Package(
        "@iconify-json/fluent-emoji", "1.2.7", "MIT", "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b"
    ),
    "fluent-flat": Package(
        "@iconify-json/fluent-emoji-flat", "1.2.6", "MIT", "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175"
    ),
}
"""Art style -> the package its drawings come from."""

PACKAGES: Final[tuple[Package, ...]] = (*STYLES.values(), EMOJIBASE, CLDR, EMOJILIB, EMOJI_MART)


@dataclass(frozen=True)
class IconSet:
    """One Iconify set: code points -> icon name (may be empty), and the drawings by name."""

    chars: dict[str, str]
    icons: dict[str, dict[str, Any]]
    aliases: dict[str, dict[str, Any]]
    width: int
    height: int

    def has(self, name: str) -> bool:
        """Tell whether the set draws an icon of this name, itself or under an alias."""
        return name in self.icons or name in self.aliases

    def svg(self, name: str) -> str:
        """Return the SVG document of an icon, following aliases, mirrored ones too; a wide drawing is centred.

        Raises:
            ValueError: an icon asks for a transform that none of the pinned sets uses.
        """
        mirrored = False
        while name not in self.icons:
            alias = self.aliases[name]
            if not alias.keys() <= {"parent", "hFlip", "hidden"}:
                raise ValueError(f"icon {name!r} has the transforms {sorted(alias)}: expected hFlip at most")
            mirrored ^= alias.get("hFlip", False)
            name = alias["parent"]
        icon = self.icons[name]
        left, top = icon.get("left", 0), icon.get("top", 0)
        width, height = icon.get("width", self.width), icon.get("height", self.height)
        body = icon["body"]
        if mirrored:
            body = f'<g transform="translate({2 * left + width} 0) scale(-1 1)">{body}</g>'
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'width="64" height="64" viewBox="{left} {top} {width} {height}">{body}</svg>'
        )


@dataclass(frozen=True)
class Sources:
    """Everything the build reads, parsed.

    ``subgroup_names`` maps emojibase's subgroup number to Unicode's subgroup name; ``annotations`` maps a language to
    CLDR's ``{emoji: {"tts": [name], "default": [keywords]}}``. Texts are keyed by the emoji without variation selectors,
    because the packages do not agree on writing them.
    """

    emojis: list[dict[str, Any]]
    subgroup_names: dict[int, str]
    icon_sets: dict[str, IconSet]
    annotations: dict[str, dict[str, Any]]
    emojilib: dict[str, list[str]]
    emoji_mart: dict[str, dict[str, Any]]


def fetch_packages(folder: Path) -> None:
    """Download the pinned tarballs that are not in ``folder`` yet with ``npm pack``."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        if not (folder / package.tarball).exists():
            command = ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - pinned names


def check_packages(folder: Path) -> None:
    """Compare every tarball with its pinned sha256.

    Raises:
        ValueError: a tarball is missing or is not the pinned one; all faults are listed.
    """
    faults = []
    for package in PACKAGES:
        path = folder / package.tarball
        if not path.exists():
            faults.append(f"{path}: missing")
            continue
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != package.sha256:
            faults.append(f"{path}: sha256 {found}, expected {package.sha256}")
    if faults:
        raise ValueError("the sources are not the pinned npm packages:\n  " + "\n  ".join(faults))


def read_sources(folder: Path) -> Sources:
    """Parse the ten tarballs of ``folder`` without unpacking them to disk."""
    base = _read_members(folder / EMOJIBASE.tarball, ["en/data.json", "meta/groups.json"])
    paths = {language: f"annotations/{language}/annotations.json" for language in LANGUAGES}
    cldr = _read_members(folder / CLDR.tarball, paths.values())
    emojilib = _read_members(folder / EMOJILIB.tarball, ["dist/emoji-en-US.json"])
    mart = _read_members(folder / EMOJI_MART.tarball, ["sets/15/native.json"])["sets/15/native.json"]
    return Sources(
        emojis=base["en/data.json"],
        subgroup_names={int(key): name for key, name in base["meta/groups.json"]["subgroups"].items()},
        icon_sets={style: _read_icon_set(folder / package.tarball) for style, package in STYLES.items()},
        annotations={language: _bare_keys(cldr[path]["annotations"]["annotations"]) for language, path in paths.items()},
        emojilib=_bare_keys(emojilib["dist/emoji-en-US.json"]),
        emoji_mart=_bare_keys({entry["skins"][0]["native"]: entry for entry in mart["emojis"].values()}),
    )


def _bare_keys(entries: dict[str, Any]) -> dict[str, Any]:
    return {emoji.replace(VARIATION_SELECTOR, ""): entry for emoji, entry in entries.items()}


def _read_icon_set(path: Path) -> IconSet:
    members = _read_members(path, ["chars.json", "icons.json"])
    icons = members["icons.json"]
    return IconSet(
        members["chars.json"], icons["icons"], icons.get("aliases", {}), icons.get("width", 16), icons.get("height", 16)
    )


def _read_members(path: Path, members: Iterable[str]) -> dict[str, Any]:
    """Parse JSON members of a tarball; npm puts every file under ``package/``."""
    with tarfile.open(path, "r:gz") as archive:
        wanted = {f"package/{member}": member for member in members}
        parsed: dict[str, Any] = {}
        for entry in archive:
            if entry.name in wanted and (handle := archive.extractfile(entry)) is not None:
                parsed[wanted[entry.name]] = json.load(handle)
    missing = sorted(set(wanted.values()) - set(parsed))
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    return parsed
