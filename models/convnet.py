"""What the convolutional networks have in common: input scaling, a chain of blocks, a linear classifier.

    images --adapter: to [-1, 1]--> --block--> ... --block--> features (B,F), or maps and their mean --linear--> logits

They take images; those of models/wrn.py take series too, which come z-scored and stay as they are.

Backbone: the convolutions and linear maps of all blocks, with their batch norms, running means and variances included. Head:
the classifier. Adapter: nothing is learned there. Images are scaled as for every other model; the mean and deviation of each
task, which CPG takes, would have to be measured on each client, and the batch norm behind the first convolution makes up for
most of them. So ``strategy.share`` = backbone and backbone+adapter are the same.

Of the ``[model]`` settings ``name`` and ``width`` apply, and where it is said ``dropout``.

Shapes: B batch, C channels, F features.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from config import IMAGE_MODEL_SIDE
from models.trace import Trace

SIDE = IMAGE_MODEL_SIDE
"""Side in pixels of the images that networks for images alone are made for."""


def scaled(size: int, width: float) -> int:
    """Return the channels of a layer at a width multiplier, at least 1.

    The multiplier is of parameters, so channels grow by its root, as in CPG (Hung et al., NeurIPS 2019).

    >>> scaled(64, 1.0), scaled(64, 1.5), scaled(64, 0.25), scaled(6, 0.01)
    (64, 78, 32, 1)
    """
    return max(1, int(size * math.sqrt(width)))


def convolution(inputs: int, outputs: int, kernel: int, padding: int = 0) -> nn.Sequential:
    """Return a convolution without bias, batch norm, and ReLU: (B,inputs,H,W) to (B,outputs,H',W').

    The norm does not count its batches: with a fixed momentum nothing reads the number, and an integer cannot be averaged.
    """
    norm = nn.BatchNorm2d(outputs)
    norm.num_batches_tracked = None
    conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=norm, act=nn.ReLU()))


class Adapter(nn.Module):
    """Scales images, and leaves series as they are; without parameters."""

    def forward(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        """Images (B,3,H,W), uint8 or float in [0, 1], to values in [-1, 1]; series (B,C,T) to the same values."""
        if images.ndim == 3:
            return images.to(dtype)
        return images.to(dtype) / 127.5 - 1.0 if images.dtype == torch.uint8 else images.to(dtype) * 2.0 - 1.0


class Backbone(nn.Module):
    """A chain of blocks.

    Args:
        blocks: each takes what the one before it returns: maps (B,C,H,W) or (B,C,T), then features (B,F), if there are any.
    """

    def __init__(self, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)  # of which each result is returned

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images (B,3,H,W) or series (B,C,T) to what each block returns."""
        stages = []
        for block in self.blocks:
            images = block(images)
            stages.append(images)
        return tuple(stages)


class Head(nn.Module):
    """Linear classifier of features, or of the mean of the last maps."""

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(features, num_classes)

    def forward(self, features_BF: Tensor) -> Tensor:
        """Features (B,F) to logits (B, classes)."""
        return self.classifier(features_BF)  # type: ignore[no-any-return]


def pooled(last: Tensor) -> Tensor:
    """Return features (B,F) as they are, and the mean (B,C) of maps (B,C,H,W) or (B,C,T) over their places."""
    return last.flatten(2).mean(dim=2) if last.ndim > 2 else last


class ConvNet(nn.Module):
    """Adapter, backbone and head in one model; see the module's docstring."""

    def __init__(self, adapter: Adapter, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.adapter = adapter
        self.head = head

    def trace(self, inputs: Tensor) -> Trace:
        """Run the model and return what each block returned, the features that are classified and the logits.

        A map (B,C,H,W) is given as H * W rows of C channels, in row order, a map (B,C,T) as T rows; features (B,F) as one row.
        """
        stages = self.backbone(self.adapter(inputs, self.head.classifier.weight.dtype))
        rows = tuple(stage.flatten(2).transpose(1, 2) if stage.ndim > 2 else stage.unsqueeze(1) for stage in stages)
        features = pooled(stages[-1])
        return Trace(rows, features.unsqueeze(1), self.head(features), tuple(tuple(stage.shape[2:]) for stage in stages))

    def forward(self, inputs: Tensor) -> Tensor:
        """Images (B,3,H,W), uint8 or float in [0, 1], or series (B,C,T), to logits (B, classes)."""
        return self.trace(inputs).logits
