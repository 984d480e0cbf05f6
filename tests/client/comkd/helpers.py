"""A small teacher, and what it sends."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers

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


def write_clip(root: Path) -> Path:
    """Write a CLIP as ``save_pretrained`` does, with a tokenizer of five words."""
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    vocabulary = {"[UNK]": 0, "a": 1, "cat": 2, "<|startoftext|>": 3, "<|endoftext|>": 4}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(root / "tokenizer.json"))
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = CLIPTextConfig(vocab_size=5, max_position_embeddings=8, bos_token_id=3, eos_token_id=4, pad_token_id=4, **sizes)
    vision = CLIPVisionConfig(image_size=16, patch_size=8, **sizes)
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=6)
    CLIPModel(config).save_pretrained(root)
    return root
