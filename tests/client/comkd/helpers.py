"""A small teacher, and what it sends."""

from __future__ import annotations

import dataclasses

import torch

from config import RunConfig, parse
from models.arrays import get_arrays
from models.clip import Language, Teacher, class_rows, new_teacher, small_vision
from models.groups import named_tensors
from strategies.protocol import digest
from strategies.teacher_card import TEXT_FEATURES, TeacherCard

CLASSES = ("cat", "dog", "car", "bus")
NAMES = [[10], [11], [12], [13, 14]]
CONTEXT, BEGIN, END = [4, 5], 2, 3
SMALL = {
    "strategy.name": "comkd",
    "data.clients": "0,1,2",
    "data.concepts": "shared",
    "data.train-fraction": 1.0,
    "run.rounds": 2,
    "run.evaluate-every": 1,
    "train.epochs": 2,
    "clip.patch-size": 16,
    "clip.width": 16,
    "clip.layers": 1,
    "clip.heads": 2,
    "clip.student-width": 8,
    "clip.pretrain-epochs": 2,
    "clip.prompt-epochs": 1,
}


def small(**flat) -> RunConfig:
    return parse({**SMALL, **flat})


def small_teacher(seed: int = 0) -> Teacher:
    torch.manual_seed(seed)
    teacher = new_teacher(small_vision(32, 16, 16, 1, 2, 16, prompts=3), Language(20, 12, 16, 1, 2, 16, END), len(CONTEXT))
    teacher.start_prompts(CONTEXT)
    return teacher


def texts(prompted: bool = True) -> torch.Tensor:
    return class_rows(NAMES, CONTEXT, BEGIN, END, prompted)


def images(number: int = 6, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 256, (number, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def sent(teacher: Teacher) -> tuple[TeacherCard, dict]:
    arrays = get_arrays(teacher, [name for name in named_tensors(teacher) if name.startswith("image.")])
    arrays[TEXT_FEATURES] = teacher.text_features(texts()).numpy()
    shapes = {name: value.shape for name, value in arrays.items()}
    sizes = dataclasses.asdict(teacher.image.sizes)
    return TeacherCard(0, CLASSES, 2, float(teacher.logit_scale()), sizes, shapes, digest(arrays)), arrays
