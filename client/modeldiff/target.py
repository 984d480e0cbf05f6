"""What scorers see of one target and its candidates, see strategies/selection/scorer.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from client.continual.train import TaskData
from client.modeldiff.outputs import outputs
from client.modeldiff.probes import Probes
from client.modeldiff.swap import candidate_model, paired, whole_model
from client.modeldiff.tune import Budget, calibrate, start, tune
from strategies.protocol import Manifest
from strategies.selection.scorer import Candidate, Outputs, Target

Arm = Literal["swap", "calibrate", "paired"]


@dataclass(frozen=True)
class Twins:
    """The target's probes in the other modality.

    Attributes:
        modality: the other one.
        inputs: row i is of the same concept as probe i.
        fresh: a model of this modality as initialised, with the target's classes.
    """

    modality: str
    inputs: Tensor
    fresh: nn.Module


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
        arm: ``calibrate``: candidates are calibrated before their outputs are taken; ``paired``: those of the other modality
            see twins of the probes; else as they came.
        calibration: budget of that.
        tuning: budget of ``Candidate.tune``.
        alone: the same without a donor.
        seed: of everything random in scorers.
        device: where the models are.
        twins: of the probes, for ``paired``.
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
    twins: Twins | None = None


def make_target(ground: Ground) -> Target:
    """Return the target."""
    own = outputs(ground.own, ground.probes, ground.device, ground.data.precision)
    return Target(ground.probes.labels, len(ground.classes), ground.probes.pairs, own, ground.seed)


def make_candidate(ground: Ground, manifest: Manifest, arrays: Mapping[str, np.ndarray]) -> Candidate:
    """Return a candidate. Its ``tune`` trains each time it is called, with the same result.

    Across modalities ``paired`` changes the outputs alone. The labels of the probes are those of their twins, so that scorers
    with labels say whether the donor tells the target's classes apart in its own modality; that is not what the target will
    learn from. ``tune`` trains B' on the target's own inputs, as ever.

    Args:
        ground: of the target.
        manifest: of the donor.
        arrays: the donor's, see :func:`client.modeldiff.swap.candidate_model`, and :func:`client.modeldiff.swap.whole_model`.

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
    if ground.arm == "paired" and not same_modality:
        found = outputs_on_twins(ground, manifest, arrays)
    else:
        found = outputs(model, ground.probes, ground.device, ground.data.precision)
    return Candidate(manifest.partition_id, same_modality, found, partial(tune, beginning, ground.data, ground.tuning))


def outputs_on_twins(ground: Ground, manifest: Manifest, arrays: Mapping[str, np.ndarray]) -> Outputs:
    """Return what a donor of the other modality computes on the twins of the probes.

    Raises:
        ValueError: the donor's arrays do not fit, or there are no twins of its modality.
    """
    if ground.twins is None or ground.twins.modality != manifest.modality:
        raise ValueError(f"there are no twins of the probes in its modality, {manifest.modality}")
    model = whole_model(arrays, manifest.modality, ground.twins.fresh, ground.own).to(ground.device)
    probes = ground.probes
    return paired(ground.own, probes.inputs, model, ground.twins.inputs, probes.pairs, ground.device, ground.data.precision)[1]


def tune_without(ground: Ground) -> float:
    """Return what ``Candidate.tune`` would return without a donor: the target's fresh model, by as many steps."""
    return tune(ground.fresh, ground.data, ground.alone)
