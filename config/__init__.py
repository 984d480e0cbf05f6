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
from config.clip import Clip
from config.continual import Continual
from config.data import Data, task_fault
from config.data_sets import CLASSES_PER_CLIENT, DOMAINS_PER_GROUPING, IMAGE_SIDE, LISTED, WITHOUT_TEXTS
from config.distil import Distil
from config.flat import flatten, flatten_mapping, parse, parse_override, read_toml, to_toml
from config.model import CONVOLUTIONAL, IMAGE_MODEL_SIDE, IMAGE_MODELS, WIDE_RESNETS, Model
from config.packing import DISTILL_WEIGHTS, MERGES, Packing, weighted_losses
from config.run import Federation, Run
from config.run_config import SECTIONS, RunConfig, runs_root
from config.selection import LOCAL_SCORERS, Selection
from config.series import CHANNELS, SERIES
from config.strategy import Strategy
from config.train import Train

__all__ = [
    "CHANNELS",
    "CLASSES_PER_CLIENT",
    "CONVOLUTIONAL",
    "DISTILL_WEIGHTS",
    "DOMAINS_PER_GROUPING",
    "IMAGE_MODELS",
    "IMAGE_MODEL_SIDE",
    "IMAGE_SIDE",
    "LISTED",
    "LOCAL_SCORERS",
    "MERGES",
    "PROJECT_ROOT",
    "SECTIONS",
    "SERIES",
    "WIDE_RESNETS",
    "WITHOUT_TEXTS",
    "Clip",
    "ConfigError",
    "Continual",
    "Count",
    "CountOrZero",
    "Data",
    "Distil",
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
