"""Inputs that donors have given with their consent, as the target that packs them holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from client.packing.data import Parent
from client.scoring import DonorError
from client.stream import Stream
from models.arrays import Arrays
from models.storage import StorageError, load_record, save_record
from strategies.protocol import INPUTS, Manifest, digest


def inputs_given(parents: Stream, manifests: Sequence[Manifest], sent: Mapping[str, Arrays], kept: Path) -> tuple[Parent, ...]:
    """Return the inputs of donors that their manifests name, out of a message or from the disk; what came is kept there.

    Raises:
        DonorError: the donor has not consented, or its inputs are not here, others, or not as the target's.
    """
    own, found = parents.data.train.inputs, []
    named = [manifest for manifest in manifests if manifest.inputs]
    for manifest in named:  # all are kept before one is looked at, as what came for a donor that is left out comes once
        if manifest.inputs in sent and manifest.inputs.isalnum():
            save_record(kept / manifest.inputs, sent[manifest.inputs], {"manifest": manifest.to_json()})
    for manifest in named:
        try:
            if not (manifest.consent and manifest.inputs.isalnum()):
                raise ValueError(f"found inputs {manifest.inputs!r} with consent {manifest.consent}, expected a hash and true")
            arrays = load_record(kept / manifest.inputs)[0]
            if digest(arrays) != manifest.inputs or set(arrays) != {INPUTS}:
                raise ValueError(f"its inputs have hash {digest(arrays)[:16]}, expected {manifest.inputs[:16]}")
            inputs = torch.from_numpy(np.array(arrays[INPUTS]))
            shapes = [(tuple(some.shape[1:]), some.dtype) for some in (inputs, own)]
            if shapes[0] != shapes[1]:
                raise ValueError(f"its inputs are {shapes[0]}, expected {shapes[1]} as the target's")
        except (StorageError, ValueError) as error:
            raise DonorError(manifest.partition_id, error) from None
        found.append(Parent(manifest.partition_id, inputs))
    return tuple(found)
