"""What scorers see of one target and its candidates, see strategies/selection/scorer.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import nn

from client.continual.train import TaskData
from client.modeldiff.outputs import outputs
from client.modeldiff.probes import Probes
from client.modeldiff.swap import candidate_model
from client.modeldiff.tune import Budget, calibrate, start, tune
from strategies.protocol import Manifest
from strategies.selection.scorer import Candidate, Target

Arm = Literal["swap", "calibrate"]


@dataclass(frozen=True)
class Ground:
    """All that a target brings to the comparison of donors; it stays as it is for all of them.

    Attributes:
        modality: ``image`` or ``text``.
        classes: names, in the order of its labels.
        own: the target's own model, trained.
        fresh: its model as initialised.
        data: what candidates are trained on and validated by.
        probes: of its training data (client/modeldiff/probes.py).
        arm: ``calibrate``: candidates are calibrated before their outputs are taken; else as they came.
        calibration: budget of that.
        tuning: budget of ``Candidate.tune``.
        alone: the same without a donor.
        seed: of everything random in scorers.
        device: where the models are.
    """

    modality: str
    classes: tuple[str, ...]
    own: nn.Module
    fresh: nn.Module
    data: TaskData
    probes: Probes
    arm: Arm = "swap"
    calibration: Budget = field(default_factory=lambda: Budget(epochs=6))
    tuning: Budget = field(default_factory=Budget)
    alone: Budget = field(default_factory=Budget)
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


def make_target(ground: Ground) -> Target:
    """Return the target."""
    own = outputs(ground.own, ground.probes, ground.device, ground.data.precision)
    return Target(ground.probes.labels, len(ground.classes), ground.probes.pairs, own, ground.seed)


def make_candidate(ground: Ground, manifest: Manifest, arrays: Mapping[str, np.ndarray]) -> Candidate:
    """Return a candidate. Its ``tune`` trains each time it is called, with the same result.

    Args:
        ground: of the target.
        manifest: of the donor.
        arrays: the donor's, see :func:`client.modeldiff.swap.candidate_model`.

    Raises:
        ValueError: the donor's arrays do not fit; nothing of them was used then.
    """
    model = candidate_model(arrays, manifest.modality, ground.own, ground.modality)
    same_modality, same_classes = manifest.modality == ground.modality, manifest.classes == ground.classes
    # A head that did not come is the target's own in B', and for its classes.
    beginning = start(model, ground.fresh, same_modality=same_modality, same_classes=same_classes)
    if ground.arm == "calibrate":
        if same_modality and not same_classes:
            model.head = beginning.head
        model = calibrate(model, ground.data, ground.calibration)
    found = outputs(model, ground.probes, ground.device, ground.data.precision)
    return Candidate(manifest.partition_id, same_modality, found, partial(tune, beginning, ground.data, ground.tuning))


def tune_without(ground: Ground) -> float:
    """Return what ``Candidate.tune`` would return without a donor: the target's fresh model, by as many steps."""
    return tune(ground.fresh, ground.data, ground.alone)
