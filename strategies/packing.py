"""Packing in Back-Pack: what goes to targets that make one model of several donors, and controls of equal steps.

    arm backpack         the student learns from labels, and from all donors of its target
    arm pack-start       the same start, steps and random numbers without a teacher
    arm pack-self        the result of that is the one teacher (self-distillation)
    arm pack-losses-1 …  as arm backpack, by other losses each (packing.losses-compared)

All begin with the first donor that the target took. A target without donors has learned alone, and has no controls.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from flwr.app import ArrayRecord, Message

from config import Packing
from strategies.broker import Ledger, Pulled, evaluate, finish, provide, refused_by, with_donors
from strategies.job import Job
from strategies.pack_inputs import Given, offered
from strategies.protocol import DONORS, PACK, PACK_LOSSES, PACK_SELF, PACK_START, TARGET, TRAIN_PACK, ClientInfo, Manifest

SIMILARITY = "modeldiff"
PAIRS = ("targets", "donors", "similarities")
"""Arrays of what targets took."""


def request(
    job: Job,
    arm: str,
    target: ClientInfo,
    manifests: Sequence[Manifest],
    arrays: Mapping[str, ArrayRecord],
    ledger: Ledger,
    *,
    given: Given,
) -> Message:
    """Return a request to pack donors, the best first.

    Args:
        job: the run.
        arm: that the target's state belongs to.
        target: who packs.
        manifests: of the donors, one or more.
        arrays: by hash, of those that the target does not hold.
        ledger: has the similarities, for ``packing.weights = "similarity"``, and who holds what.
        given: inputs of donors that have come in this exchange.

    Raises:
        RunError: inputs of donors are needed, and none gives any.
    """
    inputs: Mapping[str, ArrayRecord] = {}
    if job.config.packing.data != "child" and arm != PACK_START:
        manifests, inputs = offered(job, arm, target, manifests, ledger, given)
    else:
        manifests = [replace(one, inputs="") for one in manifests]
    told = job.instruction(target, arm, round=1, method=PACK if arm == TARGET else arm)
    message = with_donors(job.message(TRAIN_PACK, told, None), manifests, {**arrays, **inputs})
    if job.config.packing.weights == "similarity":
        found = similarities(ledger, target.partition_id, [one.partition_id for one in manifests])
        message.content.config_records[DONORS]["similarities"] = found
    return message


def controls(settings: Packing) -> tuple[str, ...]:
    """Return the arms beside the result of the run; each is the method of its messages too."""
    compared = tuple(f"{PACK_LOSSES}{number}" for number in range(1, len(settings.compared) + 1))
    return ((PACK_START, PACK_SELF) if settings.controls else ()) + compared


def learn_controls(job: Job, ledger: Ledger) -> None:
    """Let every target that has packed donors learn all controls, and evaluate them."""
    settings, taken = job.config.packing, read(job.progress.begin(TARGET).arrays, ledger)
    for arm in controls(settings) if taken else ():
        if arm.startswith(PACK_LOSSES):
            job.mailbox.record("pack-losses", arm=arm, losses=settings.compared[int(arm.removeprefix(PACK_LOSSES)) - 1])
        if not job.progress.begin(arm).finished:
            learn_control(job, arm, taken, ledger)
            job.progress.finish(arm)


def learn_control(job: Job, arm: str, taken: Mapping[int, Sequence[int]], ledger: Ledger) -> None:
    """Learn one control, from the donors that each target took.

    Other losses learn from all of them, and the others begin with the first; self-distillation too is told of all where
    teachers are asked about inputs of donors.
    """
    shared = arm == PACK_SELF and job.config.packing.data != "child"
    infos = job.mailbox.clients
    messages, sent = [], {}
    pulled: Pulled = {}
    given: Given = {}
    for target, donors in taken.items():
        wanted = [infos[donor] for donor in (donors if shared or arm.startswith(PACK_LOSSES) else donors[:1])]
        manifests, arrays = provide(job, infos[target], wanted, ledger, len(wanted), pulled)
        if manifests:
            sent[target] = manifests
            messages.append(request(job, arm, infos[target], manifests, arrays, ledger, given=given))
    replies = job.mailbox.ask(messages, lambda client: {})
    learned = [reply for reply in replies if refused_by(job, ledger, reply, sent[reply.client.partition_id]) is None]
    if learned:
        finish(job, arm, learned)
        evaluate(job, arm, [reply.client for reply in learned])


def similarities(ledger: Ledger, target: int, donors: Iterable[int]) -> list[float]:
    """Return how similar donors are to a target; one that was not measured is as the least similar that was."""
    known = ledger.scored(target, SIMILARITY)
    lowest = min((value for value in known.values() if math.isfinite(value)), default=0.0)
    found = [known.get(donor, math.nan) for donor in donors]
    return [one if math.isfinite(one) else lowest for one in found]


def written(taken: Mapping[int, Sequence[int]], ledger: Ledger) -> dict[str, np.ndarray]:
    """Return targets and their donors, the best first, with similarities, as arrays; one place for each pair."""
    return {
        "targets": np.array([target for target, donors in taken.items() for _ in donors], np.int64),
        "donors": np.array([donor for donors in taken.values() for donor in donors], np.int64),
        "similarities": np.array(
            [value for target, donors in taken.items() for value in similarities(ledger, target, donors)], np.float64
        ),
    }


def read(arrays: Mapping[str, np.ndarray], ledger: Ledger) -> dict[int, list[int]]:
    """Return what :func:`written` wrote: donors by target. A ledger that does not know their similarities takes them."""
    taken: dict[int, list[int]] = {}
    for target, donor, value in zip(*(arrays[name].tolist() for name in PAIRS), strict=True) if arrays else ():
        taken.setdefault(target, []).append(donor)
        ledger.scores.setdefault(target, {}).setdefault(donor, {}).setdefault(SIMILARITY, value)
    return taken
