"""What is known of each data set of time series without reading it."""

from __future__ import annotations

from typing import Final

SERIES: Final = ("watch", "pamap2", "geneactiv")
"""Data sets of time series: a client has the recordings of one or more subjects."""

CHANNELS: Final[dict[str, tuple[str, ...]]] = {
    "watch": ("ax", "ay", "az", "wx", "wy", "wz"),
    "pamap2": (
        "heart-rate",
        *(
            f"{place}-{name}"
            for place in ("hand", "chest", "ankle")
            for name in (
                "temperature",
                *(f"{kind}-{axis}" for kind in ("acc16", "acc6", "gyro", "magnet") for axis in "xyz"),
            )
        ),
    ),
    "geneactiv": ("x", "y", "z"),
}
"""Channels of each data set in their order."""

SERIES_SETTINGS: Final = (
    "window",
    "step",
    "subjects_per_client",
    "test_subjects",
    "train_on_validation",
    "channels",
    "series_augment",
)
"""Settings of ``[data]`` that series alone have."""
