"""CPG: compacting, picking and growing, for one task of one client, as one state machine that goes on after a crash.

    BEGIN -> TRAIN -> (GROW -> TRAIN)* -> PRUNE* -> CHOOSE -> RETRAIN -> DONE

    BEGIN    claim all free weights
    TRAIN    own weights, private tensors, and picks on weights of older tasks
    GROW     only if validation < goal - epsilon and the cap is not reached; what was trained stays, and is trained further
    PRUNE    one stage for each ratio: the cubic schedule from the ratio before, with picks as they are
    CHOOSE   go back to the largest ratio that meets the goal; if the unpruned task did not meet it, to the largest that does
             not fall below the unpruned validation by more than the tolerance; if there is none, to the unpruned task. What
             later tasks need at least (``least_ratio``) is freed in any case
    RETRAIN  beginning with the learned picks; undone if validation falls

After each state one fact is recorded and one checkpoint written. Killed at any time and started again, a task ends with the
same bits on the same machine: a state draws all it needs from (seed, task, state, stage), and begins with a new optimizer, so
nothing but tensors and a few numbers has to be stored. A fact is recorded again if the process died before its checkpoint.

Source: Hung et al., NeurIPS 2019, §3. Differences: validation examples decide, never test examples; growth keeps the function
and the training (there, the task starts again), and depends on the goal alone; a limit on growth that holds; retraining keeps
the picks, and is compared with what it replaces; biases and norms, and latents too, are private.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from client.continual.cpg_state import (
    CPGSettings,
    Progress,
    Run,
    State,
    Validate,
    close_session,
    go_back,
    open_session,
    restore,
    snapshot,
    store,
)
from client.continual.grow import next_widths, set_widths, widths
from client.continual.memory import Memory
from client.continual.ownership import attach_owners, check_task, claim_free, count_owned
from client.continual.prune import cubic, prune
from client.continual.session import Session, finish
from client.continual.train import (
    Groups,
    Record,
    TaskData,
    counts,
    ignore,
    random_stream,
    train,
    validate,
)
from client.seeding import seed_for
from client.training import steps_per_epoch


def balanced_accuracy_of(session: Session, data: TaskData) -> float:
    """Return the balanced accuracy of the validation examples."""
    return validate(session.model, session, data)


def learn(
    model: nn.Module,
    memory: Memory,
    task: int,
    data: TaskData,
    settings: CPGSettings,
    record: Record = ignore,
    *,
    folder: Path | None = None,
    scores: Tensor | None = None,
    decide: Validate = balanced_accuracy_of,
) -> Progress:
    """Learn one task, or go on with it; the model and the memory hold it afterwards.

    Each state is recorded with ``state``, ``next``, ``task``, ``stage``, ``ratio``, ``validation``, ``growths``, ``owned``,
    ``free`` and ``width``, and ``epochs`` and ``loss`` if it trained. ``no-free-weights``, ``goal-not-met`` and
    ``pruned-below-goal`` are recorded besides, before the state that found out.

    Args:
        model: with the head of the task and, as a start, other private tensors in it; gets owners if it has none. If there is
            a checkpoint, any model of the same settings: all its tensors are replaced.
        memory: the finished tasks; replaced likewise.
        task: id, after those of the finished ones.
        data: of the task.
        settings: see there.
        record: takes facts.
        folder: of checkpoints; the last one stays there until the caller removes it. None: no checkpoints.
        scores: of picks, of a task that was trained elsewhere and goes on here.
        decide: returns the validation, higher is better.

    Raises:
        ValueError: a later task is finished, or the checkpoint is one of other settings.
        StorageError: the checkpoint is damaged.
    """
    check_task(task)
    if memory.latest > task:
        raise ValueError(f"task {task} cannot be trained: task {memory.latest} came after it and builds on it")
    attach_owners(model)
    run = Run(model, memory, task, data, settings, record, decide, scores=scores)
    if folder is not None and not restore(run, folder):
        store(run, folder)
    while run.progress.state is not State.DONE:
        state = run.progress.state
        fact = STATES[state](run)
        facts = {"ratio": 0.0, "stage": 0, "validation": run.progress.validation, "growths": run.progress.growths, **fact}
        record(state.value, state=state.value, next=run.progress.state.value, task=task, **facts, **counts(model, task))
        run.progress.step += 1
        if folder is not None:
            store(run, folder)
    return run.progress


def begin_task(run: Run) -> dict[str, Any]:
    """BEGIN: claim all free weights."""
    run.memory.base = run.memory.base or widths(run.model)
    claimed = claim(run)
    run.progress.state = State.TRAIN
    return {"validation": None, "claimed": claimed}


def claim(run: Run) -> int:
    """Claim all free weights; record if the task has none."""
    claimed = claim_free(run.model, run.task)
    if run.task not in count_owned(run.model):
        run.record("no-free-weights", task=run.task)
    return claimed


def train_task(run: Run) -> dict[str, Any]:
    """TRAIN: then grow, or prune, or, without a weight to prune, go on to CHOOSE."""
    progress, settings = run.progress, run.settings
    session = open_session(run)
    groups = session.parameter_groups(
        settings.optimisation.weight_decay, scores={"lr": settings.optimisation.score_learning_rate}
    )
    loss = fit(run, session, groups, settings.train_epochs, settings.optimisation.learning_rate, progress.growths)
    close_session(run, session)
    progress.unpruned = progress.validation
    if not run.goal_met and wider(run) != widths(run.model):
        progress.state = State.GROW
        return {"loss": loss, "stage": progress.growths, "epochs": settings.train_epochs}
    if not run.goal_met:
        run.record("goal-not-met", task=run.task, goal=settings.goal, validation=progress.validation)
    run.kept = snapshot(run)
    progress.state = State.PRUNE if settings.ratios and count_owned(run.model).get(run.task) else State.CHOOSE
    return {"loss": loss, "stage": progress.growths, "epochs": settings.train_epochs}


def wider(run: Run) -> dict[str, int]:
    """Return the widths after one more growth; those of now if the cap is reached."""
    return next_widths(run.memory.base, widths(run.model), run.settings.growth_step, run.settings.growth_cap)


def grow_model(run: Run) -> dict[str, Any]:
    """GROW: the output stays, and the new weights are the task's."""
    progress = run.progress
    progress.growths += 1
    set_widths(run.model, wider(run), seed=seed_for(run.settings.seed, run.task, progress.growths, "cpg/grow"))
    claimed = claim(run)
    progress.state = State.TRAIN
    return {"stage": progress.growths, "claimed": claimed}


def prune_stage(run: Run) -> dict[str, Any]:
    """PRUNE: one stage; the last one is the first that falls too low, or that of the last ratio."""
    progress, settings = run.progress, run.settings
    stage = len(progress.stages)
    before, ratio = run.ratio(stage - 1), run.ratio(stage)
    steps = settings.prune_epochs * steps_per_epoch(run.data.train, settings.optimisation.batch_size)
    last = max(1, round(settings.prune_share * steps))
    session = open_session(run, picking=False)

    def after_step(step: int, optimizer: torch.optim.Optimizer) -> None:
        if step <= last and (step % settings.prune_every == 0 or step == last):
            prune(session, cubic(step, 0, last, before, ratio), optimizer)

    groups = session.parameter_groups(settings.optimisation.weight_decay)
    rate = settings.prune_learning_rate
    loss = fit(run, session, groups, settings.prune_epochs, rate, stage, decay=False, after_step=after_step)
    prune(session, ratio)  # without a step there was no chance yet
    close_session(run, session)
    progress.stages.append(progress.validation)
    lowest, stop = floors(run)
    if progress.validation >= lowest or run.required(stage):
        run.kept, progress.chosen = snapshot(run), stage
    if (progress.validation < stop and not run.required(stage + 1)) or stage == len(settings.ratios) - 1:
        progress.state = State.CHOOSE
    return {"stage": stage, "ratio": ratio, "loss": loss, "epochs": settings.prune_epochs}


def floors(run: Run) -> tuple[float, float]:
    """Return the validation that a stage needs to be chosen, and the one below which pruning stops."""
    settings = run.settings
    if settings.goal is None or not run.goal_met:
        lowest = run.progress.unpruned - settings.tolerance
        return lowest, lowest
    lowest = settings.goal - settings.epsilon
    return lowest, min(lowest, settings.goal - settings.tolerance)


def choose_ratio(run: Run) -> dict[str, Any]:
    """CHOOSE: go back to the tensors of the ratio."""
    progress = run.progress
    go_back(run, run.kept)
    run.kept = {}
    progress.validation = progress.stages[progress.chosen] if progress.chosen >= 0 else progress.unpruned
    if progress.validation < floors(run)[0] and run.required(progress.chosen):
        run.record("pruned-below-goal", task=run.task, goal=run.settings.goal, validation=progress.validation)
    progress.state = State.RETRAIN
    return {"stage": progress.chosen, "ratio": run.ratio(progress.chosen)}


def retrain_task(run: Run) -> dict[str, Any]:
    """RETRAIN: kept if validation does not fall; then the task is written down."""
    progress, settings = run.progress, run.settings
    before, held = snapshot(run), progress.validation
    session = open_session(run)
    groups = session.parameter_groups(settings.optimisation.weight_decay, scores={"lr": settings.retrain_score_learning_rate})
    loss = fit(run, session, groups, settings.retrain_epochs, settings.retrain_learning_rate, 0)
    close_session(run, session)
    found = progress.validation
    if found < held:
        go_back(run, before)
        progress.validation = held
    finish(open_session(run, picking=False))
    progress.state = State.DONE
    return {
        "stage": progress.chosen,
        "ratio": run.ratio(progress.chosen),
        "loss": loss,
        "epochs": settings.retrain_epochs,
        "retrained": found,
        "accepted": found >= held,
    }


def fit(
    run: Run,
    session: Session,
    groups: Groups,
    epochs: int,
    learning_rate: float,
    stage: int,
    *,
    decay: bool = True,
    after_step: Callable[[int, torch.optim.Optimizer], object] | None = None,
) -> float:
    """Train a session in the random stream of its state and stage; return the loss."""
    device = session.values.device
    with random_stream(run.settings.seed, run.task, run.progress.state.value, stage, device) as generator:
        return train(
            run.model,
            session,
            groups,
            run.data,
            run.settings.optimisation,
            epochs=epochs,
            generator=generator,
            learning_rate=learning_rate,
            decay=decay,
            after_step=after_step,
        )


STATES: dict[State, Callable[[Run], dict[str, Any]]] = {
    State.BEGIN: begin_task,
    State.TRAIN: train_task,
    State.GROW: grow_model,
    State.PRUNE: prune_stage,
    State.CHOOSE: choose_ratio,
    State.RETRAIN: retrain_task,
}
