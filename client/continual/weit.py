"""FedWeIT: a base that all clients share, sparse parameters for each task, and those of other clients' tasks by weight.

    W^(t)  = B * m^(t) + A^(t) + sum_k alpha_k^(t) F_k
    loss   = cross-entropy(W^(t)) + l1 (|m^(t)| + sum_{i<=t} |A^(i)|)
             + drift sum_{i<t} || (B - B') * m^(i) + A^(i) - A'^(i) ||^2
    server   B = mean over clients of B * m^(t)

for each linear and convolution weight of the backbone. m has one number a row; F_k are the A of earlier tasks of other
clients; B' and A' are B and A at the end of task t-1. Trained are B, m^(t), A^(1) ... A^(t), alpha^(t), and what each task has
for itself (client/continual/ownership.py). One task of one client goes

    session = begin_task(model, state, task, foreign, settings)
    each round:  set_base(session, B of the server); train_round(...); B * m = masked_base(session) goes up
                 suspend(session, state); pack and unpack; session = resume(model, state, settings)
    at its end:  A = adaptive(session) goes up; finish(session, state)

Source: Yoon et al., "Federated Continual Learning with Weighted Inter-client Transfer", ICML 2021. Ours, or left open there:
- m is clipped to [0, 1], not a sigmoid, and |m| is taken before the clip. It begins at 1 and can reach 0. The server's mean
  shrinks B in every round wherever m < 1; a sigmoid would do so from the first round on.
- A begins at ``start`` * B, and m at 1 - ``start``, so that a task begins with B; alpha begins at 0, so that other clients'
  parameters are used as far as they help.
- AdamW reaches no exact zero: the forward pass computes with A where |A| > ``threshold`` and 0 elsewhere, gradients pass as if
  it did not, and each round ends with A cut there.
- m^(i) and alpha^(i) of finished tasks stay as they are. Weight decay is on B and private matrices alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from client.continual.memory import digest, install
from client.continual.ownership import check_task, ownable, ownable_layers, private_names
from client.continual.session import in_place_of_parameters
from client.continual.train import Groups, Optimisation, TaskData, random_stream, train
from client.continual.weit_memory import (
    Before,
    Tensors,
    WeITState,
    WeITTask,
    check_arrays,
    cut,
    rows,
    stack_foreign,
    to_cpu,
    weight_of,
)
from models.arrays import Arrays
from models.groups import get_tensors

Parameters = dict[str, nn.Parameter]


@dataclass(frozen=True)
class WeITSettings:
    """Settings of FedWeIT.

    Attributes:
        l1: price of |m| and |A| (the authors' value: 1e-3).
        drift: price of moving what earlier tasks compute with (the authors' value: 100).
        threshold: |A| up to this is 0 (ours). About the learning rate: AdamW's L1 leaves what nothing needs one step from 0.
        start: A begins at start * B (ours).
        optimisation: batches and optimizer, AdamW (ours) with the weight decay of the authors, 1e-4.
        seed: of everything random.
    """

    l1: float = 1e-3
    drift: float = 100.0
    threshold: float = 2e-3
    start: float = 0.0
    optimisation: Optimisation = field(default_factory=lambda: Optimisation(weight_decay=1e-4))
    seed: int = 0


@dataclass
class WeITSession:
    """One task in training, on the device of the model; tensors by name of the weight.

    Attributes:
        model: its own linear and convolution weights of the backbone are neither read nor written, private tensors both.
        task: its id t.
        settings: see there.
        layers: the layers of these weights.
        base: B.
        mask: m^(t) before the clip.
        adaptive: A^(t) before the threshold.
        alpha: alpha^(t), shape (foreign,).
        earlier: A^(i) of finished tasks, before the threshold.
        earlier_masks: m^(i) of finished tasks.
        before: B' and A'.
        foreign: F, shape (foreign, rows, ...).
        private: the private parameters it trains, by their own names.
    """

    model: nn.Module
    task: int
    settings: WeITSettings
    layers: tuple[nn.Module, ...]
    base: Parameters
    mask: Parameters
    adaptive: Parameters
    alpha: Parameters
    earlier: dict[int, Parameters]
    earlier_masks: dict[int, Tensors]
    before: Before
    foreign: Tensors
    private: Parameters

    def __call__(self, inputs: Tensor) -> Tensor:
        """Inputs to logits (B, classes) of the task as it stands, in the mode (training, evaluation) of the model."""
        with in_place_of_parameters(self.layers, list(self.weights().values())):
            logits: Tensor = self.model(inputs)
        return logits

    def weights(self) -> Tensors:
        """Return W^(t), with A cut at the threshold and the gradient as if it were not."""
        weights = {}
        for name, base in self.base.items():
            raw = self.adaptive[name]
            used = raw + (cut(raw, self.settings.threshold) - raw).detach()
            weights[name] = weight_of(base, self.mask[name], used, self.alpha[name], self.foreign[name])
        return weights

    def penalty(self) -> Tensor:
        """Return the loss besides the cross-entropy, a scalar; weight decay is the optimizer's."""
        sparse = [*self.mask.values(), *self.adaptive.values(), *(a for task in self.earlier.values() for a in task.values())]
        loss = self.settings.l1 * torch.stack([value.abs().sum() for value in sparse]).sum()
        return loss + self.settings.drift * self.moved() if self.earlier else loss

    def moved(self) -> Tensor:
        """Return the squared distance of the earlier tasks' weights from those at the end of the last task."""
        shift = {name: base - self.before.base[name] for name, base in self.base.items()}
        terms = [
            (moved * rows(self.earlier_masks[task][name], moved) + now[name] - self.before.adaptive[task][name]).square().sum()
            for task, now in self.earlier.items()
            for name, moved in shift.items()
        ]
        return torch.stack(terms).sum()

    def parameter_groups(self, weight_decay: float) -> Groups:
        """Return groups for an optimizer: weight decay on B and private matrices, on nothing else."""
        private = self.private.values()
        free = (self.mask, self.adaptive, self.alpha, *self.earlier.values())
        decayed = [*self.base.values(), *(p for p in private if p.ndim >= 2)]
        others = [*(p for part in free for p in part.values() if len(p)), *(p for p in private if p.ndim < 2)]
        return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def begin_task(
    model: nn.Module, state: WeITState, task: int, foreign: Sequence[Mapping[str, np.ndarray]], settings: WeITSettings
) -> WeITSession:
    """Begin a task; private tensors begin with what the model holds, B with that of the state or, if it has none, the model's.

    Args:
        model: with the head of the task in it. Until the session is finished, only the session may change it.
        state: gets the task, unfinished, and the foreign parameters.
        task: id, from 1, after those of the finished ones.
        foreign: A of other clients' tasks, as :func:`adaptive` returned them.
        settings: see there.

    Raises:
        ValueError: the task is out of range or not after the others, another one is unfinished, the model has no linear or
            convolution layer in its backbone, or foreign parameters do not fit it.
    """
    check_task(task)
    if state.unfinished or task <= max(state.tasks, default=0):
        raise ValueError(f"task {task} cannot begin: found {sorted(state.tasks)}, unfinished {state.unfinished or 'none'}")
    known = ownable(model)
    if not known:
        raise ValueError("the model has no linear or convolution layer in its backbone: there is nothing to share")
    if not state.base:
        state.base = get_tensors(model, known)
    tensors = [check_arrays(one, state.base, f"foreign parameters {place}") for place, one in enumerate(foreign)]
    keys = tuple(digest(one)[:16] for one in tensors)
    state.foreign |= dict(zip(keys, tensors, strict=True))
    state.hold()
    state.tasks[task] = WeITTask(
        mask={name: torch.full((len(base),), 1.0 - settings.start) for name, base in state.base.items()},
        adaptive={name: settings.start * base for name, base in state.base.items()},
        alpha={name: torch.zeros(len(keys)) for name in state.base},
        foreign=keys,
        private=get_tensors(model, private_names(model)),
    )
    state.unfinished = task
    return resume(model, state, settings)


def resume(model: nn.Module, state: WeITState, settings: WeITSettings) -> WeITSession:
    """Go on with the unfinished task of a state; the model gets its private tensors.

    Raises:
        ValueError: no task is unfinished, or the model has other weights than the state.
    """
    if not state.unfinished or state.before is None:
        raise ValueError(f"no task is unfinished: found {sorted(state.tasks)}")
    part = state.tasks[state.unfinished]
    layers = ownable_layers(model)
    own = {name: tuple(weight.shape) for name, weight in ownable(model).items()}
    if own != {name: tuple(base.shape) for name, base in state.base.items()}:
        raise ValueError("the weights of the state have other names or shapes: the model was built with other settings")
    install(model, part.private)
    device = next(model.parameters()).device
    done = [task for task in state.tasks if task != state.unfinished]

    def fixed(tensors: Tensors) -> Tensors:
        return {name: value.to(device) for name, value in tensors.items()}

    def learned(tensors: Tensors) -> Parameters:
        return {name: nn.Parameter(tensors[name].to(device, copy=True)) for name in layers}

    return WeITSession(
        model=model,
        task=state.unfinished,
        settings=settings,
        layers=tuple(layers.values()),
        base=learned(state.base),
        mask=learned(part.mask),
        adaptive=learned(part.adaptive),
        alpha=learned(part.alpha),
        earlier={task: learned(state.tasks[task].adaptive) for task in done},
        earlier_masks={task: fixed(state.tasks[task].mask) for task in done},
        before=Before(fixed(state.before.base), {task: fixed(state.before.adaptive[task]) for task in done}),
        foreign=fixed(stack_foreign(state, part)),
        private={n: p for n, p in model.named_parameters() if n in part.private and p.requires_grad},
    )


def suspend(session: WeITSession, state: WeITState) -> None:
    """Write the session into its state, every A cut at the threshold; logits are those of the session."""
    threshold = session.settings.threshold
    state.base = to_cpu(session.base)
    for task, now in session.earlier.items():
        state.tasks[task].adaptive = to_cpu(now, threshold)
    part = state.tasks[session.task]
    part.mask, part.alpha = to_cpu(session.mask), to_cpu(session.alpha)
    part.adaptive = to_cpu(session.adaptive, threshold)
    part.private = get_tensors(session.model, part.private)


def finish(session: WeITSession, state: WeITState) -> None:
    """Write the session into its state, and end the task."""
    suspend(session, state)
    state.unfinished, state.before = 0, None


@torch.no_grad()
def set_base(target: WeITSession | WeITState, base: Mapping[str, np.ndarray]) -> None:
    """Take the server's B; drift is still measured from the client's own at the end of its last task.

    Raises:
        ValueError: a name is missing or unknown, a shape is wrong, or a value is not finite.
    """
    if isinstance(target, WeITSession):
        for name, value in check_arrays(base, target.base, "the base").items():
            target.base[name].copy_(value)
        return
    tensors = check_arrays(base, target.base or {name: torch.from_numpy(value) for name, value in base.items()}, "the base")
    if target.tasks:
        target.hold()
    target.base = tensors


def train_round(session: WeITSession, data: TaskData, *, epochs: int, server_round: int, decay: bool = True) -> float:
    """Train for one round with a new optimizer; return the mean cross-entropy of the last epoch.

    Args:
        session: is changed.
        data: of the task.
        epochs: of this round.
        server_round: seeds batches, augmentation and dropout, with the task and the settings' seed.
        decay: half a cosine down to 0 within the round; else the rate is constant.
    """
    how, device = session.settings.optimisation, next(session.model.parameters()).device
    with random_stream(session.settings.seed, session.task, "weit/train", server_round, device) as generator:
        return train(
            session.model,
            session,
            session.parameter_groups(how.weight_decay),
            data,
            how,
            epochs=epochs,
            generator=generator,
            decay=decay,
            penalty=session.penalty,
        )


@torch.no_grad()
def masked_base(session: WeITSession) -> Arrays:
    """Return B * m^(t), float32: what goes to the server after each round."""
    return {name: (base * rows(session.mask[name], base)).float().cpu().numpy() for name, base in session.base.items()}


def adaptive(session: WeITSession) -> Arrays:
    """Return A^(t) cut at the threshold, float32: what goes to the server at the end of the task."""
    return {name: value.float().numpy() for name, value in to_cpu(session.adaptive, session.settings.threshold).items()}
