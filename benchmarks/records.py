"""What benchmarks/linceiver.py writes to its JSON file, and what is required of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypedDict


class Record(TypedDict):
    """One contestant in one cell; ratios are to the baseline of that cell."""

    name: str
    ratio: float
    ratio_low: float
    ratio_high: float
    wall_ratio: float
    cpu_ms: float
    wall_ms: float
    parameters: int
    parameters_ratio: float
    saved_bytes: int
    saved_ratio: float
    macs: int
    macs_ratio: float


class CellRecord(TypedDict):
    """All contestants for one length and number of latents; the baseline is the first."""

    tokens: int
    latents: int
    batch: int
    rounds: int
    contestants: list[Record]


class SliceSide(TypedDict):
    """A model before or after its closed columns were removed; MACs are per sample, times of the whole batch."""

    columns: int
    macs: int
    parameters: int
    bytes: int
    cpu_ms: float
    wall_ms: float


class SliceRecord(TypedDict):
    """Before and after; ``ratio`` of the forward pass, ``step_ratio`` of a training step, after to before."""

    tokens: int
    latents: int
    batch: int
    rounds: int
    before: SliceSide
    after: SliceSide
    ratio: float
    step_ratio: float
    logit_change: float


class RequirementRecord(TypedDict):
    """A limit; ``value`` and ``holds`` are None where the cell was not measured."""

    what: str
    limit: float
    value: float | None
    holds: bool | None


class Results(TypedDict):
    """One run of the benchmark."""

    device: str
    setting: str
    note: str
    versions: dict[str, str]
    settings: dict[str, int]
    cells: list[CellRecord]
    slices: list[SliceRecord]
    requirements: list[RequirementRecord]


REQUIRED_NAME, REQUIRED_LATENTS = "basis 32", 128
TIME_LIMITS = {64: 1.0, 256: 1.0, 1024: 1.0, 4096: 0.60, 16384: 0.36}
MEMORY_LIMITS = {4096: 0.60}
PARAMETER_LIMIT = 1.01
LOGIT_LIMIT = 1e-5


def requirements(cells: Iterable[CellRecord], slices: Iterable[SliceRecord]) -> list[RequirementRecord]:
    """Hold the measured numbers against the limits."""
    found = {
        cell["tokens"]: record
        for cell in cells
        if cell["latents"] == REQUIRED_LATENTS
        for record in cell["contestants"]
        if record["name"] == REQUIRED_NAME
    }
    parameters = [record["parameters_ratio"] for record in found.values()]
    changes = [record["logit_change"] for record in slices]
    return [
        *(limit(f"time, N = {tokens}", most, _of(found.get(tokens), "ratio")) for tokens, most in TIME_LIMITS.items()),
        *(
            limit(f"memory, N = {tokens}", most, _of(found.get(tokens), "saved_ratio"))
            for tokens, most in MEMORY_LIMITS.items()
        ),
        limit("parameters, any N", PARAMETER_LIMIT, max(parameters, default=None)),
        limit("change of the logits by removing closed columns", LOGIT_LIMIT, max(changes, default=None)),
    ]


def limit(what: str, most: float, value: float | None) -> RequirementRecord:
    """Return a requirement: ``value`` is at most ``most``. Not a number misses it."""
    return RequirementRecord(what=what, limit=most, value=value, holds=None if value is None else value <= most)


def misses(records: Iterable[RequirementRecord]) -> list[str]:
    """Return one sentence for every limit that is missed, and one if nothing was measured."""
    records = list(records)
    if all(record["value"] is None for record in records):
        return ["nothing that is required was measured"]
    return [
        f"{record['what']}: measured {record['value']:.3g}, required at most {record['limit']:g}"
        for record in records
        if record["holds"] is False
    ]


def _of(record: Record | None, key: Literal["ratio", "saved_ratio"]) -> float | None:
    return None if record is None else record[key]
