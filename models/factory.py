"""Building models from the run config: one line in ``BUILDERS`` for each ``model.name``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import nn

from config import IMAGE_MODELS, WIDE_RESNETS, Model
from models import beit3, bert_embeddings, convnet, lenet, perceiver, perceiver_io, resnet, vgg, wrn
from models.adapters import Adapter
from models.front_ends import BertFrontEnd, FrontEnd, ImageFrontEnd, SeriesFrontEnd, TextFrontEnd
from models.gates import InputBias, make_gate
from models.groups import Group
from models.linceiver import Backbone, Head, LinceiverIO
from models.low_rank import Basis, make_projection


@dataclass(frozen=True)
class Task:
    """What a model is built for: the modality and sizes of one client's data."""

    modality: str
    num_classes: int
    image_size: int
    vocab_size: int
    max_tokens: int
    window: int = 0
    channels: int = 0


@contextmanager
def seeded(seed: int, group: Group, modality: str = "") -> Iterator[None]:
    """Draw initial weights from (seed, group, modality) alone; the global random state is as before afterwards."""
    digest = hashlib.sha256(f"{seed}/{group}/{modality}".encode()).digest()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int.from_bytes(digest[:7], "big"))
        yield


def build_front_end(settings: Model, task: Task) -> FrontEnd:
    """Build the front end of a modality.

    Raises:
        ValueError: the modality is unknown, or the sizes of its data are missing or do not fit the settings.
    """
    if task.modality == "image":
        if task.image_size < 1 or task.image_size % settings.patch_size:
            raise ValueError(
                f"model.patch-size = {settings.patch_size} does not divide the image side of {task.image_size} pixels"
            )
        return ImageFrontEnd(settings.dim, patch_size=settings.patch_size, fourier_bands=settings.fourier_bands)
    if task.modality == "text":
        if task.vocab_size < 2 or task.max_tokens < 1:
            raise ValueError(
                f"a text model needs vocab_size >= 2 and max_tokens >= 1: found {task.vocab_size} and {task.max_tokens}"
            )
        if settings.embedding_dir:
            found = bert_embeddings.inspect(settings.embedding_dir, task.vocab_size, task.max_tokens)
            return BertFrontEnd(settings.dim, hidden=found.hidden)
        return TextFrontEnd(
            settings.dim, vocab_size=task.vocab_size, max_tokens=task.max_tokens, position=settings.text_position
        )
    if task.modality == "series":
        if task.window < 1 or task.channels < 1 or task.window % settings.series_patch:
            raise ValueError(
                f"a model of series needs channels and a window that model.series-patch = {settings.series_patch} divides: "
                f"found {task.channels} channels and a window of {task.window} samples"
            )
        return SeriesFrontEnd(
            settings.dim, channels=task.channels, patch_size=settings.series_patch, fourier_bands=settings.fourier_bands
        )
    raise ValueError(f"modality {task.modality!r} is unknown: expected 'image', 'text' or 'series'")


def build_linceiver(settings: Model, task: Task, seed: int) -> LinceiverIO:
    """Build Linceiver IO."""
    everywhere = settings.stages == "all"
    projection = partial(make_projection, settings.low_rank, settings.rank, sharing=settings.sharing)
    with seeded(seed, Group.BACKBONE):
        latent = partial(projection, length=settings.latents, heads=settings.heads)
        if not everywhere:
            per_layer = None
        elif settings.sharing == "layerwise":
            per_layer = [latent()] * settings.layers
        else:
            per_layer = [latent() for _ in range(settings.layers)]
        backbone = Backbone(
            settings.dim,
            latents=settings.latents,
            layers=settings.layers,
            heads=settings.heads,
            cross_heads=settings.cross_heads,
            projection=Basis(settings.rank, nested=settings.adaptive_k == "prefix") if settings.low_rank == "basis" else None,
            latent_projections=per_layer,
            tie_layers=settings.tie_layers,
            ff_mult=settings.ff_mult,
            feed_forward=settings.feed_forward,
            dropout=settings.dropout,
        )
    with seeded(seed, Group.ADAPTER, task.modality):
        own = settings.low_rank in ("dense", "dense-before", "pool")
        length = settings.dense_length or num_tokens(settings, task)
        adapter = Adapter(
            build_front_end(settings, task),
            settings.dim,
            settings.dim,
            projection(length=length, heads=settings.cross_heads) if own else None,
            make_gate(settings.adaptive_k, settings.rank, settings.k_ramp),
            InputBias(settings.dim, settings.rank) if settings.k_input_bias else None,
        )
    with seeded(seed, Group.HEAD, task.modality):
        head = Head(
            settings.dim,
            task.num_classes,
            cross_heads=settings.cross_heads,
            projection=projection(length=settings.latents, heads=settings.cross_heads) if everywhere else None,
            final_norm=True,
        )
    return LinceiverIO(adapter, backbone, head)


def num_tokens(settings: Model, task: Task) -> int:
    """Return the longest input N of a task in tokens."""
    if task.modality == "series":
        return task.window // settings.series_patch
    return (task.image_size // settings.patch_size) ** 2 if task.modality == "image" else task.max_tokens


def build_perceiver_io(settings: Model, task: Task, seed: int) -> perceiver_io.PerceiverIO:
    """Build Perceiver IO."""
    with seeded(seed, Group.BACKBONE):
        backbone = perceiver_io.Backbone(
            settings.dim,
            latents=settings.latents,
            layers=settings.layers,
            tied=settings.tie_layers,
            heads=settings.heads,
            cross_heads=settings.cross_heads,
        )
    with seeded(seed, Group.ADAPTER, task.modality):
        adapter = Adapter(build_front_end(settings, task), settings.dim, settings.dim)
    with seeded(seed, Group.HEAD, task.modality):
        head = perceiver_io.Head(settings.dim, task.num_classes, cross_heads=settings.cross_heads)
    return perceiver_io.PerceiverIO(adapter, backbone, head)


def build_perceiver(settings: Model, task: Task, seed: int) -> perceiver.Perceiver:
    """Build Perceiver."""
    with seeded(seed, Group.BACKBONE):
        backbone = perceiver.Backbone(
            settings.dim,
            latents=settings.latents,
            layers=settings.layers,
            tied=settings.tie_layers,
            heads=settings.heads,
            cross_heads=settings.cross_heads,
            dropout=settings.dropout,
        )
    with seeded(seed, Group.ADAPTER, task.modality):
        front = build_front_end(settings, task)
        adapter = perceiver.Adapter(front, settings.dim, settings.dim, readings=len(backbone.layers))
    with seeded(seed, Group.HEAD, task.modality):
        head = perceiver.Head(settings.dim, task.num_classes)
    return perceiver.Perceiver(adapter, backbone, head)


def build_beit3(settings: Model, task: Task, seed: int) -> beit3.BEiT3:
    """Build BEiT-3."""
    with seeded(seed, Group.BACKBONE):
        backbone = beit3.Backbone(
            settings.dim, layers=settings.layers, tied=settings.tie_layers, heads=settings.heads, dropout=settings.dropout
        )
    with seeded(seed, Group.ADAPTER, task.modality):
        adapter = beit3.Adapter(
            build_front_end(settings, task),
            settings.dim,
            experts=len(backbone.layers),
            ff_mult=settings.ff_mult,
            feed_forward=settings.feed_forward,
            dropout=settings.dropout,
        )
    with seeded(seed, Group.HEAD, task.modality):
        head = beit3.Head(settings.dim, task.num_classes)
    return beit3.BEiT3(adapter, backbone, head)


def build_lenet(settings: Model, task: Task, seed: int) -> convnet.ConvNet:
    """Build LeNet-5."""
    with seeded(seed, Group.BACKBONE):
        backbone, features = lenet.make_backbone(settings.width)
    return with_classifier(backbone, features, task, seed)


def build_vgg(settings: Model, task: Task, seed: int) -> convnet.ConvNet:
    """Build VGG16 with batch norm."""
    with seeded(seed, Group.BACKBONE):
        backbone, features = vgg.make_backbone(settings.width, settings.dropout)
    return with_classifier(backbone, features, task, seed)


def build_resnet(settings: Model, task: Task, seed: int) -> convnet.ConvNet:
    """Build ResNet-18."""
    with seeded(seed, Group.BACKBONE):
        backbone, features = resnet.make_backbone(settings.width)
    return with_classifier(backbone, features, task, seed)


def build_wrn(settings: Model, task: Task, seed: int) -> convnet.ConvNet:
    """Build a wide residual network.

    Raises:
        ValueError: the data are texts, or series of no channels.
    """
    dims, channels = {"image": (2, 3), "series": (1, task.channels)}.get(task.modality, (0, 0))
    if channels < 1:
        found = f"{task.channels} channels" if task.modality == "series" else repr(task.modality)
        raise ValueError(f"model.name = '{settings.name}' takes images or series: found {found}")
    with seeded(seed, Group.BACKBONE):
        backbone, features = wrn.make_backbone(settings.name, dims, channels, settings.width, settings.dropout)
    return with_classifier(backbone, features, task, seed)


def with_classifier(backbone: convnet.Backbone, features: int, task: Task, seed: int) -> convnet.ConvNet:
    """Complete a convolutional network."""
    with seeded(seed, Group.HEAD, task.modality):
        head = convnet.Head(features, task.num_classes)
    return convnet.ConvNet(convnet.Adapter(), backbone, head)


class Builder(Protocol):
    """Makes a model with initial weights that depend on (seed, modality, group) alone."""

    def __call__(self, settings: Model, task: Task, seed: int) -> nn.Module: ...


BUILDERS: dict[str, Builder] = {
    "linceiver-io": build_linceiver,
    "perceiver-io": build_perceiver_io,
    "perceiver": build_perceiver,
    "beit3": build_beit3,
    "lenet5": build_lenet,
    "vgg16-bn": build_vgg,
    "resnet18": build_resnet,
    **dict.fromkeys(WIDE_RESNETS, build_wrn),
}


def build_model(
    settings: Model,
    modality: str,
    num_classes: int,
    *,
    image_size: int = 32,
    vocab_size: int = 0,
    max_tokens: int = 0,
    window: int = 0,
    channels: int = 0,
    seed: int,
) -> nn.Module:
    """Build one client's model.

    Initial weights depend only on (seed, modality, group): clients of one seed have equal backbones whatever their modality,
    and clients of one modality have equal adapters and heads where shapes agree. With ``model.embedding-dir`` a text model
    also has a module ``frozen``, which it hands to its front end.

    Args:
        settings: the ``[model]`` section of the run config.
        modality: ``image``, ``text`` or ``series``.
        num_classes: width of the logits.
        image_size: side of the images in pixels.
        vocab_size: token ids, padding included; text only.
        max_tokens: longest text; text only.
        window: samples of a series; series only.
        channels: of a series; series only.
        seed: seed of the initial weights.

    Raises:
        ValueError: the settings do not fit the data.
    """
    task = Task(modality, num_classes, image_size, vocab_size, max_tokens, window, channels)
    if settings.name in IMAGE_MODELS and (modality, image_size) != ("image", convnet.SIDE):
        found = f"images of {image_size} pixels" if modality == "image" else f"modality {modality!r}"
        raise ValueError(
            f"model.name = '{settings.name}' takes images of {convnet.SIDE} x {convnet.SIDE} pixels: found {found}"
        )
    model = BUILDERS[settings.name](settings, task, seed)
    if modality == "text" and settings.embedding_dir:
        model.frozen = bert_embeddings.load(settings.embedding_dir, vocab_size, max_tokens)
    return model
