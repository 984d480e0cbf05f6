"""Teachers and students: every client trains a teacher, and a student that learns from some of them.

    arm teacher    every client trains a teacher, of ``distil.teacher``, for ``distil.teacher-epochs``
    arm scratch    every client trains a student by its labels alone: the control, of the same batches and number of steps
    hand over      one teacher after the other is sent to the targets that learn from it, which check and keep it; the server
                   has forgotten it before the next one is asked for
    arm student    every target packs the teachers that it kept into a student: 1:1 of its own client's, or 1:N of others'

A teacher travels to a target once, and the client's own not at all. One that fails, or that a target refuses, is left out,
with an event; a target without a teacher has no student.

Sources: Hinton et al. (arXiv:1503.02531); ESKD (``packing.checkpoint``), Cho & Hariharan (ICCV 2019); augmentation of the
student alone or of both (``distil.augment``), Jeon et al. (IEEE Internet of Things Journal 2022).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord

from strategies.broker import manifest_of, refuse, with_donors
from strategies.job import Job
from strategies.protocol import (
    EVALUATE,
    FACTS,
    KEEP,
    SCRATCH,
    STUDENT,
    TEACHER,
    TELL_TEACHER,
    TRAIN_STUDENT,
    TRAIN_TEACHER,
    ClientInfo,
    Manifest,
    RunError,
    to_arrays,
)

Taken = dict[int, list[Manifest]]
"""Teachers that a target has, by target."""


def run(job: Job) -> None:
    """Train teachers and controls, hand the teachers over, and train students by them."""
    clients = list(job.mailbox.clients.values())
    learn(job, TEACHER, clients)
    if job.config.strategy.control:
        learn(job, SCRATCH, clients)
    if job.progress.begin(STUDENT).finished:
        return
    taken = hand_over(job, {client.partition_id: sources(job, client) for client in clients})
    taught = [client for client in clients if taken[client.partition_id]]
    if not taught:
        raise RunError("no client has a teacher to learn from: the 'refused' lines of events.jsonl have the reason of each")
    learn(job, STUDENT, taught, taken)


def sources(job: Job, target: ClientInfo) -> list[int]:
    """Return the clients whose teachers a target learns from, ascending."""
    settings, own = job.config.distil, target.partition_id
    if settings.sources == "own":
        return [own]
    others = [one.partition_id for one in job.mailbox.clients.values() if one.modality == target.modality]
    found = [one for one in others if one != own or settings.sources == "all"]
    drawn = np.random.default_rng([job.config.run.seed, own]).permutation(found)[: settings.teachers or None]
    return sorted(int(one) for one in drawn)


def hand_over(job: Job, routes: dict[int, list[int]]) -> Taken:
    """Hand each teacher to its targets, one teacher after the other; no weights are kept.

    Args:
        job: the run.
        routes: donors by target.
    """
    taken: Taken = {target: [] for target in routes}
    held: dict[int, set[str]] = {target: set() for target in routes}
    for donor in job.mailbox.clients.values():
        targets = [target for target, donors in routes.items() if donor.partition_id in donors]
        others = [target for target in targets if target != donor.partition_id]
        if not targets or (came := ask_for(job, donor, "all" if others else "")) is None:
            continue
        manifest, arrays = came
        messages = []
        for target in targets:
            travels = target in others and manifest.sha256 not in held[target]
            told = job.instruction(job.mailbox.clients[target], STUDENT, round=1)
            message = job.message(KEEP, told, None)
            messages.append(with_donors(message, [manifest], {manifest.sha256: arrays} if travels else {}))
        for reply in job.mailbox.ask(messages, lambda client: {}, may_fail=True):
            target, answer = reply.client.partition_id, reply.message.content.config_records.get(FACTS, ConfigRecord())
            if "reason" in answer:
                refuse(job, donor, str(answer["reason"]), target, KEEP, TEACHER)
                continue
            taken[target].append(manifest)
            held[target].add(manifest.sha256)
    return taken


def ask_for(job: Job, donor: ClientInfo, share: str) -> tuple[Manifest, ArrayRecord] | None:
    """Ask a client for its teacher, or for its manifest alone, and check it; None, with an event: it failed, or lies."""
    told = job.instruction(donor, TEACHER, round=1, share=share, train_fraction=job.config.distil.teacher_fraction)
    expected = {name: value.shape for name, value in job.initial(donor, TEACHER).items()} if share else {}
    replies = job.mailbox.ask([job.message(TELL_TEACHER, told, None)], lambda client: expected, may_fail=True)
    if not replies:
        return None
    try:
        manifest = manifest_of(replies[0], alone=not share)
        if manifest.classes != donor.classes:
            raise ValueError(f"the manifest says {len(manifest.classes)} classes, found a client of {len(donor.classes)}")
    except ValueError as error:
        refuse(job, donor, str(error), kind=KEEP, arm=TEACHER)
        return None
    return manifest, to_arrays(replies[0].arrays)


def learn(job: Job, arm: str, clients: Sequence[ClientInfo], taken: Taken | None = None) -> None:
    """Let clients train a teacher or a student, by the arm, and evaluate what they trained."""
    if job.progress.begin(arm).finished:
        return
    settings, kind = job.config, TRAIN_TEACHER if arm == TEACHER else TRAIN_STUDENT
    fields: dict[str, object] = {"round": 1, "method": arm, "epochs": settings.packing.epochs}
    if arm == TEACHER:
        fields |= {"epochs": settings.distil.teacher_epochs, "train_fraction": settings.distil.teacher_fraction}
    messages = []
    for client in clients:
        message = job.message(kind, job.instruction(client, arm, **fields), None)
        messages.append(with_donors(message, (taken or {}).get(client.partition_id, []), {}))
    replies = job.mailbox.ask(messages, lambda client: {})
    for reply in replies:
        own = reply.client.partition_id
        if taken is not None:
            job.mailbox.record("taught", arm=arm, client=own, teachers=[one.partition_id for one in taken[own]])
        job.record_told(reply, arm)
    job.record_training(replies, arm, 1, 1)
    for split in ("val", "test") if settings.run.evaluate_every else ("test",):
        told = [job.instruction(reply.client, arm, **fields, split=split) for reply in replies]
        job.evaluate([job.message(EVALUATE, one, None) for one in told])
    job.progress.finish(arm)
