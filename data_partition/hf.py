"""Any data set in Parquet or Arrow files with named columns: one of Hugging Face on this disk, or the user's own.

``data.data-dir`` is one such file, or a folder with them, at any depth, as a clone from the hub or ``save_to_disk`` leaves it.
``data.columns`` says which column is what; those left out are found by their usual names:

- ``image``: bytes of an image file, with or without a path beside them, or a path, from the file or from ``data.data-dir``;
- ``text``: a text, or a list of texts, which are one text with one line each;
- ``label``: the class, as its name or a number; numbers get their names from the file, if it says them;
- ``domain``, ``group`` (of classes), ``item``: further facts of a row. Rows of one item are not parted by splits; without it a
  row is an item of its own, with its image and its text;
- ``split``: without it, the split is in the name of a file or of a folder that it is in: train, test, or one of val, valid,
  validation and dev. These are the test split where nothing has that name, and otherwise more to train on. Without either a
  test share is drawn by item.

Nothing is fetched unless ``data.download`` is true. Then ``data.hub-name`` is downloaded to ``data.data-dir``, if that folder
is not there yet.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from config import Data
from data_partition.cache import write_once
from data_partition.column_files import (
    SUFFIXES,
    class_names,
    column_values,
    data_files,
    image_bytes,
    image_columns,
    images_of,
    schema,
)
from data_partition.expected_files import NOT_FOUND
from data_partition.files import DataError
from data_partition.folder import natural
from data_partition.readers import root_of
from data_partition.rows import Fault, Listing, Row

USUAL: Final = {
    "image": ("image", "img", "picture", "photo"),
    "text": ("text", "caption", "captions", "sentence"),
    "label": ("label", "labels", "class", "category", "fine_label"),
    "domain": ("domain",),
    "group": ("group",),
    "item": ("item", "image_id"),
    "split": ("split",),
}
"""What a column may be, and the names that it is found by, the first one that is there."""

MEANING: Final = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
}
"""Names of splits."""


def missing(data: Data) -> str:
    """Say that there are no data files, after fetching them if ``data.download`` asks for it; empty: there are some."""
    if data.download and data.data_dir:
        write_once(root_of(data), lambda part: fetch(data.hub_name, part))
    if data.data_dir and root_of(data).exists() and data_files(root_of(data)):
        return ""
    start = (
        f"data.dataset = 'hf' was not found in data.data-dir = '{data.data_dir}'."
        if data.data_dir
        else "data.dataset = 'hf' needs data.data-dir, which is empty."
    )
    return (
        f"{start} Expected:\n  {root_of(data) if data.data_dir else 'DATA-DIR'}/\n"
        f"    *.parquet or *.arrow, in any folder below{NOT_FOUND}\n"
        "What to do: put the files there, such as a clone of a data set on the hub or what save_to_disk writes; or set "
        "data.hub-name and data.download = true, with a data.data-dir that is not there yet."
    )


def inputs(data: Data) -> list[Path]:
    """Return what is read: the data files, and the folder, with the images that they may name."""
    return [*data_files(root_of(data)), root_of(data)]


def read(data: Data) -> Listing:
    """List the rows of all files.

    Raises:
        DataError: there are no files, one is damaged, or its columns are not those that are needed.
    """
    if told := missing(data):
        raise DataError(told)
    root = root_of(data)
    files = data_files(root)
    roles = roles_of(data, files)
    found = [one for path in files for one in _examples(path, root, roles[path])]
    raw = {one.split for one in found if isinstance(one, Row)}
    meaning = meaning_of(raw)
    rows = tuple(replace(one, split=meaning[one.split]) for one in found if isinstance(one, Row))
    return Listing(rows, tuple(one for one in found if isinstance(one, Fault)))


def pictures(path: Path, indices: Sequence[int]) -> Iterator[bytes]:
    """Yield the image files at some places of a data file; see :func:`data_partition.column_files.image_bytes`."""
    return image_bytes(path, indices)


def own_groups(data: Data) -> dict[str, tuple[str, ...]]:
    """Return the classes of each group: those of the column of groups, or one group of all.

    Groups and classes are in the order in which a file lists their names, otherwise of their names, where 2 is before 10.

    Raises:
        DataError: as :func:`read`.
    """
    files = data_files(root_of(data))
    order: dict[str, tuple[int, list[tuple[int, str]]]] = {}
    members: dict[str, set[str]] = {}
    for path, named in roles_of(data, files).items():
        names = class_names(path)
        for role in ("group", "label"):
            order |= {name: (place, []) for place, name in enumerate(names.get(named.get(role, ""), ()))}
        columns = column_values(path, [named[role] for role in ("group", "label") if role in named])
        labels = _named(columns[named["label"]], names.get(named["label"]))
        groups = _named(columns[named["group"]], names.get(named["group"])) if "group" in named else ["all"] * len(labels)
        for group, label in zip(groups, labels, strict=True):
            if label and group:
                members.setdefault(group, set()).add(label)

    def key(name: str) -> tuple[int, list[tuple[int, str]]]:
        return order.get(name, (0, natural(name)))

    return {group: tuple(sorted(members[group], key=key)) for group in sorted(members, key=key)}


def roles_of(data: Data, files: Sequence[Path]) -> dict[Path, dict[str, str]]:
    """Return the column of each role, file by file.

    Raises:
        DataError: a column that the settings name is in no file, a file has no column of classes, or neither images nor texts.
    """
    pairs = (part.partition("=") for part in data.columns.split(",") if part.strip())
    chosen = {role.strip(): name.strip() for role, _, name in pairs}
    columns = {path: schema(path).names for path in files}
    everywhere = list(dict.fromkeys(name for names in columns.values() for name in names))
    shown = ", ".join(everywhere)
    for role, name in chosen.items():
        if name not in everywhere:
            raise DataError(f"data.columns names {role}={name}, and the files of {data.data_dir} have the columns {shown}.")
    roles: dict[Path, dict[str, str]] = {}
    for path, names in columns.items():
        wanted = {role: (chosen[role],) if role in chosen else usual for role, usual in USUAL.items()}
        own = {role: next(name for name in usual if name in names) for role, usual in wanted.items() if {*usual} & {*names}}
        if "image" not in own and len(held := image_columns(path)) == 1:
            own["image"] = held[0]
        if "label" not in own or not {"image", "text"} & own.keys():
            raise DataError(
                f"{path} has the columns {', '.join(names)}, and of what is needed only {own or 'nothing'} was found: say "
                "which holds the class, and which images or texts, as in data.columns = 'image=img,label=fine_label'."
            )
        roles[path] = own
    return roles


def meaning_of(names: set[str]) -> dict[str, str]:
    """Return "train", "test" or "" (drawn by item) for each name of a split that was found.

    >>> meaning_of({"train", "validation"}), meaning_of({"train"})
    ({'train': 'train', 'validation': 'test'}, {'train': ''})

    Raises:
        DataError: a name is unknown.
    """
    if unknown := sorted(names - {"", *MEANING}):
        raise DataError(f"the column of splits has {', '.join(map(repr, unknown))}: expected {', '.join(MEANING)}.")
    known = {MEANING.get(name, "") for name in names}
    tested = next((name for name in ("test", "val") if name in known), "")
    found = {}
    for name in sorted(names):
        meaning = MEANING.get(name, "")
        found[name] = "" if not tested or not meaning else "test" if meaning == tested else "train"
    return found


def fetch(hub_name: str, folder: Path) -> None:
    """Download the data files of a data set of the Hugging Face hub: the one thing here that uses the network.

    Raises:
        DataError: it could not be downloaded.
    """
    from huggingface_hub import snapshot_download

    patterns = [f"*{suffix}" for suffix in SUFFIXES]
    try:
        for revision in ("main", "refs/convert/parquet"):
            if not data_files(folder):
                snapshot_download(hub_name, repo_type="dataset", revision=revision, local_dir=folder, allow_patterns=patterns)
    except (OSError, ValueError) as error:  # those of the hub among them
        raise DataError(f"data.hub-name = '{hub_name}' could not be downloaded: {error}") from None
    if not data_files(folder):
        raise DataError(f"data.hub-name = '{hub_name}' has neither Parquet nor Arrow files: download and convert it yourself.")


def split_of(path: Path) -> str:
    """Return the split in the name of a file, or of the folder nearest to it that names one; empty: none does.

    >>> split_of(Path("data/train-00000-of-00002.parquet")), split_of(Path("test/all.arrow")), split_of(Path("latest.arrow"))
    ('train', 'test', '')
    """
    for part in reversed(path.parts):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in MEANING:
                return word
    return ""


def _examples(path: Path, root: Path, named: dict[str, str]) -> Iterator[Row | Fault]:
    """Yield the images and texts of a file, with the names of splits as they are in it."""
    below = path.relative_to(root) if path != root else Path(path.name)
    columns = column_values(path, [name for role, name in named.items() if role != "image"])
    number = len(columns[named["label"]])
    labels = _named(columns[named["label"]], class_names(path).get(named["label"]))
    domains = _named(columns[named["domain"]], class_names(path).get(named["domain"])) if "domain" in named else [""] * number
    splits = (
        [str(name).strip().lower() for name in columns[named["split"]]] if "split" in named else [split_of(below)] * number
    )
    items = [str(name) for name in columns[named["item"]]] if "item" in named else [f"{below}:{row}" for row in range(number)]
    images = images_of(path, named["image"]) if "image" in named else [None] * number
    texts = [_joined(value) for value in columns[named["text"]]] if "text" in named else [""] * number
    for item, label, split, domain, image, text in zip(items, labels, splits, domains, images, texts, strict=True):
        if not label:
            yield Fault(item, "", f"{below} has no class for it")
            continue
        if image is None and not text:
            yield Fault(item, "", f"{below} has neither an image nor a text for it")
        if isinstance(image, int):
            yield Row(item, "image", label, split, domain, path=path, index=image)
        elif image is not None:
            places = [place / image for place in (path.parent, root) if (place / image).is_file()]
            yield (
                Row(item, "image", label, split, domain, path=places[0])
                if places
                else Fault(item, "image", f"no file {image}")
            )
        if text:
            yield Row(item, "text", label, split, domain, text=text)


def _named(values: Sequence[Any], names: Sequence[str] | None) -> list[str]:
    """Return classes by name; empty: a row has none."""
    if names is None:
        return ["" if value is None else str(value).strip() for value in values]
    return [names[value] if value is not None and 0 <= value < len(names) else "" for value in values]


def _joined(value: Any) -> str:
    """Return a text with its lines, or a list of texts with one line each."""
    lines = value if isinstance(value, list) else str(value or "").splitlines()
    words = (" ".join(str(line or "").split()) for line in lines)
    return "\n".join(line for line in words if line)
