"""A client that joins late compares the models that it may start from with the one that it has trained alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from client.continual.methods import optimisation
from client.learner import Learner, cached_model, make_learner
from client.modeldiff.probes import choose
from client.modeldiff.target import Ground, make_candidate, make_target
from client.modeldiff.tune import Budget
from client.seeding import seed_for
from client.state import load_state
from client.stream import augmented_data
from config import RunConfig
from models.arrays import Arrays, set_arrays
from models.groups import copy_model
from strategies.protocol import Instruction, Manifest, RunError
from strategies.selection.table import score


def score_models(
    config: RunConfig,
    told: Instruction,
    folder: Path,
    manifests: Sequence[Manifest],
    sent: Mapping[str, Arrays],
    names: Sequence[str],
) -> dict[str, float | list[float]]:
    """Return the scores of models, by the names of scorers, in the order of the manifests.

    Args:
        config: settings of the run.
        told: names the arm of the client's own model, and its round.
        folder: of that arm.
        manifests: of the models.
        sent: their arrays by hash.
        names: of scorers.

    Raises:
        ValueError: a model does not fit the client's.
        RunError: the client has no model of its own yet.
    """
    if not load_state(folder, told.run_token, told.round + 1):
        raise RunError(f"client {told.partition_id} has no model of its own to compare others with: train it first")
    learner = make_learner(config, told, folder, {}, told.round + 1, private=True)
    ground = ground_of(learner)
    target = make_target(ground)
    candidates = [make_candidate(ground, one, sent[one.sha256]) for one in manifests]
    found: dict[str, float | list[float]] = {name: [score(name, target, one) for one in candidates] for name in names}
    return {"partition-id": told.partition_id, "num-examples": len(learner.data.train), **found}


def ground_of(learner: Learner) -> Ground:
    """Return what the client brings to the comparison."""
    config, group = learner.config, learner.data.subgroup
    _, initial = cached_model(config.model, config.data, group.modality, learner.num_classes, config.run.seed)
    fresh = copy_model(learner.model)
    set_arrays(fresh, initial)
    seed = seed_for(config.run.seed, group.partition_id, 0, "joining")
    return Ground(
        modality=group.modality,
        classes=group.classes,
        own=learner.model,
        fresh=fresh,
        data=augmented_data(config, learner.data, learner.device),
        probes=choose(learner.data.train, config.selection.probes, seed, config.selection.pairs),
        tuning=Budget(config.selection.tune_epochs, optimisation(config), seed),
        seed=seed,
        device=learner.device,
    )
