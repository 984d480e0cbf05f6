"""The teacher of ComKD-CLIP: a CLIP that one client trains on its labelled images of base classes.

Stage 0, from scratch only: all weights learn from image-text pairs of base classes by CLIP's symmetric contrastive loss, and
from their labels by cross-entropy among the texts "CONTEXT CLASS". It stands for CLIP's pre-training, which needs more than a
client has; with ``clip.pretrained-dir`` it is left out. Stage 1: the prompts alone learn by cross-entropy, the rest is frozen.
Then the features of all class texts are stored, novel classes included, of which nothing but the name was seen.

What leaves the client is the image branch with its prompts and these features; the text branch and all data stay.

Sources: stage 1 is the first of ComKD-CLIP (Chen, Qiao, Sun & Li, arXiv 2408.04145), without the regularisers of PromptSRC;
the contrastive loss is that of CLIP (Radford et al., ICML 2021), figure 3.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from client import training
from client.device import choose_device
from client.learner import cached_client
from client.seeding import seed_for
from client.state import load_state, save_state
from config import RunConfig
from data_partition.augment import drop_words
from data_partition.base_novel import base_classes, base_rows
from data_partition.client_data import ClientData, load_twins
from data_partition.datasets import serving
from data_partition.metrics import class_weights
from data_partition.text import BERT_SPECIAL_TOKENS, encode, unk_id, vocab_size
from data_partition.vocabulary import tokenizer_of
from models.arrays import Arrays, get_arrays, set_arrays
from models.clip import Language, Teacher, class_rows, new_teacher, small_vision, text_rows
from models.clip_files import load_teacher, words_of
from models.groups import named_tensors
from strategies.protocol import Instruction, digest
from strategies.teacher_card import TEXT_FEATURES, TeacherCard

SHIPPED_BEGIN, SHIPPED_END = 2, 3
"""[CLS] and [SEP] of the shipped vocabulary; those of BERT's have other ids."""
BRANCH = "image."
ROUND = 1
"""The one record of the teacher's state."""


@dataclass(frozen=True)
class Speech:
    """How the teacher reads class names.

    Attributes:
        words: turns a text into ids.
        begin: id before the first word.
        end: id behind the last.
        context: ids of ``clip.context``.
    """

    words: Callable[[str], list[int]]
    begin: int
    end: int
    context: list[int]

    def rows(self, classes: tuple[str, ...], prompted: bool) -> Tensor:
        """Return the text of each class, in their order; see :func:`models.clip.class_rows`."""
        names = [self.words(name.replace("-", " ").replace("_", " ")) for name in classes]
        return class_rows(names, self.context, self.begin, self.end, prompted)


def make_speech(config: RunConfig) -> Speech:
    """Return how the teacher of a run reads.

    Raises:
        ClipError: the folder of the pre-trained model has no tokenizer of CLIP.
    """
    if config.clip.pretrained_dir:
        words, begin, end = words_of(config.clip.pretrained_dir)
    else:
        tokenizer = tokenizer_of(config.data)
        words = lambda text: [int(one) for one in encode([text], tokenizer)[0]]  # noqa: E731
        special = BERT_SPECIAL_TOKENS
        begin, end = (special["[CLS]"], special["[SEP]"]) if config.data.vocab_file else (SHIPPED_BEGIN, SHIPPED_END)
    return Speech(words, begin, end, words(config.clip.context))


def make_teacher(config: RunConfig, speech: Speech) -> Teacher:
    """Return the teacher as it is before it learns, with weights that depend on the run's seed alone."""
    settings, prompts = config.clip, len(speech.context)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_for(config.run.seed, -1, 0, "clip-teacher"))
        if settings.pretrained_dir:
            return load_teacher(settings.pretrained_dir, prompts, settings.image_prompts)
        sizes = (settings.width, settings.layers, settings.heads, settings.width)
        longest = config.data.max_tokens + prompts + 2
        return new_teacher(
            small_vision(config.data.image_side, settings.patch_size, *sizes, prompts=settings.image_prompts),
            Language(vocab_size(config.data), longest, *sizes, end=speech.end),
            prompts,
        )


def train(config: RunConfig, told: Instruction, folder: Path) -> dict[str, float]:
    """Train the teacher to its end, save it, and return metrics of the last epoch of its prompts."""
    start = time.monotonic()
    device, settings = choose_device(config.train, config.federation), config.clip
    data = cached_client(config.data, told.partition_id, told.train_fraction)
    speech = make_speech(config)
    teacher = make_teacher(config, speech).to(device)
    class_count = base_classes(len(data.subgroup.classes), settings.novel_share)
    rows = base_rows(data.train.labels, class_count)
    names = data.subgroup.classes[:class_count]
    study = Study(config, data, rows, device)
    steps = 0
    if not settings.pretrained_dir:
        texts, pairs = speech.rows(names, prompted=False).to(device), twins(config, told, data, rows)

        def of_pairs(u_BF: Tensor, chosen: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
            loss = study.classify(teacher, u_BF, texts, labels)
            return loss if pairs is None else loss + study.contrast(teacher, u_BF, pairs[chosen], speech, generator)

        optimizer = training.make_optimizer(teacher, config.train, config.train.learning_rate)
        steps += len(study.epochs(teacher, optimizer, settings.pretrain_epochs, "pairs", of_pairs))
    teacher.start_prompts(speech.context)
    prompts = teacher.learn_prompts_alone()
    prompted = speech.rows(names, prompted=True).to(device)

    def of_labels(u_BF: Tensor, chosen: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return study.classify(teacher, u_BF, prompted, labels)

    group = {"params": prompts, "weight_decay": 0.0, "lr_scale": settings.prompt_rate}
    optimizer = training.new_optimizer(config.train.optimizer, [group], config.train.learning_rate, config.train.momentum)
    losses = study.epochs(teacher, optimizer, settings.prompt_epochs, "prompts", of_labels)
    save_state(folder, told.run_token, ROUND, stored(config, teacher))
    last = losses[-study.per_epoch :]
    return {
        "partition-id": told.partition_id,
        "num-examples": len(rows),
        "loss": sum(last) / len(last) if last else 0.0,
        "steps": steps + len(losses),
        "seconds-training": time.monotonic() - start,
    }


Loss = Callable[[Tensor, Tensor, Tensor, torch.Generator], Tensor]
"""Of image features (B,F), the places of the images among the rows, their labels, and a source of draws."""


class Study:
    """The labelled images that a teacher learns from.

    Args:
        config: settings of the run.
        data: of the client.
        rows: training examples that may be used.
        device: where the teacher is.
    """

    def __init__(self, config: RunConfig, data: ClientData, rows: Tensor, device: torch.device) -> None:
        self.config, self.data, self.rows, self.device = config, data, rows, device
        self.recipe = training.Recipe(config.train, config.data, "image", None)
        self.per_epoch = -(-len(rows) // config.train.batch_size)

    def classify(self, teacher: Teacher, u_BF: Tensor, texts: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of images among the texts of the base classes."""
        weight = None
        if self.config.train.class_weights:
            weight = class_weights(self.data.train.labels[self.rows], len(texts)).to(self.device)
        return F.cross_entropy(teacher.logits(u_BF, teacher.text_features(texts)).float(), labels, weight=weight)

    def contrast(
        self, teacher: Teacher, u_BF: Tensor, texts: Tensor, speech: Speech, generator: torch.Generator
    ) -> Tensor | float:
        """CLIP's loss: each image is to find its text among those of the batch, and each text its image.

        Args:
            teacher: computes the features of the texts.
            u_BF: features of the images.
            texts: word ids (B,N); an image whose text is empty does not count.
            speech: frames the texts.
            generator: of the words that are dropped.
        """
        paired = (texts != 0).any(dim=1)
        words = texts[paired]
        if len(words) < 2:
            return 0.0
        if self.config.data.augment:
            words = drop_words(words, self.config.data.word_dropout, generator, unk_id(self.config.data))
        w_BF = teacher.text_features(text_rows(words, speech.begin, speech.end).to(self.device))
        logits_BB = teacher.logits(u_BF[paired.to(self.device)], w_BF).float()
        own = torch.arange(len(words), device=self.device)
        return (F.cross_entropy(logits_BB, own) + F.cross_entropy(logits_BB.T, own)) / 2

    def epochs(self, teacher: Teacher, optimizer: torch.optim.Optimizer, number: int, purpose: str, loss: Loss) -> list[float]:
        """Train some epochs on the schedule of ``[train]``; return the loss of each step.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        settings, partition = self.config.train, self.data.subgroup.partition_id
        generator = torch.Generator().manual_seed(seed_for(self.config.run.seed, partition, 0, purpose))
        losses: list[float] = []
        teacher.train()
        for _ in range(number):
            for chosen in torch.split(torch.randperm(len(self.rows), generator=generator), settings.batch_size):
                places = self.rows[chosen]
                images = training.augmented(self.data.train.inputs[places], self.recipe, generator).to(self.device)
                labels = self.data.train.labels[places].to(self.device)
                training.set_learning_rate(optimizer, settings, len(losses), number * self.per_epoch)
                with training.autocast(settings.precision, self.device):
                    value = loss(teacher.image_features(images), chosen, labels, generator)
                losses.append(training.finite(value))
                training.descend(value, [optimizer], teacher.parameters(), settings.clip_norm)
        return losses


def twins(config: RunConfig, told: Instruction, data: ClientData, rows: Tensor) -> Tensor | None:
    """Return the texts of some training images, ids (n, max_tokens), empty where one has none; None: there are no texts."""
    if serving(config.data, "image").load_twins is None:
        return None
    places, texts = load_twins(config.data, data.subgroup, told.train_fraction or None)
    found = torch.zeros(len(data.train), texts.shape[1], dtype=texts.dtype)
    found[places] = texts
    return found[rows]


def stored(config: RunConfig, teacher: Teacher) -> Arrays:
    """Return what the client stores of a teacher: all of it, or its prompts where the rest is on its disk already."""
    names = list(named_tensors(teacher))
    return get_arrays(teacher, [name for name in names if name.endswith(".prompts")] if config.clip.pretrained_dir else names)


def trained(config: RunConfig, told: Instruction, folder: Path) -> Teacher:
    """Return the teacher that this client trained in this run, frozen.

    Raises:
        ValueError: it has trained none.
    """
    saved = load_state(folder, told.run_token, ROUND + 1)
    if not saved:
        raise ValueError(f"client {told.partition_id} has trained no teacher in this run: found nothing in {folder}")
    teacher = make_teacher(config, make_speech(config))
    set_arrays(teacher, saved)
    return teacher.requires_grad_(False).eval()


@torch.no_grad()
def publish(config: RunConfig, told: Instruction, folder: Path) -> tuple[TeacherCard, Arrays]:
    """Return what leaves the client: image branch and text features in the type of the wire, and the card of both."""
    teacher = trained(config, told, folder)
    data = cached_client(config.data, told.partition_id, told.train_fraction)
    classes = data.subgroup.classes
    features = teacher.text_features(make_speech(config).rows(classes, prompted=True))
    names = [name for name in named_tensors(teacher) if name.startswith(BRANCH)]
    arrays = get_arrays(teacher, names) | {TEXT_FEATURES: features.numpy()}
    arrays = {name: value.astype(config.strategy.wire_dtype) for name, value in arrays.items()}
    card = TeacherCard(
        told.partition_id,
        classes,
        base_classes(len(classes), config.clip.novel_share),
        float(teacher.logit_scale()),
        dataclasses.asdict(teacher.image.sizes),
        {name: value.shape for name, value in arrays.items()},
        digest(arrays),
    )
    return card, arrays
