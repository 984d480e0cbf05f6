"""Inputs of donors: who has consented, and what of theirs travels to targets for ``packing.data = "parent"`` or ``"both"``.

A donor says in its manifest whether it lets others use its inputs, and gives them to nobody otherwise. The server asks those
alone that have consented, once for all targets of an exchange, and hands their training inputs without labels to targets of
their modality, by hash as backbones. It keeps none. Who has consented is in the events of the run (``backbone``), and whose
inputs went to whom (``inputs``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flwr.app import ArrayRecord

from config import Data
from data_partition.sizes import input_sizes
from strategies.broker import DONOR, Ledger, refuse
from strategies.job import Job
from strategies.protocol import GIVE_INPUTS, INPUTS, ClientInfo, Manifest, RunError, digest, to_arrays

Given = dict[str, ArrayRecord | None]
"""What donors gave in an exchange, by hash; None: it failed, or came as something else."""


def row_shape(data: Data, modality: str) -> tuple[int, ...]:
    """Return the shape of one input of a modality."""
    sizes = input_sizes(data)
    if modality == "image":
        return 3, sizes["image_size"], sizes["image_size"]
    return (sizes["max_tokens"],) if modality == "text" else (sizes["channels"], sizes["window"])


def offered(
    job: Job, arm: str, target: ClientInfo, manifests: Sequence[Manifest], ledger: Ledger, given: Given
) -> tuple[list[Manifest], dict[str, ArrayRecord]]:
    """Return what a target is told of donors, and by hash the inputs that it does not hold; it holds them from now on.

    Args:
        job: the run, whose targets learn from inputs of donors.
        arm: that the target's state belongs to.
        target: who packs.
        manifests: of its donors; of one whose inputs cannot be had, the answer names none.
        ledger: says who holds what.
        given: what has come in this exchange, so that a donor is asked once for all of its targets.

    Raises:
        RunError: teachers are to be asked about inputs of donors alone, and there is none.
    """
    held = ledger.held.setdefault(target.partition_id, set())
    told: list[Manifest] = []
    arrays: dict[str, ArrayRecord] = {}
    for manifest in manifests:
        usable = manifest.consent and bool(manifest.inputs) and manifest.modality == target.modality
        if usable and manifest.inputs not in held:
            if manifest.inputs not in given:
                given[manifest.inputs] = pull_inputs(job, manifest)
            came = given[manifest.inputs]
            usable = came is not None
            if came is not None:
                arrays[manifest.inputs] = came
        told.append(manifest if usable else replace(manifest, inputs=""))
    givers = [one.partition_id for one in told if one.inputs]
    others = [one.partition_id for one in told if not one.inputs]
    job.mailbox.record("inputs", arm=arm, client=target.partition_id, donors=givers, without=others)
    if not givers and job.config.packing.data == "parent":
        raise RunError(
            f"client {target.partition_id}: packing.data = 'parent' asks teachers about inputs of donors, and none of its "
            f"donors {others} gives any: each must consent (consent=true in the node config of its SuperNode, or "
            "packing.consent in a simulation) and have the target's modality. Get their consent, or use 'child'"
        )
    held.update(arrays)
    return told, arrays


def pull_inputs(job: Job, manifest: Manifest) -> ArrayRecord | None:
    """Ask a donor for its training inputs, and check them; None, with an event: it failed, or they are others."""
    donor = job.mailbox.clients[manifest.partition_id]
    asked = job.instruction(donor, DONOR, round=1, train_fraction=job.config.selection.donor_fraction)
    shape = manifest.num_train, *row_shape(job.config.data, donor.modality)
    replies = job.mailbox.ask([job.message(GIVE_INPUTS, asked, None)], lambda client: {INPUTS: shape}, may_fail=True)
    if not replies:
        return None
    if (found := digest(replies[0].arrays)) != manifest.inputs:
        reason = f"its inputs have hash {found[:16]}, expected {manifest.inputs[:16]} as in the manifest"
        refuse(job, donor, reason, kind=GIVE_INPUTS)
        return None
    return to_arrays(replies[0].arrays)
