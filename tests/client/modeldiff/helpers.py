"""Small models of one run, and probes for them."""

from __future__ import annotations

import torch
from torch import nn

from client.modeldiff.probes import Probes, random_pairs
from config import WIDE_RESNETS
from models.arrays import Arrays, get_arrays
from models.factory import BUILDERS
from models.groups import shared_names
from tests.client.continual.helpers import WIDTHS, inputs_of
from tests.models.helpers import TOKEN_MODELS, tiny

CPU = torch.device("cpu")
ALL = "backbone+adapter+head"
CASES = [*((name, modality) for name in TOKEN_MODELS for modality in ("image", "text")), *((name, "image") for name in WIDTHS)]
assert {name for name, _ in CASES} == set(BUILDERS).difference(WIDE_RESNETS[1:])


def model_of(modality: str, name: str = "linceiver-io", num_classes: int = 5, seed: int = 0, **settings: object) -> nn.Module:
    sizes = {"width": WIDTHS[name]} if name in WIDTHS else {"dim": 32, "latents": 4, "heads": 2, "cross_heads": 2, "layers": 1}
    return tiny(modality, name=name, num_classes=num_classes, seed=seed, **sizes, **settings)


def arrays_of(model: nn.Module, share: str = ALL) -> Arrays:
    return get_arrays(model, shared_names(model, share))


def probes_of(model: nn.Module, modality: str, n: int = 10) -> Probes:
    return Probes(inputs_of(model, modality, n), torch.arange(n) % 5, random_pairs(n, 20, 0))
