"""Packing: one student learns what N frozen teachers know, on inputs that need no labels.

    L = a_ce CE(z_s, y) on labelled examples + sum_k sum_l a_l mean_b w_bk L_l(student, teacher k)_b on all inputs asked about

A step reads a batch of labelled examples, and one of the other inputs that teachers are asked about, which cycles on its own.
So an epoch has as many steps as without teachers, and the labelled batches are the same ones.

Teachers take turns. The student runs once, and its trace is cut from its graph; each teacher is asked, its terms are added to
the gradients of the cut, and everything of it is free before the next one is asked. At the end these gradients go through the
student. So the device holds the activations of the student and of one teacher, for any N, and the gradient is that of the sum.

Sources: multi-teacher distillation as a weighted sum of losses, e.g. AVER and FedDF's "average losses" (Lin et al., NeurIPS
2020); ``packing.stop-epoch``: Cho & Hariharan, ICCV 2019, section on early stopping of distillation.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from client.continual.train import Optimisation, Record, ignore, random_stream, validate
from client.modeldiff.tune import with_decay
from client.packing.data import PackData, all_inputs, pool_of
from client.packing.lessons import Lesson, total
from client.packing.plan import Plan, make_plan
from client.packing.teachers import Teacher, ask, trace_of
from client.packing.weights import effective
from client.seeding import seed_for
from client.training import autocast, finite
from config import Packing
from models.gates import gates
from models.trace import Trace

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PackEpoch:
    """What happened in one epoch.

    Attributes:
        epoch: from 1.
        steps: optimisation steps.
        losses: mean of each term before its weight in the loss, summed over teachers by their weights; ``cross-entropy`` too.
        effective_teachers: mean of 1 / sum_k w_bk^2; 0: no teacher was asked.
        agreement: share of inputs on which the student in training chooses a teacher's class, by the teacher's name, among
            classes in common; teachers without such are left out.
        validation: balanced accuracy of the student; None: there are no validation examples.
    """

    epoch: int
    steps: int
    losses: dict[str, float]
    effective_teachers: float
    agreement: dict[str, float]
    validation: float | None


@dataclass(frozen=True)
class Packed:
    """The log of a packing.

    Attributes:
        epochs: one after another.
        warnings: what may have taught noise.
    """

    epochs: tuple[PackEpoch, ...]
    warnings: tuple[str, ...]


def pack(
    student: nn.Module,
    teachers: Sequence[Teacher],
    data: PackData,
    settings: Packing,
    how: Optimisation | None = None,
    *,
    seed: int = 0,
    record: Record = ignore,
) -> Packed:
    """Train a student in place.

    Without teachers this is plain training on the labelled examples, in the same batches: the control of equal steps. With a
    copy of the student's own trained model as the one teacher it is self-distillation. The same arguments give the same bits.

    Args:
        student: initialised as it should start, on its device; it gets no tensor more, and is left in evaluation mode.
        teachers: frozen; moved to the student's device, and back to the host where they are asked only once.
        data: see :class:`client.packing.data.PackData`.
        settings: section ``packing``; its ``how`` is not read.
        how: batches and optimizer; its learning rate is multiplied by ``packing.rate``.
        seed: of batches, augmentation, dropout and learned maps.
        record: gets the fact ``pack-epoch`` after each epoch, and ``pack-warning``.

    Raises:
        PackingError: a combination would teach noise or cannot be computed, with all reasons.
        FloatingPointError: a loss is not finite.
    """
    how, device = how or Optimisation(), next(student.parameters()).device
    plan = make_plan(student, teachers, data, settings, seed, device)
    for warning in plan.warnings:
        log.warning("%s", warning)
        record("pack-warning", warning=warning)
    packer = _Packer(student, teachers, data, settings, how, plan, device)
    epochs = []
    with random_stream(seed, 0, "packing", 0, device) as generator:
        others = torch.Generator().manual_seed(seed_for(seed, 0, 0, "packing/pool"))
        for epoch in range(settings.epochs):
            epochs.append(packer.epoch(epoch, generator, others))
            record("pack-epoch", **asdict(epochs[-1]))
    student.eval()
    return Packed(tuple(epochs), plan.warnings)


@dataclass
class _Tally:
    """Sums over the steps of an epoch."""

    steps: int = 0
    asked: int = 0
    effective: float = 0.0
    losses: dict[str, list[float]] = field(default_factory=dict)
    agreed: dict[str, list[Tensor]] = field(default_factory=dict)


class _Packer:
    """State of :func:`pack`."""

    def __init__(
        self,
        student: nn.Module,
        teachers: Sequence[Teacher],
        data: PackData,
        settings: Packing,
        how: Optimisation,
        plan: Plan,
        device: torch.device,
    ) -> None:
        self.student, self.teachers, self.data, self.settings = student, teachers, data, settings
        self.how, self.plan, self.device = how, plan, device
        self.inputs, self.labels = all_inputs(data, settings), data.task.train.labels
        self.asks_labelled, self.pool = pool_of(data, settings)
        weight = data.task.class_weights
        self.class_weights = None if weight is None else weight.to(device)
        parts = [with_decay(part.parameters(), how.weight_decay) for part in (student, plan.lessons)]
        groups = [group for part in parts for group in part if group["params"]]
        self.clipped = [[parameter for group in part for parameter in group["params"]] for part in parts]  # each for itself
        self.optimizers = how.optimizers(groups, how.learning_rate * settings.rate)
        self.peaks = [(group, group["lr"]) for optimizer in self.optimizers for group in optimizer.param_groups]
        read = [lesson.stages[i][0] for lesson in self.lessons for usable in lesson.usable.values() for i in usable]
        self.stages = sorted(set(read))
        self.waiting: Iterator[Tensor] = iter(())
        self.step = 0

    @property
    def lessons(self) -> list[Lesson]:
        return list(self.plan.lessons)  # type: ignore[arg-type]

    def epoch(self, epoch: int, generator: torch.Generator, others: torch.Generator) -> PackEpoch:
        """Train one epoch, from 0."""
        taught = bool(self.teachers) and not 0 < self.settings.stop_epoch <= epoch
        labelled = len(self.labels) > 0 and (self.settings.cross_entropy > 0 or (taught and self.asks_labelled))
        main = torch.randperm(len(self.labels), generator=generator) if labelled else None
        batch, extra = self.how.batch_size, self.settings.unlabelled_batch or self.how.batch_size
        if main is None:
            steps = -(-len(self.pool) // extra)
            known = [torch.arange(0)] * steps
        else:
            known = list(torch.split(main, batch))
        self.student.train()
        self.plan.lessons.train()
        tally, total_steps = _Tally(), len(known) * self.settings.epochs
        for rows in known:
            for group, peak in self.peaks:
                group["lr"] = peak * self.how.rate(self.step, total_steps, group)
            drawn = self._draw(extra, others) if taught and len(self.pool) else torch.arange(0)
            self._step(rows, drawn, taught, generator, others, tally)
            self.step += 1
        val = self.data.task.val
        return PackEpoch(
            epoch + 1,
            tally.steps,
            {name: sum(values) / tally.steps for name, values in tally.losses.items()},
            tally.effective / tally.asked if tally.asked else 0.0,
            {name: float(torch.cat(values).double().mean()) for name, values in tally.agreed.items()},
            validate(self.student, self.student, self.data.task) if len(val) else None,
        )

    def _draw(self, size: int, generator: torch.Generator) -> Tensor:
        """Return the next batch of the pool, shuffled anew each time that it is used up."""
        rows = next(self.waiting, None)
        if rows is None:
            order = self.pool[torch.randperm(len(self.pool), generator=generator)]
            self.waiting = iter(torch.split(order, size))
            rows = next(self.waiting)
        return rows

    def _changed(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        inputs, augment = self.inputs[rows], self.data.task.augment
        return inputs if augment is None or not len(rows) else augment(inputs, generator)

    def _step(
        self,
        known: Tensor,
        drawn: Tensor,
        taught: bool,
        generator: torch.Generator,
        others: torch.Generator,
        tally: _Tally,
    ) -> None:
        """Do one step on labelled rows and on rows of the pool; either may be none."""
        changed = torch.cat([self._changed(known, generator), self._changed(drawn, others)]).to(self.device)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        with autocast(self.data.task.precision, self.device):
            trace = trace_of(self.student, changed)
        cut = cut_off(trace, self.stages)
        tally.steps += 1
        if len(known) and self.settings.cross_entropy > 0:
            labels = self.labels[known].to(self.device)
            loss = F.cross_entropy(cut.logits[: len(known)], labels, weight=self.class_weights)
            tally.losses.setdefault("cross-entropy", []).append(finite(loss))
            (self.settings.cross_entropy * loss).backward()  # type: ignore[no-untyped-call]
        start = 0 if self.asks_labelled else len(known)
        rows = torch.cat([known, drawn])[start:]
        if taught and len(rows):
            shown, weights = rows_of(cut, slice(start, None)), self.plan.weights[rows.to(self.device)]
            heard = weights[weights.sum(dim=1) > 0]
            tally.asked += len(heard)
            tally.effective += float(effective(heard).sum())
            summed: dict[str, float] = {}
            for k in range(len(self.teachers)):
                for name, value in self._teach(k, shown, changed[start:], rows, weights[:, k], others, tally).items():
                    summed[name] = summed.get(name, 0.0) + value
            for name, value in summed.items():
                tally.losses.setdefault(name, []).append(value)
        go_through(trace, cut)
        if self.how.clip_norm > 0:
            for parameters in self.clipped:
                nn.utils.clip_grad_norm_([p for p in parameters if p.grad is not None], self.how.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
        for gate in gates(self.student):
            gate.clamp_()

    def _teach(
        self,
        k: int,
        shown: Trace,
        inputs: Tensor,
        rows: Tensor,
        weights_B: Tensor,
        others: torch.Generator,
        tally: _Tally,
    ) -> dict[str, float]:
        """Add the gradients of one teacher's terms to the cut, and return the terms; nothing else of it is left."""
        teacher, lesson, kept = self.teachers[k], self.lessons[k], self.plan.answers[k]
        if teacher.known is not None and not bool((known := teacher.known[rows]).all()):
            if not bool(known.any()):
                return {}
            there = known.to(self.device)
            shown, inputs, rows, weights_B = rows_of(shown, there), inputs[there], rows[known], weights_B[there]
        if kept is None:
            answers = ask(teacher.model, inputs, self.plan.stages[k], self.data.task.precision)
        else:
            own = rows if teacher.paired else torch.randint(len(kept.logits), (len(rows),), generator=others)
            answers = kept.rows(own, self.device)
        loss, values = total(lesson(shown, answers), self.settings.weighted, weights_B)
        finite(loss)
        loss.backward()  # type: ignore[no-untyped-call]
        if teacher.paired and (agreed := lesson.agreement(shown, answers)) is not None:
            tally.agreed.setdefault(teacher.name, []).append(agreed.cpu())
        return values


def cut_off(trace: Trace, stages: Sequence[int]) -> Trace:
    """Return a trace as the leaves of new graphs, float32: what the terms read, and latents of these stages."""

    def leaf(tensor: Tensor) -> Tensor:
        return tensor.detach().float().requires_grad_()

    latents = tuple(leaf(stage) if i in stages else stage.detach() for i, stage in enumerate(trace.latents))
    return replace(trace, latents=latents, queries=leaf(trace.queries), logits=leaf(trace.logits))


def rows_of(trace: Trace, rows: slice | Tensor) -> Trace:
    """Return some rows of a trace."""
    latents = tuple(stage[rows] for stage in trace.latents)
    return replace(trace, latents=latents, queries=trace.queries[rows], logits=trace.logits[rows])


def go_through(trace: Trace, cut: Trace) -> None:
    """Send the gradients that the leaves of a cut have got through the graph of its trace."""
    ends = [*zip(trace.latents, cut.latents, strict=True), (trace.queries, cut.queries), (trace.logits, cut.logits)]
    reached = [(end, leaf.grad.to(end.dtype)) for end, leaf in ends if leaf.grad is not None and end.requires_grad]
    torch.autograd.backward([end for end, _ in reached], [gradient for _, gradient in reached])
