"""What is known of each data set without reading it."""

from __future__ import annotations

from typing import Final

from config.series import SERIES

DOMAINS_PER_GROUPING: Final = {"mixed": 1, "theme": 1, "siblings": 2, "tri": 3}
"""Groupings that divide a class group over several clients; all others have one client, or ``data.devices-per-group``."""

CLASSES_PER_CLIENT: Final[dict[str, dict[str, int]]] = {
    "emojipairs": {"mixed": 4, "theme": 4, "siblings": 8, "tri": 12},
    "cifar100": {"superclass": 5, "all": 100},
    "cifar10": {"pairs": 2, "all": 10},
    "oxford102": {"seed": 4, "all": 24},
    "cub": {"seed": 5, "all": 135},
    "coco": {"seed": 4, "all": 60},
    "n24news": {"seed": 3, "all": 18},
    "watch": {"subjects": 7, "all": 7},
    "pamap2": {"subjects": 12, "all": 12},
    "geneactiv": {"subjects": 0, "all": 0},
    "folder": {"own": 0, "all": 0},
    "hf": {"own": 0, "all": 0},
}
"""Groupings of each data set, and the classes of one client in each; 0: what the files say."""

IMAGE_SIDE: Final = {
    "emojipairs": 32,
    "cifar100": 32,
    "cifar10": 32,
    "oxford102": 64,
    "cub": 224,
    "coco": 64,
    "n24news": 224,
    "folder": 64,
    "hf": 64,
}
"""Side in pixels of the images of each data set, unless ``data.image-size`` says another."""

WITHOUT_TEXTS: Final = ("cifar100", "cifar10")
"""Data sets whose clients all have images."""

WITH_DOMAINS: Final = ("folder", "hf")
"""Data sets whose rows may name a domain, for ``data.partitioner = "domain"``."""

LISTED: Final = ("cifar10", "oxford102", "cub", "coco", "n24news", "folder", "hf")
"""Data sets that a reader lists row by row, decoded once for all clients of a machine."""

ONLY_FOR: Final[dict[str, tuple[str, ...]]] = {
    "image_size": LISTED,
    "max_bad_fraction": LISTED,
    "partitioner": LISTED,
    "devices_per_group": LISTED,
    "unlabelled_fraction": ("emojipairs", *SERIES),
    "label_rule": ("coco",),
    "columns": ("hf",),
    "hub_name": ("hf",),
    "download": ("hf",),
}
"""Settings that some data sets alone have."""

COLUMNS: Final = ("image", "text", "label", "domain", "group", "item", "split")
"""What a column of a data set in Parquet or Arrow files may be."""
