"""A client as a donor, which publishes its backbone, and as a target, which learns on top of those of others.

What travels of a donor is a plain model of its latest task: the tensors of ``strategy.share``, and for each weight of the
backbone one bit, whether the task uses it. On the target these weights are owned by task 1, the donor's, so they never change;
its own task picks from them, and trains what the donor left free, and private tensors of its own
(client/continual/ownership.py). With several donors task 1 is what ``selection.combine`` makes of them.

Source: Pick-a-back (ECCV 2024), the target's task on a donor's pruned backbone; CPG (Hung et al., NeurIPS 2019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from client.continual.memory import install, task_model
from client.continual.ownership import OWNER
from client.continual.train import validate
from client.learner import cached_client
from client.stream import Stream, open_stream, task_data
from config import RunConfig
from data_partition.client_data import ClientData
from models.arrays import Arrays, get_arrays
from models.groups import WEIGHT, Group, group_of, named_tensors, ownable, shared_names
from strategies.protocol import INPUTS, MASK, Instruction, Manifest, RunError, digest, to_masks

DONOR_TASK = 1
"""Owner of what came from donors."""
DRIFT = 1e-6
"""Validation may differ by this much between the day a task was learned and now."""


@dataclass(frozen=True)
class Donor:
    """A donor's model as it came, checked.

    Attributes:
        manifest: what the donor says of it.
        arrays: tensors of its backbone and, if they were shared, adapter and head.
        used: which weights of the backbone its task uses, bool, by name.
        aside: of another modality, what came besides the backbone, as it came; the target does not learn on top of it.
    """

    manifest: Manifest
    arrays: Arrays
    used: dict[str, np.ndarray]
    aside: Arrays = field(default_factory=dict)


def publish(config: RunConfig, told: Instruction, folder: Path) -> tuple[Manifest, Arrays]:
    """Return the manifest of the client's latest task, and its arrays and masks for the wire.

    Raises:
        RunError: the client has learned nothing yet, or the task no longer validates as it did.
        ForgottenError: the task no longer computes with what it learned.
    """
    stream = open_stream(config, told, folder, told.round + 1)
    if not stream.memory.records:
        raise RunError(f"client {told.partition_id} has learned no task that it could give: train it first")
    task = stream.memory.latest
    model = task_model(stream.model, stream.memory, task)
    found = validate(model, model, task_data(stream))
    if abs(found - stream.validation) > DRIFT:
        raise RunError(
            f"client {told.partition_id}: its task validates at {found:.4f}, and at {stream.validation:.4f} once learned: "
            "its state or its data have changed"
        )
    arrays = get_arrays(model, shared_names(model, told.share))
    sent = arrays | to_masks({name: arrays[name] != 0 for name in ownable(model) if name in arrays})
    group, packing = stream.data.subgroup, config.packing
    consent = packing.consents(group.partition_id)
    used = digest(inputs_of(stream.data)) if consent and config.packs and packing.data != "child" else ""
    examples = len(stream.data.train)
    return Manifest(group.partition_id, group.modality, group.classes, found, examples, digest(sent), consent, used), sent


def give_inputs(config: RunConfig, told: Instruction) -> Arrays:
    """Return the client's training inputs without their labels, if it has consented.

    Raises:
        RunError: it has not.
    """
    if not config.packing.consents(told.partition_id):
        raise RunError(
            f"client {told.partition_id} is asked for its inputs, and has not consented: set consent=true in the node config "
            "of its SuperNode, or packing.consent in a simulation, if it lets others use them"
        )
    return inputs_of(cached_client(config.data, told.partition_id, told.train_fraction, told.task))


def inputs_of(data: ClientData) -> Arrays:
    """Return the training inputs of a client as they travel."""
    return {INPUTS: data.train.inputs[torch.arange(len(data.train))].numpy()}


def receive(stream: Stream, manifest: Manifest, sent: Mapping[str, np.ndarray], share: str) -> Donor:
    """Check what came from a donor against its manifest and the target's model.

    Across modalities the target learns on top of the backbone alone.

    Raises:
        ValueError: the hash, names or shapes are wrong, or values are not finite.
    """
    if (found := digest(sent)) != manifest.sha256:
        raise ValueError(f"the arrays have hash {found[:16]}, expected {manifest.sha256[:16]} as in the manifest")
    same = manifest.modality == stream.data.subgroup.modality
    tensors = named_tensors(stream.fresh)
    arrays = {name: value for name, value in sent.items() if not name.startswith(MASK)}
    kept = {name: value for name, value in arrays.items() if same or group_of(name) is Group.BACKBONE}
    expected = set(shared_names(stream.fresh, share if same else "backbone"))
    if set(kept) != expected:
        raise ValueError(f"{sorted(set(kept) ^ expected)[:4]} are missing or were not asked for")
    for name, value in kept.items():
        if value.dtype.kind != ("f" if tensors[name].is_floating_point() else "i"):
            raise ValueError(f"{name} has numbers of type {value.dtype}, expected those of {tensors[name].dtype}")
        if group_of(name) is not Group.HEAD and value.shape != tuple(tensors[name].shape):
            raise ValueError(f"{name} has shape {value.shape}, expected {tuple(tensors[name].shape)}: another model")
        if not np.isfinite(value).all():
            raise ValueError(f"{name} has values that are not finite")
    used = {}
    for name in ownable(stream.fresh):
        bits = sent.get(MASK + name)
        if bits is None or bits.shape != (-(-kept[name].size // 8),) or bits.dtype != np.uint8:
            raise ValueError(f"{MASK}{name} is missing, or has the wrong length or type: expected a bit for each weight")
        used[name] = np.unpackbits(bits, count=kept[name].size).astype(bool).reshape(kept[name].shape)
    aside = {name: value for name, value in arrays.items() if name not in kept}
    return Donor(manifest, {name: np.array(value) for name, value in kept.items()}, used, aside)


def combine(donors: Sequence[Donor], how: str) -> tuple[Arrays, dict[str, np.ndarray]]:
    """Make one model of several: its arrays, and which weights it uses.

    Args:
        donors: the best first; all of one model.
        how: ``first``: the best alone. ``average``: the mean of the backbones, where a weight counts for donors that use it.
            ``block-union``: each weight from the best donor that uses it. What is neither (adapter, and for block-union norms
            and latents) is the best one's.
    """
    first = donors[0]
    if how == "first" or len(donors) == 1:
        return first.arrays, first.used
    used = {name: np.any([donor.used[name] for donor in donors], axis=0) for name in first.used}
    arrays = dict(first.arrays)
    for name in first.arrays:
        if group_of(name) is not Group.BACKBONE:
            continue
        values = np.stack([donor.arrays[name] for donor in donors])
        if name not in used:
            arrays[name] = values.mean(axis=0) if how == "average" else values[0]
            continue
        masks = np.stack([donor.used[name] for donor in donors])
        if how == "average":
            arrays[name] = (values * masks).sum(axis=0) / np.maximum(masks.sum(axis=0), 1)
        else:
            arrays[name] = np.take_along_axis(values, masks.argmax(axis=0)[None], axis=0)[0] * used[name]
    return {name: value.astype(np.float32) for name, value in arrays.items()}, used


@torch.no_grad()
def build_on(stream: Stream, donors: Sequence[Donor]) -> None:
    """Make donors the first owner of a stream that has not begun; without any nothing changes."""
    if not donors or stream.memory.records:
        return
    arrays, used = combine(donors, stream.config.selection.combine)
    own = [name for name in arrays if group_of(name) in (Group.BACKBONE, Group.ADAPTER)]
    install(stream.model, {name: torch.from_numpy(arrays[name]) for name in own})
    tensors = named_tensors(stream.model)
    for name, mask in used.items():
        owner, where = tensors[name.removesuffix(WEIGHT) + OWNER], torch.from_numpy(mask).to(stream.device)
        owner.zero_().masked_fill_(where, DONOR_TASK)
        tensors[name].masked_fill_(~where, 0.0)
    stream.offset, stream.built_on = DONOR_TASK, digest(arrays)
    stream.config = slowed(stream.config)


def slowed(config: RunConfig) -> RunConfig:
    """Return settings with the learning rate of a task on top of donors."""
    rate = config.train.learning_rate * config.selection.rate
    return config.model_copy(update={"train": config.train.model_copy(update={"learning_rate": rate})})
