"""What makes a packing of donors impossible, by settings of several sections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from config.data_sets import WITHOUT_TEXTS

if TYPE_CHECKING:
    from config.run_config import RunConfig


def pack_fault(config: RunConfig) -> str:
    """Return what is wrong with a run that packs, or with one that does not and has settings for it; empty: nothing.

    Raises:
        ValueError: a student of the wanted size cannot be built.
    """
    packing, data = config.packing, config.data
    found = f"found '{config.strategy.name}' with '{config.selection.combine}'"
    packs = "strategy.name = 'backpack' with selection.combine = 'pack'"
    if packing.student_size != 1.0 and not config.packs:
        return (
            f"packing.student-size = {packing.student_size} is for {packs}, {found}: use 1.0; teachers of 'distil' have "
            "distil.teacher-width"
        )
    taught = config.strategy.name in ("distil", "local")  # local: what teachers of distil train by, see of_teachers
    if data.unlabelled_fraction and not config.packs and not taught:
        return (
            f"data.unlabelled-fraction = {data.unlabelled_fraction} is for strategy.name = 'distil', and for 'backpack' with "
            f"selection.combine = 'pack', {found}: nobody else reads inputs without labels; use 0"
        )
    if packing.twins and not config.packs:
        return f"packing.twins = {packing.twins} is for {packs}, {found}: use 0"
    if not config.packs:
        return ""
    _ = config.of_students
    if packing.how != "distil":
        return f"packing.how = '{packing.how}': selection.combine = 'pack' distils; use 'distil'"
    if packing.distil_on == "unlabelled" and not data.unlabelled_fraction:
        return (
            "packing.distil-on = 'unlabelled' and data.unlabelled-fraction = 0.0: there is no input to ask teachers about; "
            "raise it, or use 'all'"
        )
    if packing.weights == "similarity" and "modeldiff" not in config.selection.scorers:
        return "packing.weights = 'similarity' goes by the scorer modeldiff: name it in selection.scorer or selection.also"
    if packing.twins and (fault := twin_fault(config)):
        return f"packing.twins = {packing.twins}: {fault}"
    if packing.then == "nothing" and data.tasks_per_client > 1:
        return (
            f"packing.then = 'nothing' leaves no weight for a later task, found data.tasks-per-client = "
            f"{data.tasks_per_client}: use 'method'"
        )
    return ""


def twin_fault(config: RunConfig) -> str:
    """Return why donors of the other modality cannot teach by twins; empty: they can."""
    data, selection, packing = config.data, config.selection, config.packing
    if data.dataset in WITHOUT_TEXTS or data.series or data.modalities != "both":
        return (
            f"every client needs twins in another modality, found data.dataset = '{data.dataset}', data.also = "
            f"'{data.also}' and data.modalities = '{data.modalities}'; use 0"
        )
    if not selection.across or "adapter" not in config.strategy.share:
        return (
            "donors of the other modality and their adapters are wanted, found selection.across = "
            f"{str(selection.across).lower()} and strategy.share = '{config.strategy.share}'; use true and 'backbone+adapter'"
        )
    if packing.twins > selection.top:
        return f"they are among selection.top = {selection.top} donors; raise that, or use fewer"
    if packing.data != "child":
        return f"inputs of donors have no twins on the student's client, found packing.data = '{packing.data}'; use 'child'"
    if packing.checkpoint != "last":
        return f"packing.checkpoint = '{packing.checkpoint}' needs twins to validate by, and there are none; use 'last'"
    if packing.weights == "similarity" and selection.candidate != "paired":
        return (
            "packing.weights = 'similarity' compares across modalities only with selection.candidate = 'paired', found "
            f"'{selection.candidate}'; use that, or other weights"
        )
    return ""
