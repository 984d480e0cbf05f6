"""The first of two stages: by 2 KB of every client a target chooses whose backbones it will score.

With C clients that are C sketches and C · m backbones, where scoring everyone takes C² backbones.
"""

from __future__ import annotations

import numpy as np

from strategies.broker import CONTROL, DONOR, OWN
from strategies.job import Job
from strategies.protocol import SKETCH, TARGET, ClientInfo
from strategies.routing import candidates
from strategies.selection.sketches import SHAPES, similarity


def shortlists(job: Job) -> dict[int, list[int]]:
    """Ask every client for a sketch as donor and as target, and return for each target the donors it is to score."""
    settings, infos = job.config.selection, job.mailbox.clients
    donors = sketches(job, DONOR)
    targets = sketches(job, OWN if settings.own_epochs else CONTROL)
    found: dict[int, list[int]] = {}
    for own, sketch in targets.items():
        likeness = {
            donor.partition_id: similarity(
                sketch, donors[donor.partition_id], same_modality=donor.modality == infos[own].modality
            )
            for donor in candidates(job, infos[own])
            if donor.partition_id in donors
        }
        best = sorted(likeness, key=lambda donor: (-likeness[donor], donor))[: settings.shortlist]
        job.mailbox.record("shortlist", arm=TARGET, client=own, donors=[[donor, likeness[donor]] for donor in best])
        found[own] = best
    return found


def sketches(job: Job, arm: str) -> dict[int, np.ndarray]:
    """Return the sketch of every client's model of an arm; a client that fails has none, with an event."""
    settings = job.config.selection
    fraction = {"train_fraction": settings.donor_fraction} if arm == DONOR else {}

    def shape(client: ClientInfo) -> dict[str, tuple[int, ...]]:
        return {"sketch": SHAPES[settings.sketch]}

    told = [job.instruction(client, arm, round=1, **fraction) for client in job.mailbox.clients.values()]
    replies = job.mailbox.ask([job.message(SKETCH, one, None) for one in told], shape, may_fail=True)
    return {reply.client.partition_id: reply.arrays["sketch"] for reply in replies}
