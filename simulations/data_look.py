"""``backpack data``: what is in a data set, what its clients would get, and two pictures of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console

import config as settings
from config import CLASSES_PER_CLIENT, LISTED, ConfigError, Data
from data_partition.datasets import DATASETS, check_files, names_of
from data_partition.files import DataError
from data_partition.rows import Fault, Sample
from simulations import tables
from simulations.data_facts import SPLITS, ClientFacts, Facts, imbalance, look

SAMPLES: Final = 4
"""Items of a class on the contact sheet."""
REASONS: Final = 10
"""Bad rows that are named."""


def main(name: str, data_dir: str, overrides: Sequence[str], out: Path | None) -> None:
    """Print what is known of a data set, and write its pictures.

    Args:
        name: ``data.dataset``, or a simulation config whose data settings are taken.
        data_dir: ``data.data-dir``; relative to the working directory.
        overrides: ``key=value`` over the others.
        out: folder of the pictures; None: ``data-NAME`` in the working directory.

    Raises:
        ConfigError: a setting is wrong, files are missing, or a run with these settings would stop at the data.
    """
    data = read_settings(name, data_dir, overrides)
    try:
        _look_at(data, out or Path(f"data-{data.dataset}"))
    except DataError as error:
        raise ConfigError(str(error)) from None


def read_settings(name: str, data_dir: str, overrides: Sequence[str]) -> Data:
    """Return the data settings that the command line asks for; without a grouping, the first one of the data set."""
    if name.endswith(".toml"):
        flat: dict[str, Any] = settings.read_toml(Path(name))
    else:
        groupings = list(CLASSES_PER_CLIENT.get(name, ()))
        default = Data().grouping
        flat = {"data.dataset": name, "data.grouping": groupings[0] if groupings and default not in groupings else default}
    if data_dir:
        flat["data.data-dir"] = str(Path(data_dir).expanduser().absolute())
    return settings.parse(flat | dict(settings.parse_override(text) for text in overrides)).data


def _look_at(data: Data, out: Path) -> None:
    trusting = data.model_copy(update={"max_bad_fraction": 1.0})
    check_files(trusting)
    if data.dataset in LISTED:
        tell(f"reading {data.data_dir}; the first time, all images are decoded, which may take minutes")
    facts = look(data)
    show_classes(data, facts)
    show_clients(data, facts)
    problems = [_quality(data)] if data.dataset in LISTED else []
    tell("")
    out.mkdir(parents=True, exist_ok=True)
    for file, draw in (("contact-sheet.png", _contact_sheet), ("labels.png", _label_plot)):
        replaced = (out / file).exists()
        tell(f"{out / file}: {draw(data, facts, out / file)}{', in place of an older one' if replaced else ''}")
    problems += [f"client {one.subgroup.partition_id}: {one.fault}" for one in facts.clients if one.fault]
    if any(problems):
        raise ConfigError("a run with these settings would stop:\n" + "\n".join(filter(None, problems)))


def show_classes(data: Data, facts: Facts) -> None:
    """Print the examples of each class, split and modality, and how uneven the classes are."""
    number = sum(len(classes) for classes in facts.groups.values())
    tell(f"{data.dataset}: {len(facts.groups)} groups (data.grouping = '{data.grouping}'), {number} classes")
    tell("Examples of all classes, before data.train-fraction and data.partitioner:", space=True)
    headings = {"group": "group", "class": "class"}
    headings |= {f"{modality} {split}": f"{modality} {split}" for modality in facts.modalities for split in SPLITS}
    body: list[list[str]] = []
    for group, classes in facts.groups.items():
        for name in classes:
            cells = [facts.counts.get((modality, name), (0, 0, 0)) for modality in facts.modalities]
            body.append([group, name, *(f"{number:,}" for own in cells for number in own)])
    sums = [
        sum(own[place] for (of, _), own in facts.counts.items() if of == modality)
        for modality in facts.modalities
        for place in range(len(SPLITS))
    ]
    body.append(["all", f"{number} classes", *(f"{one:,}" for one in sums)])
    tables.show(headings, [], body, "table", ("group", "class"))
    for modality in facts.modalities:
        of_class = {name: own[0] for (of, name), own in facts.counts.items() if of == modality and own[0]}
        if of_class:
            small, large = min(of_class, key=of_class.__getitem__), max(of_class, key=of_class.__getitem__)
            tell(
                f"imbalance of {modality.rstrip('s')}s: {imbalance(list(of_class.values())):.2f}, training examples of the "
                f"largest class ({large}: {of_class[large]:,}) over those of the smallest ({small}: {of_class[small]:,})"
            )


def show_clients(data: Data, facts: Facts) -> None:
    """Print what each client that takes part owns."""
    tell(
        f"Clients, with data.train-fraction = {data.train_fraction}, data.partitioner = '{data.partitioner}', "
        f"data.devices-per-group = {data.devices_per_group}, data.seed = {data.seed}:",
        space=True,
    )
    headings = {"client": "client", "modality": "modality", "group": "group", "domain": "domain", "classes": "classes"}
    headings |= {split: split for split in SPLITS} | {"imbalance": "imbalance"}
    body: list[list[str]] = []
    for client in facts.clients:
        own, train = client.subgroup, client.counts[0]
        owned = int((train > 0).sum())
        classes = f"{owned}" if owned == len(train) else f"{owned} of {len(train)}"
        words = [str(own.partition_id), own.modality, client.group, ", ".join(own.domains), classes]
        body.append([*words, *(f"{part.sum():,}" for part in client.counts), f"{imbalance(train.tolist()):.2f}"])
    tables.show(headings, [], body, "table", ("modality", "group", "domain"))
    tell("imbalance: training examples of a client's largest class over those of its smallest, of the classes that it has")
    if data.tasks_per_client > 1:
        tell(f"the classes of each client are split into {data.tasks_per_client} tasks (data.tasks-per-client)")


def _quality(data: Data) -> str:
    """Print rows that are not used, and why; return why a run would stop, if it would."""
    from data_partition import listed, store

    found = listed.quality(data)
    total = found.num_rows + len(found.faults)
    share = f" ({len(found.faults) / total:.2%})" if total else ""
    tell(f"bad rows: {len(found.faults):,} of {total:,}{share}; data.max-bad-fraction = {data.max_bad_fraction}", space=True)
    _reasons(found.faults)
    if found.left_out:
        tell(f"left out by the rules of data_partition/{data.dataset}.py, not counted as bad: {len(found.left_out):,}")
        _reasons(found.left_out)
    try:
        store.check_faults(data, found.num_rows, found.faults)
    except DataError:
        return f"more bad rows than data.max-bad-fraction = {data.max_bad_fraction} allows: get these files again, or raise it"
    return ""


def _reasons(faults: Sequence[Fault]) -> None:
    for fault in faults[:REASONS]:
        tell(f"  - {fault.item} ({fault.modality}): {fault.reason}")
    if len(faults) > REASONS:
        tell(f"  - and {len(faults) - REASONS:,} more")


def _contact_sheet(data: Data, facts: Facts, path: Path) -> str:
    from simulations.data_pictures import contact_sheet

    def samples(group: str, label: str) -> list[Sample]:
        owner = next(name for name in names_of(data) if group in DATASETS[name].group_names(data))
        try:
            return DATASETS[owner].samples(data, label, SAMPLES)
        except DataError:  # no files of this class
            return []

    sheet, boxes = contact_sheet(
        {group: {name: samples(group, name) for name in classes} for group, classes in facts.groups.items()}
    )
    sheet.save(path)
    return f"{len(boxes)} training items, {SAMPLES} of each class"


def _label_plot(data: Data, facts: Facts, path: Path) -> str:
    from simulations.data_pictures import label_plot

    columns = [name for classes in facts.groups.values() for name in classes]
    counts = [dict(zip(one.subgroup.classes, map(int, one.counts[0].tolist()), strict=True)) for one in facts.clients]
    plot, _ = label_plot([_name(one) for one in facts.clients], columns, counts)
    plot.save(path)
    return f"training examples of {len(facts.clients)} clients and {len(columns)} classes"


def _name(client: ClientFacts) -> str:
    own = client.subgroup
    return f"{own.partition_id} {own.modality} {client.group}"


def tell(line: str, *, space: bool = False) -> None:
    """Print a line as it is, with an empty one before it if asked for."""
    console = Console()
    if space:
        console.print()
    console.print(line, markup=False, highlight=False, soft_wrap=True)
