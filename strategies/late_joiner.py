"""A client joins late: what is worth most to start from, against from scratch at equal steps?

Clients are left out fold by fold (``strategy.joiner-fold``: all clients of one domain, or one client at a time). The others
train; then each client left out trains ``strategy.joiner-epochs`` epochs on ``strategy.joiner-fraction`` of the concepts, once
from scratch and once from each of ``strategy.joiner-starts``. Every client is a joiner exactly once.

    latent                  the backbone that all others have federated; adapter and head are fresh
    donor, donor-head       what one of the others has of ``strategy.share`` after as many rounds alone; its head or not
    cluster, cluster-head   what a cluster of the others has federated of it; clusters as in :mod:`strategies.clustered_fedavg`
    longer                  scratch again, with ``strategy.joiner-pick-epochs`` epochs more

Which donor or cluster, the joiner picks, see :mod:`strategies.joiner_pick`. It trains alone for that, so that a start with a
pick costs it more steps than the equal ones after it: ``longer`` is the control for these. A head is taken over only if it is
for the joiner's classes in their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from strategies import clustered_fedavg
from strategies.clustered_fedavg import Groups, saved_groups
from strategies.job import Arrays, Job
from strategies.joiner_pick import Offer, offers_of, pick, shapes
from strategies.protocol import TRAIN, ClientInfo
from strategies.shared_fedavg import SharedFedAvg, of_cluster

SCRATCH, LATENT, LONGER, CLUSTER = "scratch", "latent", "longer", "cluster"
DONORS_ARM = "without-donors"
HEAD = "-head"


def run(job: Job) -> None:
    """Train without each fold's clients, then let them join from every start, and evaluate them on the test split."""
    settings, clients = job.config.strategy, list(job.mailbox.clients.values())
    for fold, joiners in folds(clients, settings.joiner_fold).items():
        members = [client for client in clients if client not in joiners]
        for start in (SCRATCH, *settings.starts):
            models, uses = start_models(job, start, fold, members, joiners)
            join(job, start, fold, joiners, models, uses)


def folds(clients: list[ClientInfo], kind: str) -> dict[str, list[ClientInfo]]:
    """Name the clients left out in each fold; together they are all clients, each once."""
    if kind == "client":
        return {f"client-{client.partition_id:02d}": [client] for client in clients}
    return {f"domain-{d}": [c for c in clients if c.domain == d] for d in sorted({c.domain for c in clients})}


def start_models(
    job: Job, start: str, fold: str, members: list[ClientInfo], joiners: list[ClientInfo]
) -> tuple[dict[int, Arrays], list[str]]:
    """Return what each joiner starts from, by partition id, and the arms that this start cannot do without.

    A joiner that is not in it, because nobody has its modality or it did not answer, does not take part.
    """
    everyone = [joiner.partition_id for joiner in joiners]
    if start in (SCRATCH, LONGER):
        return {one: {} for one in everyone}, []
    if start == LATENT:
        arrays = SharedFedAvg(job, arm := f"without-{fold}", members, share="backbone", scope="all").run()
        trunk = of_cluster(arrays, "all")
        return dict.fromkeys(everyone, trunk), [arm]
    kind = start.removesuffix(HEAD)
    arm, offers = clusters(job, fold, members) if kind == CLUSTER else donors(job, members)
    picked = pick(job, fold, kind, joiners, offers)
    found = {one: picked[one.partition_id] for one in joiners if one.partition_id in picked}
    models = {one.partition_id: offer.start(one, head=start != kind) for one, offer in found.items()}
    return models, [arm, f"own-{kind}-{fold}"]


def clusters(job: Job, fold: str, members: list[ClientInfo]) -> tuple[str, list[Offer]]:
    """Find clusters among some clients and federate them; return the arm, and the model of each cluster."""
    arm = f"without-clusters-{fold}"
    arrays = clustered_fedavg.federate(job, arm, members)
    return arm, offers_of(saved_groups(arrays, members), arrays)


def donors(job: Job, members: list[ClientInfo]) -> tuple[str, list[Offer]]:
    """Train all clients of the run alone, once for all folds; return the arm, and the models of some of them.

    One message covers all rounds, without a look at the validation split.
    """
    settings, everyone = job.config.strategy, job.mailbox.clients.values()
    begun = job.progress.begin(DONORS_ARM)
    arrays = begun.arrays
    if not begun.finished:
        rounds = job.config.run.rounds
        told = [job.instruction(one, DONORS_ARM, rounds=rounds, share=settings.share) for one in everyone]
        messages = [job.message(TRAIN, one, None) for one in told]
        replies = job.mailbox.ask(messages, partial(shapes, job, settings.share))
        job.record_training(replies, DONORS_ARM, rounds)
        arrays = {f"{donor(reply.client)}/{name}": value for reply in replies for name, value in reply.arrays.items()}
        job.progress.save(DONORS_ARM, rounds, arrays)
        job.progress.finish(DONORS_ARM)
    trained = {name.partition("/")[0] for name in arrays}
    groups: Groups = {donor(one): [one] for one in members if donor(one) in trained}
    return DONORS_ARM, offers_of(groups, arrays)


def donor(client: ClientInfo) -> str:
    """Return the name of a client as a donor."""
    return f"{client.modality}-{client.partition_id}"


def join(
    job: Job, start: str, fold: str, joiners: Iterable[ClientInfo], models: Mapping[int, Arrays], uses: list[str]
) -> None:
    """Train the joiners for one round from what each starts from, and evaluate them.

    Args:
        job: the run.
        start: names the start; a ``join`` event says which arm it is in this fold.
        fold: names the fold.
        joiners: of the fold.
        models: by partition id; empty: from scratch.
        uses: other arms whose messages the start cannot do without.
    """
    if job.progress.begin(arm := f"{start}-{fold}").finished:
        return
    settings = job.config.strategy
    present = [one for one in joiners if one.partition_id in models]
    job.mailbox.record("join", arm=arm, start=start, clients=[one.partition_id for one in present], uses=uses)
    epochs = settings.joiner_epochs + (settings.joiner_pick_epochs if start == LONGER else 0)
    messages = []
    for client in present:
        told = job.instruction(client, arm, total_rounds=1, epochs=epochs, train_fraction=settings.joiner_fraction)
        arrays = models[client.partition_id]
        messages.append(job.message(TRAIN, told, job.wire(arrays) if arrays else None))
    if messages:
        replies = job.mailbox.ask(messages, lambda client: {})
        job.record_training(replies, arm, 1, 1)
        job.evaluate_local(present, arm, 1, "test")
    job.progress.finish(arm)
