"""The typed run config: the only reader of run settings.

A Flower run config is a flat mapping of dotted keys to scalars (``data.train-fraction = 0.25``). This package turns one into
a frozen :class:`RunConfig`, and refuses a wrong key, type or value with the key, what was found, what is allowed and the
nearest valid key. It imports nothing of the project, so that every other module may import it.
"""

from config.base import (
    PROJECT_ROOT,
    ConfigError,
    Count,
    CountOrZero,
    Fraction,
    NotNegative,
    Positive,
    PositiveFraction,
    Scalar,
    Section,
    ascending_shares,
)
from config.continual import Continual
from config.data import CLASSES_PER_CLIENT, DOMAINS_PER_GROUPING, IMAGE_SIDE, WITHOUT_TEXTS, Data, task_fault
from config.flat import flatten, flatten_mapping, parse, parse_override, read_toml, to_toml
from config.model import IMAGE_MODELS, Model
from config.packing import DISTILL_WEIGHTS, MERGES, Packing, weighted_losses
from config.run import Federation, Run
from config.run_config import SECTIONS, RunConfig, runs_root
from config.selection import LOCAL_SCORERS, Selection
from config.strategy import Strategy
from config.train import Train

__all__ = [
    "CLASSES_PER_CLIENT",
    "DISTILL_WEIGHTS",
    "DOMAINS_PER_GROUPING",
    "IMAGE_MODELS",
    "IMAGE_SIDE",
    "LOCAL_SCORERS",
    "MERGES",
    "PROJECT_ROOT",
    "SECTIONS",
    "WITHOUT_TEXTS",
    "ConfigError",
    "Continual",
    "Count",
    "CountOrZero",
    "Data",
    "Federation",
    "Fraction",
    "Model",
    "NotNegative",
    "Packing",
    "Positive",
    "PositiveFraction",
    "Run",
    "RunConfig",
    "Scalar",
    "Section",
    "Selection",
    "Strategy",
    "Train",
    "ascending_shares",
    "flatten",
    "flatten_mapping",
    "parse",
    "parse_override",
    "read_toml",
    "runs_root",
    "task_fault",
    "to_toml",
    "weighted_losses",
]
