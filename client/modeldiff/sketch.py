"""A small sketch of a donor, by which a target chooses whose backbones to ask for before any of them travels.

A count sketch of what training has added to the common initial weights: each parameter is added, with a random sign, to a
random one of 512 sums, for backbone and adapter apart. Sums keep the cosine of two updates up to about 1 / sqrt(512). It costs
one pass over the weights, no probes, and 2 KB.

It needs two things that clients of one run have in common here: initial weights (models/factory.py), and one index for one
class. Where the indices of the classes were shuffled on each client, it found related donors no better than chance;
client/modeldiff/responses.py does not need either.

Source: Charikar, Chen and Farach-Colton (ICALP 2002).
"""

from __future__ import annotations

import hashlib

import numpy as np
from torch import nn

from models.groups import LOCAL, Group, group_of
from strategies.selection.sketches import SHAPES, SIZE, Sketch

GROUPS = (Group.BACKBONE, Group.ADAPTER)
assert len(GROUPS) == SHAPES["weights"][0]


def sketch(model: nn.Module, initial: nn.Module, seed: int = 0, size: int = SIZE) -> Sketch:
    """Return the sketch of a trained model, float16 (2, size): of its backbone and of its adapter, together of norm 1.

    Parameters that never travel are left out, and so are the running means of batch norm.

    Args:
        model: the donor's, trained.
        initial: the same model as initialised.
        seed: of places and signs; the same for all clients.
        size: sums of a group; 512 of two bytes in two groups are 2 KB.

    Raises:
        ValueError: the two models have different parameters, or the update is zero or not finite.
    """
    found = np.zeros((len(GROUPS), size))
    begun = dict(initial.named_parameters())
    for name, parameter in model.named_parameters():
        if group_of(name) not in GROUPS or LOCAL.fullmatch(name):
            continue
        if name not in begun or begun[name].shape != parameter.shape:
            raise ValueError(
                f"parameter {name!r} of shape {tuple(parameter.shape)} is not in the initial model: has it grown?"
            )
        update = (parameter - begun[name]).detach().double().cpu().numpy().ravel()
        digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
        draws = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        places, signs = draws.integers(0, size, len(update)), draws.integers(0, 2, len(update)) * 2 - 1
        found[GROUPS.index(group_of(name))] += np.bincount(places, signs * update, size)
    norm = np.linalg.norm(found)
    if not np.isfinite(norm) or norm == 0:
        raise ValueError(f"the update of the model has norm {norm}, expected a finite number above 0: was it trained?")
    return (found / norm).astype(np.float16)
