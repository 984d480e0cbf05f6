"""Back-Pack: the server brokers backbones. It collects scores, routes those of N donors to each target, and keeps none.

    arm donor      every client learns its task with ``selection.donor-fraction`` of its data, and prunes what it can spare
    arm control    every client learns its task from scratch, with ``data.train-fraction``
    arm own        the same for ``selection.own-epochs``: the model that donors are compared with, and a second control
    sketch         every client tells 2 KB of its model; a target is to score the donors with the most similar ones
    score          one donor after the other sends its backbone; the server hands it to its targets, which score and keep it
    choose         the best N by ``selection.scorer``; none, where a short training without a donor validates better
    arm backpack   every target learns its task on top of the chosen ones, for as many epochs as the control

With ``selection.combine = "pack"`` a target distils its donors into one model in place of that (strategies/packing.py).

A donor that fails, or sends what does not fit, is left out, with an event; the target takes the next best.

Source: Pick-a-back (ECCV 2024) for one donor: selection by decision patterns (ModelDiff, ISSTA 2021), and the target's task on
top by CPG (NeurIPS 2019). The released code takes the largest distance (scorer ``modeldiff-released``), and lets only the side
with a donor grow; here both sides have the same parameters and steps, and each the learning rate that is best for it
(``selection.rate``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from flwr.app import ArrayRecord, Message

from strategies import packing
from strategies.broker import (
    CONTROL,
    DONOR,
    OWN,
    Ledger,
    Pulled,
    evaluate,
    finish,
    provide,
    pull,
    refused_by,
    score,
    with_donors,
)
from strategies.job import Job
from strategies.protocol import TARGET, TRAIN_TASK, ClientInfo, Manifest
from strategies.routing import Truth, candidates, choose, clusters, is_candidate, rank
from strategies.shortlist import shortlists


def run(job: Job) -> None:
    """Learn donors and controls, then route, and learn on top."""
    settings, truth = job.config.selection, {}
    clients = list(job.mailbox.clients.values())
    if settings.scorer != "none" or settings.routing == "all-pairs":
        learn(job, DONOR, clients, epochs=settings.donor_epochs, train_fraction=settings.donor_fraction, later=1)
    learn(job, CONTROL, clients)
    if settings.own_epochs:
        learn(job, OWN, clients, epochs=settings.own_epochs)
    if settings.routing == "all-pairs":
        truth = measure(job, clients)
    ledger = Ledger()
    if not job.progress.begin(TARGET).finished:
        take(job, clients, truth, ledger)
    if settings.combine == "pack":
        packing.learn_controls(job, ledger)


def take(job: Job, clients: Sequence[ClientInfo], truth: Truth, ledger: Ledger) -> None:
    """Route donors to targets, which learn on top of them: arm :data:`strategies.broker.TARGET`."""
    settings = job.config.selection
    if settings.scorers:
        score(job, shortlists(job) if settings.shortlist else everyone(job), ledger)
    groups = clusters(job, ledger) if settings.routing == "cluster" else None
    routes = {}
    for target in clients:
        order = rank(job, target, ledger, truth)
        own = groups[target.partition_id] if groups else set(order)
        routes[target.partition_id] = choose(job, target, [donor for donor in order if donor in own], ledger)
    taken = learn_on(job, TARGET, routes, ledger, partial(packing.request, given={}) if settings.combine == "pack" else on_top)
    job.progress.save(TARGET, 1, packing.written(taken, ledger))
    job.progress.finish(TARGET)


def everyone(job: Job) -> dict[int, list[int]]:
    """Let each target score every candidate."""
    infos = job.mailbox.clients
    return {own: [donor.partition_id for donor in candidates(job, target)] for own, target in infos.items()}


def learn(job: Job, arm: str, clients: Sequence[ClientInfo], **fields: object) -> dict[int, float]:
    """Let every client learn its task without a donor; return test accuracies by client, of an arm other than the donors'."""
    begun = job.progress.begin(arm)
    if begun.finished:
        return _read(begun.arrays)
    told = [
        job.instruction(client, arm, **{"round": 1, "epochs": job.config.continual.epochs, **fields}) for client in clients
    ]
    replies = job.mailbox.ask([job.message(TRAIN_TASK, one, None) for one in told], lambda client: {})
    finish(job, arm, replies)
    found = evaluate(job, arm, [reply.client for reply in replies]) if arm != DONOR else {}
    job.progress.save(arm, 1, _written(found))
    job.progress.finish(arm)
    return found


def measure(job: Job, clients: Sequence[ClientInfo]) -> dict[tuple[int, int], float]:
    """Let every target learn on top of every donor, and of none, ``selection.repeats`` times.

    Returns:
        Mean test accuracy by (donor, target); where both are the same client, without a donor.
    """
    found: dict[tuple[int, int], list[float]] = {}
    for repeat in range(job.config.selection.repeats):
        suffix = f"-{repeat}" if repeat else ""
        for target, accuracy in learn(job, f"{CONTROL}{suffix}", clients, repeat=repeat).items():
            found.setdefault((target, target), []).append(accuracy)
        for donor in clients:
            arm = f"pair-{donor.partition_id:03d}{suffix}"
            targets = [target for target in clients if is_candidate(job, target, donor)]
            for target, accuracy in learn_from_one(job, arm, donor, targets, repeat).items():
                found.setdefault((donor.partition_id, target), []).append(accuracy)
    return {pair: sum(values) / len(values) for pair, values in found.items()}


def learn_from_one(job: Job, arm: str, donor: ClientInfo, targets: list[ClientInfo], repeat: int) -> dict[int, float]:
    """Let all targets learn on top of one donor: a column of the transfer matrix; return their test accuracies."""
    begun = job.progress.begin(arm)
    if not targets or begun.finished:
        return _read(begun.arrays)
    found: dict[int, float] = {}
    if (came := pull(job, donor)) is not None:
        manifest, sent = came
        messages = [
            with_donors(task_message(job, arm, target, repeat), [manifest], {manifest.sha256: sent}) for target in targets
        ]
        learned = []
        for reply in job.mailbox.ask(messages, lambda client: {}, may_fail=True):
            if refused_by(job, Ledger(), reply, [manifest]) is None:
                learned.append(reply)
        if learned:
            finish(job, arm, learned)
            found = evaluate(job, arm, [reply.client for reply in learned])
    job.progress.save(arm, 1, _written(found))
    job.progress.finish(arm)
    return found


def task_message(job: Job, arm: str, target: ClientInfo, repeat: int = 0) -> Message:
    """Return a request to learn the task as the control does."""
    told = job.instruction(target, arm, round=1, epochs=job.config.continual.epochs, repeat=repeat)
    return job.message(TRAIN_TASK, told, None)


def on_top(
    job: Job, arm: str, target: ClientInfo, manifests: Sequence[Manifest], arrays: Mapping[str, ArrayRecord], _: Ledger
) -> Message:
    """Return a request to learn the task on top of donors, or of none."""
    return with_donors(task_message(job, arm, target), manifests, arrays)


def learn_on(
    job: Job,
    arm: str,
    routes: Mapping[int, Sequence[int]],
    ledger: Ledger,
    request: Callable[..., Message],
) -> dict[int, list[int]]:
    """Let targets learn on top of their donors, each told of all of its in one message, and evaluate them.

    Args:
        job: the run.
        arm: that the targets' state belongs to.
        routes: donors of each target, the best first; the first ``selection.top`` that can be had are taken.
        ledger: has scores, and who holds what.
        request: makes a message to a target with a donor or more, as :func:`on_top` does.

    Returns:
        The donors that each target took, the best first.
    """
    infos, learned, top, done = job.mailbox.clients, [], job.config.selection.top, {}
    waiting = {target: list(donors) for target, donors in routes.items()}
    while waiting:
        messages, taken = [], {}
        pulled: Pulled = {}
        for target, donors in waiting.items():
            manifests, arrays = provide(job, infos[target], [infos[donor] for donor in donors], ledger, top, pulled)
            taken[target] = manifests
            make = request if manifests else on_top
            messages.append(make(job, arm, infos[target], manifests, arrays, ledger))
        again = {}
        for reply in job.mailbox.ask(messages, lambda client: {}):
            target = reply.client.partition_id
            refused = refused_by(job, ledger, reply, taken[target])
            if refused is None:
                done[target] = [one.partition_id for one in taken[target]]
                job.mailbox.record("routed", arm=arm, client=target, donors=done[target])
                learned.append(reply)
            else:
                again[target] = [donor for donor in waiting[target] if donor != refused]
        waiting = again
    learned.sort(key=lambda reply: reply.client.partition_id)
    finish(job, arm, learned)
    evaluate(job, arm, [reply.client for reply in learned])
    return done


def _written(accuracies: Mapping[int, float]) -> dict[str, np.ndarray]:
    return {"clients": np.array(list(accuracies), np.int64), "accuracies": np.array(list(accuracies.values()), np.float64)}


def _read(arrays: Mapping[str, np.ndarray]) -> dict[int, float]:
    return dict(zip(arrays["clients"].tolist(), arrays["accuracies"].tolist(), strict=True)) if arrays else {}
