"""A target scores donors: by its own training examples, its own model, and what a donor's model computes on them.

What a donor sent is kept on the target's disk by its hash, under ``donors`` beside the client's arms, so that it need not come
again. All donors of a target are compared on the same probes, pairs and batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from client.continual.memory import task_model
from client.continual.methods import optimisation
from client.donors import Donor, receive, slowed
from client.learner import cached_model
from client.modeldiff.perturb import paired_with_copies
from client.modeldiff.probes import Probes, choose, places, random_pairs
from client.modeldiff.target import Ground, Twins, make_candidate, make_target, tune_without
from client.modeldiff.tune import Budget
from client.stream import Metrics, Stream, open_stream, task_data
from config import RunConfig
from data_partition.client_data import load_twins
from data_partition.files import DataError
from models.arrays import Arrays, set_arrays
from models.groups import copy_model
from models.storage import StorageError, load_record, save_record
from strategies.protocol import DONORS, NONE, Instruction, Manifest, RunError
from strategies.selection.modeldiff import resampled
from strategies.selection.table import score


def score_donors(
    config: RunConfig,
    told: Instruction,
    folder: Path,
    manifests: Sequence[Manifest],
    sent: Mapping[str, Arrays],
    names: Sequence[str],
) -> Metrics:
    """Return the scores of one donor by the names of scorers; ``none`` is what ``few-step`` gives without a donor.

    With ``modeldiff`` there is also ``resampled``, its scores on resampled pairs.

    Args:
        config: settings of the run.
        told: names the arm of the target's own model, and the number of its record.
        folder: of that arm.
        manifests: of the one donor.
        sent: its arrays by hash, unless the target has them already.
        names: of scorers.

    Raises:
        DonorError: what came does not fit its manifest or the target's model, or computes what is not finite.
        RunError: the target has no model of its own yet.
    """
    stream = open_stream(config, told, folder, told.round + 1)
    if not stream.memory.records:
        raise RunError(f"client {told.partition_id} has no model of its own to compare donors with: train it first")
    ground = ground_of(stream)
    (donor,) = fetch(stream, manifests, sent, folder)
    target = make_target(ground)
    found: Metrics = {NONE: tune_without(ground)} if NONE in names else {}
    try:
        candidate = make_candidate(ground, donor.manifest, donor.arrays | donor.aside)
        found |= {name: score(name, target, candidate) for name in names if name != NONE}
    except (ValueError, FloatingPointError) as error:  # a head of another shape; finite weights that diverge
        raise DonorError(donor.manifest.partition_id, error) from None
    if "modeldiff" in names:
        found["resampled"] = resampled(target, candidate)
    return {"partition-id": told.partition_id, "num-examples": len(stream.data.train), **found}


def ground_of(stream: Stream) -> Ground:
    """Return what the target brings to the comparison.

    Under ``paired`` probes are examples that have a twin, for all candidates.

    Raises:
        RunError: ``paired``, and the data set has no twins, or the target fewer than two.
    """
    settings, group = stream.config.selection, stream.data.subgroup
    own = task_model(stream.model, stream.memory, stream.memory.latest)
    twins = None
    if settings.candidate == "paired":
        probes, twins = with_twins(stream)
    else:
        probes = choose(stream.data.train, settings.probes, stream.seed, settings.pairs)
    alone = Budget(settings.tune_epochs, optimisation(stream.config), stream.seed)
    budget = replace(alone, how=optimisation(slowed(stream.config)))
    return Ground(
        modality=group.modality,
        classes=group.classes,
        own=own,
        fresh=stream.fresh,
        data=task_data(stream),
        probes=paired_with_copies(own, probes, settings.pairing, stream.seed),
        arm=settings.candidate,
        calibration=replace(alone, epochs=settings.calibration_epochs),
        tuning=budget,
        alone=alone,
        seed=stream.seed,
        device=stream.device,
        twins=twins,
    )


def with_twins(stream: Stream) -> tuple[Probes, Twins]:
    """Choose probes out of the training examples that have a twin, and return them with theirs."""
    config, group, split = stream.config, stream.data.subgroup, stream.data.train
    modality = "text" if group.modality == "image" else "image"
    try:
        owned, inputs = load_twins(config.data, group, stream.instruction.train_fraction or None)
        chosen = places(split.labels[owned], config.selection.probes, stream.seed)
        pairs = random_pairs(len(chosen), config.selection.pairs, stream.seed)
    except (DataError, ValueError) as error:
        raise RunError(f"selection.candidate = 'paired': client {group.partition_id}: {error}") from None
    fresh, initial = cached_model(config.model, config.data, modality, len(group.classes), config.run.seed)
    model = copy_model(fresh)
    set_arrays(model, initial)
    probes = Probes(split.inputs[owned[chosen]], split.labels[owned[chosen]], pairs)
    return probes, Twins(modality, inputs[chosen], model.to(stream.device))


class DonorError(ValueError):
    """A donor that a target cannot use.

    Attributes:
        partition_id: of the donor.
    """

    def __init__(self, partition_id: int, reason: object) -> None:
        super().__init__(str(reason))
        self.partition_id = partition_id


def fetch(stream: Stream, manifests: Sequence[Manifest], sent: Mapping[str, Arrays], folder: Path) -> list[Donor]:
    """Return donors out of a message or, where it has their hash alone, from the disk; what came is kept there.

    Raises:
        DonorError: an array does not fit, or is neither here nor there.
    """
    found = []
    for manifest in manifests:
        try:
            found.append(fetch_one(stream, manifest, sent.get(manifest.sha256), folder.parent / DONORS))
        except ValueError as error:
            raise DonorError(manifest.partition_id, error) from None
    return found


def fetch_one(stream: Stream, manifest: Manifest, sent: Arrays | None, kept: Path) -> Donor:
    """Return one donor: see :func:`fetch`.

    Raises:
        ValueError: an array does not fit, or is neither here nor there.
    """
    if not manifest.sha256.isalnum():
        raise ValueError(f"found the hash {manifest.sha256!r}, expected letters and digits")
    arrays = sent
    if arrays is None:
        try:
            arrays = load_record(kept / manifest.sha256)[0]
        except StorageError as error:
            raise ValueError(f"its arrays did not come, and are not here: {error}") from None
    donor = receive(stream, manifest, arrays, stream.config.strategy.share)
    if sent is not None:
        save_record(kept / manifest.sha256, arrays, {"manifest": manifest.to_json()})
    return donor
