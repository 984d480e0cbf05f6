"""A client trains a teacher, gives it away, keeps those of others, and trains a student by them (strategies/distil.py).

What other clients gave is kept on the disk by its hash, under ``donors`` beside the client's arms. The client's own teacher is
read from where it was trained, and travels nowhere.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from client import training
from client.continual.methods import optimisation
from client.device import choose_device
from client.donors import DRIFT
from client.learner import cached_client, cached_model
from client.modeldiff.tune import Budget
from client.packing.data import PackData, data_faults
from client.packing.needs import PackingError
from client.packing.packer import pack
from client.packing.plan import make_plan
from client.packing.teachers import BATCH, Teacher, ask_all, train_teacher
from client.scoring import DonorError
from client.seeding import seed_for
from client.state import load_newest, save_state
from client.stream import augmented_data
from config import RunConfig
from data_partition.client_data import ClientData, Split, load_unlabelled
from models.arrays import Arrays, get_arrays, set_arrays
from models.groups import Group, copy_model, named_tensors, shared_names, stored_names
from models.storage import StorageError, load_record, save_record
from strategies.protocol import DONORS, TEACHER, Instruction, Manifest, RunError, digest

SHARED = "backbone+adapter+head"
"""What travels of a teacher."""
Metrics = dict[str, float]


def learn_teacher(config: RunConfig, told: Instruction, folder: Path) -> Metrics:
    """Train a teacher for the epochs of the instruction, and save what ``packing.checkpoint`` says of it."""
    start, own, data = time.monotonic(), config.of_teachers, _data(config, told)
    device = choose_device(own.train, own.federation)
    budget = Budget(told.epochs, optimisation(own), seed_for(own.run.seed, told.partition_id, 0, TEACHER))
    model = train_teacher(
        _fresh(own, data.subgroup.modality, len(data.subgroup.classes)).to(device),
        augmented_data(own, data, device),
        budget,
        (Group.BACKBONE, Group.ADAPTER, Group.HEAD),
        config.packing.checkpoint,
    )
    found = _measure(own, model, data, device)
    save_state(folder, told.run_token, told.round, get_arrays(model, stored_names(model)), {"validation": found["validation"]})
    steps = told.epochs * training.steps_per_epoch(data.train, own.train.batch_size)
    return {"partition-id": told.partition_id, **found, "steps": steps, "seconds-training": time.monotonic() - start}


def publish(config: RunConfig, told: Instruction, folder: Path) -> tuple[Manifest, Arrays]:
    """Return the manifest of the client's teacher, and its arrays, none if the instruction shares nothing.

    Raises:
        RunError: there is no teacher, or it no longer validates as it did.
    """
    own, data = config.of_teachers, _data(config, told)
    model, facts = _trained(own, told, folder, data)
    device = choose_device(own.train, own.federation)
    found = _measure(own, model.to(device), data, device)["validation"]
    if abs(found - facts["validation"]) > DRIFT:
        raise RunError(
            f"client {told.partition_id}: its teacher validates at {found:.4f}, and at {facts['validation']:.4f} once "
            "trained: its state or its data have changed"
        )
    arrays = get_arrays(model, shared_names(model, SHARED))
    group = data.subgroup
    manifest = Manifest(group.partition_id, group.modality, group.classes, found, len(data.train), digest(arrays))
    return manifest, arrays if told.share else {}


def keep(
    config: RunConfig, told: Instruction, folder: Path, manifests: Sequence[Manifest], sent: Mapping[str, Arrays]
) -> Metrics:
    """Check a teacher that came, also against what a student could learn from it, and keep it.

    Args:
        config: settings of the run.
        told: names the arm of the student.
        folder: of that arm.
        manifests: of the one teacher.
        sent: its arrays by hash; without them it is here already.

    Raises:
        DonorError: it is not what its manifest says, would teach noise, or answers what is not finite, with the reason.
        PackingError: nothing could be learned from any teacher.
    """
    (manifest,) = manifests
    data, device = _data(config, told), choose_device(config.train, config.federation)
    wanted = _pack_data(config, told, data, device)
    if faults := data_faults(wanted, config.packing, 1):
        raise PackingError("no teacher can teach here:\n" + "\n".join(f"  - {fault}" for fault in faults))
    arrays = sent.get(manifest.sha256)
    student = _fresh(config, data.subgroup.modality, len(data.subgroup.classes)).to(device)
    asked = config.packing.model_copy(update={"views": "same"})  # nothing is asked before training
    try:
        teacher = _teacher(config, told, folder, manifest, arrays)
        make_plan(student, [teacher], wanted, asked, 0, device)
        ask_all(teacher.model.to(device), wanted.task.train.inputs[:BATCH], (), device, config.train.precision)
    except (ValueError, FloatingPointError) as error:  # finite weights may answer what is not
        raise DonorError(manifest.partition_id, error) from None
    if arrays is not None:
        save_record(folder.parent / DONORS / manifest.sha256, arrays, {"manifest": manifest.to_json()})
    return {"partition-id": told.partition_id, "num-examples": len(data.train)}


def learn_student(
    config: RunConfig, told: Instruction, folder: Path, manifests: Sequence[Manifest]
) -> tuple[Metrics, list[str]]:
    """Train a student by the teachers that are here, or, with none, by labels alone, and save it.

    Both see the same labelled batches, and take the same number of steps.

    Returns:
        Metrics, and facts, one a line of JSON: warnings, and the last epoch.

    Raises:
        PackingError: what the teachers would teach together is refused.
        ValueError: a teacher is not here.
    """
    start, facts = time.monotonic(), list[str]()
    data, device = _data(config, told), choose_device(config.train, config.federation)
    student = _fresh(config, data.subgroup.modality, len(data.subgroup.classes)).to(device)
    teachers = [_teacher(config, told, folder, manifest, None) for manifest in manifests]
    seed = seed_for(config.run.seed, told.partition_id, 0, "student")
    wanted = _pack_data(config, told, data, device)
    packed = pack(student, teachers, wanted, config.packing, optimisation(config), seed=seed)
    facts += [json.dumps({"fact": "pack-warning", "warning": warning}) for warning in packed.warnings]
    facts.append(json.dumps({"fact": "packed", **asdict(packed.epochs[-1])}, allow_nan=False))
    found = _measure(config, student, data, device)
    save_state(folder, told.run_token, told.round, get_arrays(student, stored_names(student)))
    steps = sum(epoch.steps for epoch in packed.epochs)
    unlabelled = 0 if wanted.unlabelled is None else len(wanted.unlabelled)
    return {
        "partition-id": told.partition_id,
        **found,
        "unlabelled": unlabelled,
        "steps": steps,
        "seconds-training": time.monotonic() - start,
    }, facts


def _data(config: RunConfig, told: Instruction) -> ClientData:
    return cached_client(config.data, told.partition_id, told.train_fraction)


def _fresh(config: RunConfig, modality: str, classes: int) -> nn.Module:
    shared, initial = cached_model(config.model, config.data, modality, classes, config.run.seed)
    model = copy_model(shared)
    set_arrays(model, initial)
    return model


def _pack_data(config: RunConfig, told: Instruction, data: ClientData, device: torch.device) -> PackData:
    unlabelled = load_unlabelled(config.data, data.subgroup, told.train_fraction or None)
    return PackData(augmented_data(config, data, device), data.subgroup.classes, unlabelled)


def _measure(config: RunConfig, model: nn.Module, data: ClientData, device: torch.device) -> Metrics:
    """Return the loss on the training examples as they are, and the balanced accuracy on those of validation."""

    def found(split: Split) -> dict[str, float]:
        return training.evaluate(model, split, len(data.subgroup.classes), device, config.train.precision)

    return {
        "num-examples": len(data.train),
        "loss": found(data.train)["loss"],
        "validation": found(data.val)["balanced-accuracy"],
    }


def _trained(own: RunConfig, told: Instruction, folder: Path, data: ClientData) -> tuple[nn.Module, dict[str, Any]]:
    """Return the client's own teacher and the facts beside it."""
    arrays, facts = load_newest(folder, told.run_token, told.round + 1)
    if not arrays:
        raise RunError(f"client {told.partition_id} has trained no teacher: train it first")
    model = _fresh(own, data.subgroup.modality, len(data.subgroup.classes))
    set_arrays(model, arrays)
    return model, facts


def _teacher(config: RunConfig, told: Instruction, folder: Path, manifest: Manifest, sent: Arrays | None) -> Teacher:
    """Return a teacher out of a message, or from the disk.

    Raises:
        ValueError: it is not here, or is not what its manifest says.
    """
    own, group = config.of_teachers, _data(config, told).subgroup
    if manifest.modality != group.modality:
        raise ValueError(f"it is for {manifest.modality}, and the student is for {group.modality}: it cannot be asked")
    model = _fresh(own, manifest.modality, len(manifest.classes))
    names = shared_names(model, SHARED)
    if manifest.partition_id == told.partition_id:
        arrays, _ = load_newest(folder.parent / TEACHER, told.run_token, told.round + 1)
        arrays = {name: value for name, value in arrays.items() if name in names}
    elif sent is not None:
        arrays = dict(sent)
    elif not manifest.sha256.isalnum():
        raise ValueError(f"found the hash {manifest.sha256!r}, expected letters and digits")
    else:
        try:
            arrays = load_record(folder.parent / DONORS / manifest.sha256)[0]
        except StorageError as error:
            raise ValueError(f"its arrays did not come, and are not here: {error}") from None
    check(model, arrays, names, manifest)
    set_arrays(model, arrays)
    return Teacher(f"client {manifest.partition_id}", model, manifest.classes)


def check(model: nn.Module, arrays: Arrays, names: Sequence[str], manifest: Manifest) -> None:
    """Check a teacher's arrays against its manifest, and the model that they are for.

    Raises:
        ValueError: hash, names, shapes or types are wrong, or values are not finite.
    """
    if (found := digest(arrays)) != manifest.sha256:
        raise ValueError(f"the arrays have hash {found[:16]}, expected {manifest.sha256[:16]} as in the manifest")
    if set(arrays) != set(names):
        raise ValueError(f"{sorted(set(arrays) ^ set(names))[:4]} are missing or were not asked for")
    tensors = named_tensors(model)
    for name, value in arrays.items():
        if value.shape != tuple(tensors[name].shape):
            raise ValueError(f"{name} has shape {value.shape}, expected {tuple(tensors[name].shape)}: another model")
        if value.dtype.kind != ("f" if tensors[name].is_floating_point() else "i"):
            raise ValueError(f"{name} has numbers of type {value.dtype}, expected those of {tensors[name].dtype}")
        if not np.isfinite(value).all():
            raise ValueError(f"{name} has values that are not finite")
