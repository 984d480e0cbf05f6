"""Packing in Back-Pack: what goes to targets that make one model of several donors, and two controls of equal steps.

    arm backpack     the student learns from labels, and from all donors of its target
    arm pack-start   the same start, steps and random numbers without a teacher
    arm pack-self    the result of that is the one teacher (self-distillation)

The controls begin with the first donor that the target took. A target without donors has learned alone, and has no controls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from flwr.app import ArrayRecord, Message

from strategies.broker import TARGET, Ledger, Pulled, evaluate, finish, provide, refused_by, with_donors
from strategies.job import Job
from strategies.protocol import DONORS, PACK, PACK_SELF, PACK_START, TRAIN_PACK, ClientInfo, Manifest

CONTROLS = (PACK_START, PACK_SELF)
"""Arms, and methods of their messages."""
SIMILARITY = "modeldiff"


def request(
    job: Job, arm: str, target: ClientInfo, manifests: Sequence[Manifest], arrays: Mapping[str, ArrayRecord], ledger: Ledger
) -> Message:
    """Return a request to pack donors, the best first.

    Args:
        job: the run.
        arm: that the target's state belongs to.
        target: who packs.
        manifests: of the donors, one or more.
        arrays: by hash, of those that the target does not hold.
        ledger: has the similarities, for ``packing.weights = "similarity"``.
    """
    told = job.instruction(target, arm, round=1, method=arm if arm in CONTROLS else PACK)
    message = with_donors(job.message(TRAIN_PACK, told, None), manifests, arrays)
    if job.config.packing.weights == "similarity":
        known = ledger.scored(target.partition_id, SIMILARITY)
        finite = [value for value in known.values() if math.isfinite(value)]
        found = [known.get(one.partition_id, math.nan) for one in manifests]
        lowest = min(finite, default=0.0)
        record = message.content.config_records[DONORS]
        record["similarities"] = [one if math.isfinite(one) else lowest for one in found]
    return message


def learn_controls(job: Job, ledger: Ledger) -> None:
    """Let every target that has packed donors learn both controls, and evaluate them."""
    taken = read(job.progress.begin(TARGET).arrays)
    for arm in CONTROLS if taken else ():
        if not job.progress.begin(arm).finished:
            learn_control(job, arm, taken, ledger)
            job.progress.finish(arm)


def learn_control(job: Job, arm: str, taken: Mapping[int, int], ledger: Ledger) -> None:
    """Learn one control, from the first donor that each target took."""
    infos = job.mailbox.clients
    messages, sent = [], {}
    pulled: Pulled = {}
    for target, donor in taken.items():
        manifests, arrays = provide(job, infos[target], [infos[donor]], ledger, 1, pulled)
        if manifests:
            sent[target] = manifests
            messages.append(request(job, arm, infos[target], manifests, arrays, ledger))
    replies = job.mailbox.ask(messages, lambda client: {})
    learned = [reply for reply in replies if refused_by(job, ledger, reply, sent[reply.client.partition_id]) is None]
    if learned:
        finish(job, arm, learned)
        evaluate(job, arm, [reply.client for reply in learned])


def written(taken: Mapping[int, Sequence[int]]) -> dict[str, np.ndarray]:
    """Return targets and the first donor of each, as arrays; targets without a donor are left out."""
    first = {target: donors[0] for target, donors in taken.items() if donors}
    return {"targets": np.array(list(first), np.int64), "donors": np.array(list(first.values()), np.int64)}


def read(arrays: Mapping[str, np.ndarray]) -> dict[int, int]:
    """Return what :func:`written` wrote: the first donor by target."""
    return dict(zip(arrays["targets"].tolist(), arrays["donors"].tolist(), strict=True)) if arrays else {}
