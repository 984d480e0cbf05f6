"""What CPG remembers between two states: settings, progress and tensors, on disk and back (client/continual/cpg.py)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from client.continual import checkpoint
from client.continual.memory import Memory, pack, unpack
from client.continual.session import Session, begin, write_back
from client.continual.train import Optimisation, Record, TaskData
from models.arrays import Arrays, get_arrays, set_arrays
from models.groups import stored_names

KEPT = "kept."
SCORES = "scores"


class State(StrEnum):
    """What is done next."""

    BEGIN = "begin"
    TRAIN = "train"
    GROW = "grow"
    PRUNE = "prune"
    CHOOSE = "choose"
    RETRAIN = "retrain"
    DONE = "done"


@dataclass(frozen=True)
class CPGSettings:
    """Settings of CPG; the paper's values are those of VGG16 on CIFAR-100.

    Attributes:
        goal: validation (balanced accuracy, in [0, 1]) that the task should reach: what a model of its own reaches, or one
            finetuned from an earlier task. 0: never grow, and prune as far as the ratios go. None: never grow, and prune as
            long as validation does not fall below the unpruned one by more than the tolerance.
        epsilon: a validation of goal - epsilon meets the goal.
        tolerance: pruning goes on while validation >= goal - tolerance, as a later stage may recover. If the goal was never
            met, it is counted from the unpruned validation, and may be lost.
        train_epochs: of TRAIN, and again after each growth (paper: 100).
        prune_epochs: of each stage (paper: 20).
        prune_share: part of a stage's steps in which the ratio rises; the rest recovers (paper: 4 of 20 epochs).
        prune_every: steps between two prunings (paper: 10).
        ratios: ascending; share of own and free weights of each layer that is free after the stage, in [0, 1).
        least_ratio: the task frees this share even where validation falls, so that later tasks have weights: the first of
            ``ratios`` that is not below it is reached and counts as good. 0: it need not.
        retrain_epochs: of RETRAIN (paper: 30).
        prune_learning_rate: of PRUNE, constant (paper: a tenth of that of TRAIN).
        retrain_learning_rate: of RETRAIN (paper: a tenth).
        retrain_score_learning_rate: of picks in RETRAIN (paper: a fifth).
        growth_step: share of the widths before the first task that one growth adds; 0: no growth.
        growth_cap: never more than this multiple of the widths before the first task, >= 1 (paper: 1.5).
        optimisation: batches and optimizer.
        seed: of everything random.
    """

    goal: float | None
    epsilon: float = 0.0
    tolerance: float = 0.02
    train_epochs: int = 10
    prune_epochs: int = 2
    prune_share: float = 0.5
    prune_every: int = 10
    ratios: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
    least_ratio: float = 0.0
    retrain_epochs: int = 4
    prune_learning_rate: float = 2e-4
    retrain_learning_rate: float = 2e-4
    retrain_score_learning_rate: float = 1e-4
    growth_step: float = 0.25
    growth_cap: float = 1.5
    optimisation: Optimisation = field(default_factory=Optimisation)
    seed: int = 0

    def __post_init__(self) -> None:
        if list(self.ratios) != sorted(set(self.ratios)) or not all(0 <= ratio < 1 for ratio in self.ratios):
            raise ValueError(f"found ratios {self.ratios}, expected them ascending, in [0, 1)")
        if self.growth_cap < 1 or self.growth_step < 0 or self.prune_every < 1:
            raise ValueError(
                f"found a growth cap of {self.growth_cap}, a growth step of {self.growth_step} and pruning every "
                f"{self.prune_every} steps: expected >= 1, >= 0 and >= 1"
            )


@dataclass
class Progress:
    """Where a task is; all of it is JSON.

    Attributes:
        state: to do next.
        step: checkpoints written.
        growths: done.
        validation: of the tensors as they are.
        unpruned: validation after the last TRAIN.
        stages: validation of each ratio pruned to.
        chosen: index of the largest ratio worth keeping; -1: none.
    """

    state: State = State.BEGIN
    step: int = 0
    growths: int = 0
    validation: float = 0.0
    unpruned: float = 0.0
    stages: list[float] = field(default_factory=list)
    chosen: int = -1


Validate = Callable[[Session, TaskData], float]


@dataclass
class Run:
    """All that the states read and write.

    Attributes:
        model: argument of :func:`client.continual.cpg.learn`, as the next five are.
        memory: see there.
        task: see there.
        data: see there.
        settings: see there.
        record: see there.
        validate: see ``decide`` there.
        progress: where the task is.
        scores: of picks.
        kept: the tensors to go back to, and their scores; empty: none.
    """

    model: nn.Module
    memory: Memory
    task: int
    data: TaskData
    settings: CPGSettings
    record: Record
    validate: Validate
    progress: Progress = field(default_factory=Progress)
    scores: Tensor | None = None
    kept: Arrays = field(default_factory=dict)

    @property
    def goal_met(self) -> bool:
        """Whether the task met its goal unpruned; without one it did."""
        return self.settings.goal is None or self.progress.unpruned >= self.settings.goal - self.settings.epsilon

    def required(self, stage: int) -> bool:
        """Whether a stage is pruned and kept whatever its validation; see ``least_ratio``."""
        return self.ratio(stage - 1) < self.settings.least_ratio

    def ratio(self, stage: int) -> float:
        """Ratio of a stage; 0 before the first."""
        return self.settings.ratios[stage] if stage >= 0 else 0.0


def open_session(run: Run, *, picking: bool = True) -> Session:
    """Return a session of the tensors as they are."""
    weight = next(run.model.parameters())
    scores = None if run.scores is None else run.scores.to(weight.device, weight.dtype)
    return begin(run.model, run.memory, run.task, scores, picking=picking, empty=True)


def close_session(run: Run, session: Session) -> None:
    """Validate a session and keep its tensors."""
    run.progress.validation = float(run.validate(session, run.data))
    write_back(session)
    run.scores = session.scores.detach()


def snapshot(run: Run) -> Arrays:
    """Return copies of all tensors of the model, owners included, and of the scores."""
    scores = {} if run.scores is None else {SCORES: run.scores.float().cpu().numpy().copy()}
    return get_arrays(run.model, stored_names(run.model)) | scores


def go_back(run: Run, tensors: Arrays) -> None:
    """Put a snapshot back; the model has the widths of then."""
    set_arrays(run.model, {name: value for name, value in tensors.items() if name != SCORES})
    run.scores = torch.from_numpy(tensors[SCORES].copy()) if SCORES in tensors else None


def store(run: Run, folder: Path) -> None:
    """Write a checkpoint."""
    arrays, facts = pack(run.model, run.memory)
    if run.scores is not None:
        arrays[SCORES] = run.scores.float().cpu().numpy()
    arrays |= {KEPT + name: value for name, value in run.kept.items()}
    own = {"progress": asdict(run.progress), "settings": plain(run.settings)}
    checkpoint.save(folder, run.task, run.progress.step, arrays, {"memory": facts, **own})


def restore(run: Run, folder: Path) -> bool:
    """Go on from a checkpoint; return whether there is one.

    Raises:
        ValueError: it is one of other settings.
        StorageError: it is damaged.
    """
    found = checkpoint.load(folder, run.task)
    if found is None:
        return False
    arrays, facts = found
    ours = plain(run.settings)
    other = sorted(key for key in ours.keys() | facts["settings"].keys() if ours.get(key) != facts["settings"].get(key))
    if other:
        raise ValueError(
            f"the checkpoint of task {run.task} in {folder} has other settings ({', '.join(other)}): use another folder"
        )
    run.kept = {name.removeprefix(KEPT): arrays.pop(name) for name in list(arrays) if name.startswith(KEPT)}
    scores = arrays.pop(SCORES, None)
    run.scores = None if scores is None else torch.from_numpy(scores.copy())
    memory = unpack(run.model, arrays, facts["memory"])
    run.memory.adapter, run.memory.records, run.memory.base = memory.adapter, memory.records, memory.base
    run.progress = Progress(**facts["progress"])
    run.progress.state = State(run.progress.state)
    return True


def plain(settings: CPGSettings) -> dict[str, Any]:
    """Return settings as JSON has them."""
    result: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    return result
