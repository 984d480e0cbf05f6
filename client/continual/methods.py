"""The methods by name, with their settings from the run config: a new method is a new file, and a function and a line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from client.continual import cpg, ewc, finetune, packnet, piggyback
from client.continual.cpg_state import CPGSettings
from client.continual.memory import Memory
from client.continual.train import Optimisation, Record, TaskData, ignore, optimisation_of
from config import RunConfig

MASKED = ("cpg", "packnet", "piggyback")
"""Methods under which a task never writes what another one owns."""
PICKING = ("cpg", "piggyback")
"""Methods that learn which weights of earlier tasks a task uses."""


@dataclass(frozen=True)
class Work:
    """One task to learn.

    Attributes:
        config: settings of the run.
        task: id, from 1.
        data: of the task.
        epochs: of training before anything is pruned; 0: it was trained already.
        seed: of everything random.
        record: takes facts.
        goal: validation that cpg should reach; 0: none.
        remaining: tasks that will come after this one.
        folder: where cpg keeps its checkpoints; None: nowhere.
        scores: of picks, of a task that was trained already.
        anchors: of ewc, by task; gets this one's.
    """

    config: RunConfig
    task: int
    data: TaskData
    epochs: int
    seed: int
    record: Record = ignore
    goal: float = 0.0
    remaining: int = 0
    folder: Path | None = None
    scores: Tensor | None = None
    anchors: dict[int, ewc.Anchor] = field(default_factory=dict)


def optimisation(config: RunConfig) -> Optimisation:
    """Return how tasks are optimised under a run config."""
    return optimisation_of(config.train, config.continual.score_learning_rate)


def learn_cpg(model: nn.Module, memory: Memory, work: Work) -> None:
    """Learn by compacting, picking and growing; later tasks are kept ``continual.reserve`` of an equal part of the weights."""
    settings, rate = work.config.continual, work.config.train.learning_rate
    cpg.learn(
        model,
        memory,
        work.task,
        work.data,
        CPGSettings(
            goal=work.goal or None,
            tolerance=settings.tolerance,
            train_epochs=work.epochs,
            prune_epochs=settings.prune_epochs,
            prune_share=settings.prune_share,
            prune_every=settings.prune_every,
            ratios=tuple(float(ratio) for ratio in settings.ratios.split(",")),
            least_ratio=settings.reserve * work.remaining / (work.remaining + 1),
            retrain_epochs=settings.retrain_epochs,
            prune_learning_rate=settings.prune_rate * rate,
            retrain_learning_rate=settings.retrain_rate * rate,
            retrain_score_learning_rate=settings.retrain_score_rate * settings.score_learning_rate,
            growth_step=settings.growth_step,
            growth_cap=settings.growth_cap,
            optimisation=optimisation(work.config),
            seed=work.seed,
        ),
        work.record,
        folder=work.folder,
        scores=work.scores,
    )


def learn_packnet(model: nn.Module, memory: Memory, work: Work) -> None:
    """Learn by iterative pruning."""
    settings = packnet.PackNetSettings(
        train_epochs=work.epochs,
        retrain_epochs=work.config.continual.retrain_epochs,
        retrain_learning_rate=work.config.continual.retrain_rate * work.config.train.learning_rate,
        ratio=work.config.continual.packnet_ratio,
        optimisation=optimisation(work.config),
        seed=work.seed,
    )
    packnet.learn(model, memory, work.task, work.data, settings, work.record)


def learn_piggyback(model: nn.Module, memory: Memory, work: Work) -> None:
    """Learn by masks over the first task's backbone."""
    settings = piggyback.PiggybackSettings(work.epochs, optimisation(work.config), work.seed)
    piggyback.learn(model, memory, work.task, work.data, settings, work.record, scores=work.scores)


def learn_by_finetuning(model: nn.Module, memory: Memory, work: Work) -> None:
    """Learn with every weight, and protect none."""
    settings = finetune.FinetuneSettings(work.epochs, optimisation(work.config), work.seed)
    finetune.learn(model, memory, work.task, work.data, settings, work.record)


def learn_ewc(model: nn.Module, memory: Memory, work: Work) -> None:
    """Learn with every weight, at a price."""
    strength, samples = work.config.continual.ewc_strength, work.config.continual.ewc_samples
    settings = ewc.EWCSettings(work.epochs, optimisation(work.config), work.seed, strength=strength, fisher_samples=samples)
    ewc.learn(model, memory, work.task, work.data, settings, work.record, anchors=work.anchors)


METHODS: dict[str, Callable[[nn.Module, Memory, Work], None]] = {
    "cpg": learn_cpg,
    "packnet": learn_packnet,
    "piggyback": learn_piggyback,
    "finetune": learn_by_finetuning,
    "ewc": learn_ewc,
}
