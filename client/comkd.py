"""ComKD-CLIP's student: a small image branch that learns from a teacher on images without labels.

With u_s, u_t the image features of student and teacher, w the teacher's stored text features, P a projector and tau the
temperature (client/packing/losses):

    L = L_align + L_stu
    L_align = |mean P(u_s) - mean u_t|_1 + |var P(u_s) - var u_t|_1          IFAlign, moments over the batch
    f_e = P(u_s) + alpha softmax(FC_q(P(u_s)) FC_k(w)^T / C) FC_v(w)         EduAttention, alpha starts at 0
    L_stu = tau^2 KL( softmax(q_t / tau) || softmax(q_s / tau) )             q_t from (u_t, w), q_s from (f_e, w)

No label is read in training: those of the images serve to leave out novel classes and to score. The logits are those of all
classes, so of a novel class the student knows the text features. At inference it needs image branch, projector, EduAttention
and w.

Our choices: u_t has norm 1, as in the paper's Eq. 1; the logit scale is the teacher's own; the projector has two layers as in
PromptKD (Li et al., CVPR 2024), with LayerNorm for its BatchNorm, so that a batch does not change how one image is seen.

Source: ComKD-CLIP (Chen, Qiao, Sun & Li, arXiv 2408.04145), sections on IFAlign, EduAttention and the refinement of distilled
knowledge.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from client import training
from client.comkd_teacher import make_speech, trained
from client.device import choose_device
from client.learner import cached_client
from client.packing.losses.edu_attention import EduAttention, prototype_logits
from client.packing.losses.ifalign import ifalign
from client.packing.losses.logits import hinton
from client.seeding import seed_for
from client.state import load_state, save_state
from config import Clip, RunConfig
from data_partition.base_novel import base_rows, scores
from models.arrays import Arrays, get_arrays, set_arrays
from models.clip import ImageBranch, small_vision, vision_from
from models.groups import named_tensors
from models.storage import StorageError, load_record, save_record
from strategies.protocol import Instruction
from strategies.teacher_card import TEXT_FEATURES, TeacherCard

OWN, SENT, STUDENT, UNTRAINED = "own", "sent", "student", "untrained"
"""Which model is evaluated: the client's own teacher, the one that it was sent, its student, or that before training."""


class Student(nn.Module):
    """Images (B,3,S,S) to the refined features f_e (B,F) of the module's docstring.

    Args:
        settings: of the run.
        side: of its images in pixels.
        width: F of the teacher.
    """

    def __init__(self, settings: Clip, side: int, width: int) -> None:
        super().__init__()
        own = settings.student_width
        self.image = ImageBranch(small_vision(side, settings.patch_size, own, settings.student_layers, settings.heads, own))
        self.projector = nn.Sequential(nn.Linear(own, width), nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width))
        self.attention = EduAttention(nn.Identity(), width, settings.attention_scale) if settings.attention else None

    def project(self, images: Tensor) -> Tensor:
        """Return P(u_s), (B,F)."""
        projected: Tensor = self.projector(self.image(images))
        return projected

    def refine(self, own_BF: Tensor, w_CF: Tensor) -> Tensor:
        """Return f_e of P(u_s)."""
        refined: Tensor = own_BF if self.attention is None else self.attention(own_BF, w_CF)
        return refined

    def forward(self, images: Tensor, w_CF: Tensor) -> Tensor:
        """See the class."""
        return self.refine(self.project(images), w_CF)


class Lesson(nn.Module):
    """What a client was sent: the teacher's image branch, frozen, and its text features w (C,F)."""

    def __init__(self, card: TeacherCard, arrays: Arrays) -> None:
        super().__init__()
        self.image = ImageBranch(vision_from(card.vision))
        set_arrays(self, {name: value for name, value in arrays.items() if name != TEXT_FEATURES})
        missing = set(named_tensors(self)) - set(arrays)
        if missing:
            raise ValueError(f"the teacher of client {card.partition_id} came without {sorted(missing)[:3]}")
        features = torch.from_numpy(arrays[TEXT_FEATURES].copy()).float()
        self.register_buffer("w_CF", features)
        self.scale = card.logit_scale
        self.requires_grad_(False).eval()

    def features(self, images: Tensor) -> Tensor:
        """Images to u_t (B,F), of norm 1."""
        return F.normalize(self.image(images), dim=-1)

    def logits(self, features_BF: Tensor) -> Tensor:
        """Features of teacher or student to logits (B,C)."""
        return prototype_logits(features_BF, self.texts, self.scale)

    @property
    def texts(self) -> Tensor:
        """The text features w, (C,F)."""
        return self.w_CF  # type: ignore[return-value]


def student_loss(
    student: Student, lesson: Lesson, images: Tensor, temperature: float, ifalign_weight: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return L of a batch, and its parts L_stu and L_align; see the module's docstring.

    Args:
        student: learns.
        lesson: does not.
        images: uint8 (B,3,S,S), the same for both.
        temperature: tau.
        ifalign_weight: of L_align in L; 0: L is L_stu to the last bit.
    """
    with torch.no_grad():
        u_BF = lesson.features(images)
        teacher_BC = lesson.logits(u_BF)
    own_BF = student.project(images)
    student_BC = lesson.logits(student.refine(own_BF, lesson.texts))
    kl = hinton(student_BC.float(), teacher_BC.float(), temperature).mean()
    align = ifalign(own_BF.float()[:, None], u_BF.float()[:, None])
    return (kl + ifalign_weight * align if ifalign_weight else kl), kl, align


def make_student(config: RunConfig, card: TeacherCard) -> Student:
    """Return the student as it is before it learns, with weights that depend on the run's seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_for(config.run.seed, -1, 0, "clip-student"))
        return Student(config.clip, config.data.image_side, card.shapes[TEXT_FEATURES][1])


def saved_student(config: RunConfig, told: Instruction, folder: Path, card: TeacherCard, before_round: int) -> Student:
    """Return the student as this run saved it before a round.

    Raises:
        ValueError: it has saved none.
    """
    saved = load_state(folder, told.run_token, before_round)
    if not saved:
        raise ValueError(f"client {told.partition_id} has no student from before round {before_round}: found none in {folder}")
    student = make_student(config, card)
    set_arrays(student, saved)
    return student


def receive(card: TeacherCard, sent: Arrays, folder: Path) -> Lesson:
    """Return what came with a message or, where only its hash came, from the client's disk; what came is kept there.

    Raises:
        ValueError: the arrays do not fit the card, or are neither here nor there.
    """
    kept = folder.parent / "teacher" / card.sha256
    if not sent:
        try:
            sent = load_record(kept)[0]
        except StorageError as error:
            raise ValueError(f"the teacher's arrays did not come, and are not here: {error}") from None
    else:
        card.check(sent)
        save_record(kept, sent, {"card": card.to_json()})
    return Lesson(card, sent)


def train(config: RunConfig, told: Instruction, folder: Path, card: TeacherCard, sent: Arrays) -> dict[str, float]:
    """Train the rounds of the instruction, save the student after the last, and return metrics of that round.

    Each round starts a fresh optimizer, on the schedule of all rounds.
    """
    start, settings = time.monotonic(), config.train
    device = choose_device(settings, config.federation)
    data = cached_client(config.data, told.partition_id, told.train_fraction)
    check_classes(card, data.subgroup.classes)
    images = data.train.inputs[base_rows(data.train.labels, card.base)]  # the last use of a label
    lesson = receive(card, sent, folder).to(device)
    student = (make_student(config, card) if told.round == 1 else saved_student(config, told, folder, card, told.round)).to(
        device
    )
    recipe = training.Recipe(settings, config.data, "image", None)
    per_round = told.epochs * -(-len(images) // settings.batch_size)
    parts: list[tuple[float, float]] = []
    for number in range(told.round, told.round + told.rounds):
        optimizer = training.make_optimizer(student, settings, settings.learning_rate)
        generator = torch.Generator().manual_seed(seed_for(config.run.seed, told.partition_id, number, "batches"))
        step, parts = (number - 1) * per_round, []
        student.train()
        for _ in range(told.epochs):
            for chosen in torch.split(torch.randperm(len(images), generator=generator), settings.batch_size):
                batch = training.augmented(images[chosen], recipe, generator).to(device)
                training.set_learning_rate(optimizer, settings, step, told.total_rounds * per_round)
                with training.autocast(settings.precision, device):
                    loss, kl, align = student_loss(student, lesson, batch, config.clip.temperature, config.clip.ifalign_weight)
                training.finite(loss)
                parts.append((kl.item(), align.item()))
                training.descend(loss, [optimizer], student.parameters(), settings.clip_norm)
                step += 1
    save_state(folder, told.run_token, told.round + told.rounds - 1, get_arrays(student, list(named_tensors(student))))
    kl_mean, align_mean = (sum(values) / len(values) for values in zip(*parts, strict=True))
    return {
        "partition-id": told.partition_id,
        "num-examples": len(images),
        "loss": kl_mean + config.clip.ifalign_weight * align_mean,
        "kl": kl_mean,
        "ifalign": align_mean,
        **({} if student.attention is None else {"alpha": student.attention.alpha.item()}),
        "steps": len(parts) * told.rounds,
        "seconds-training": time.monotonic() - start,
    }


@torch.no_grad()
def evaluate(config: RunConfig, told: Instruction, folder: Path, card: TeacherCard, sent: Arrays) -> dict[str, float]:
    """Evaluate one of :data:`OWN`, :data:`SENT`, :data:`STUDENT` and :data:`UNTRAINED` on the split of the instruction."""
    device = choose_device(config.train, config.federation)
    data = cached_client(config.data, told.partition_id, told.train_fraction)
    check_classes(card, data.subgroup.classes)
    split = data.test if told.split == "test" else data.val
    compute: Callable[[Tensor], Tensor]
    if told.method == OWN:
        teacher = trained(config, told, folder).to(device)
        w_CF = teacher.text_features(make_speech(config).rows(data.subgroup.classes, prompted=True).to(device))
        compute = lambda images: teacher.logits(teacher.image_features(images), w_CF)  # noqa: E731
    else:
        lesson = receive(card, sent, folder).to(device)
        if told.method == SENT:
            compute = lambda images: lesson.logits(lesson.features(images))  # noqa: E731
        else:
            fresh = told.method == UNTRAINED
            student = make_student(config, card) if fresh else saved_student(config, told, folder, card, told.round + 1)
            student.to(device).eval()
            compute = lambda images: lesson.logits(student(images, lesson.texts))  # noqa: E731
    with training.autocast(config.train.precision, device):
        logits = training.predict(compute, split, device)
    loss = F.cross_entropy(logits, split.labels).item()
    return {"partition-id": told.partition_id, "loss": loss, **scores(logits, split.labels, card.base)}


def check_classes(card: TeacherCard, classes: tuple[str, ...]) -> None:
    """Refuse a client whose classes are not those of the teacher, in its order.

    Raises:
        ValueError: names both.
    """
    if classes != card.classes:
        raise ValueError(
            f"the client has the classes {', '.join(classes)}, and client {card.partition_id} stored text features of "
            f"{', '.join(card.classes)}: name clients of one class group in data.clients"
        )
