"""Wide residual networks for images and for time series: WRN-16-1, 16-3, 16-8, 28-1 and 28-3.

    inputs --conv 3--> 16 --> n blocks of 16k maps | n blocks of 32k, half the length | n blocks of 64k, a quarter | --mean-->
    --linear--> classes

WRN-d-k has d = 6 n + 4 convolutions and k times the maps of the thin network. A block is, before its sum with what came in,

    norm --> ReLU --> conv 3 --> norm --> ReLU --> dropout --> conv 3

and where the number of maps or the length changes, what came in is norm --> ReLU --> conv 1. A last norm and ReLU stand before
the mean. Images have kernels of 3 x 3; series have kernels of 3 along time and their channels are those of the sensor, as in
the distillation of wearables by Jeon et al. (IEEE Internet of Things Journal 2022). With 10 classes of images WRN-16-1 has
175,066 parameters.

The three stages of a :class:`models.trace.Trace` are the maps after each third of the blocks, the last one with its norm and
ReLU, so that its mean is what the classifier reads.

``model.width`` (a multiplier of parameters, besides k) and ``model.dropout`` apply; the paper has dropout 0 but for SVHN.
Convolutions are drawn by He et al. (ICCV 2015), fan out. See models/convnet.py for the rest.

Source: Zagoruyko & Komodakis, Wide Residual Networks (BMVC 2016), table 1 and figure 1 (d).
"""

from __future__ import annotations

import re
from collections import OrderedDict

from torch import Tensor, nn

from models.convnet import Backbone, scaled

MAPS = (16, 32, 64)
"""Maps of the three stages at k = 1; the first convolution has the 16 whatever k is."""
STRIDES = (1, 2, 2)


def depth_and_widening(name: str) -> tuple[int, int]:
    """Return d and k of a name.

    >>> depth_and_widening("wrn-16-3")
    (16, 3)

    Raises:
        ValueError: the name is of another form, or d is not 6 n + 4.
    """
    found = re.fullmatch(r"wrn-(\d+)-(\d+)", name)
    depth, widening = (int(found[1]), int(found[2])) if found else (0, 0)
    if depth < 10 or (depth - 4) % 6 or widening < 1:
        raise ValueError(f"model name {name!r}: expected wrn-d-k with d = 10, 16, 22, 28, ... and k of 1 or more")
    return depth, widening


def convolution(dims: int, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv1d | nn.Conv2d:
    """Return a convolution without bias, drawn by fan out, that keeps the length but for its stride.

    Args:
        dims: 1 for series, 2 for images.
        inputs: maps.
        outputs: maps.
        kernel: odd.
        stride: along each axis.
    """
    kind = nn.Conv1d if dims == 1 else nn.Conv2d
    layer = kind(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def batch_norm(dims: int, maps: int) -> nn.BatchNorm1d | nn.BatchNorm2d:
    """Return a batch norm that does not count its batches: an integer could not be averaged."""
    norm = nn.BatchNorm1d(maps) if dims == 1 else nn.BatchNorm2d(maps)
    norm.num_batches_tracked = None
    return norm


class Block(nn.Module):
    """One residual block: maps (B,inputs,...) to (B,outputs,...), of a length divided by the stride.

    ``inner`` is a chain, so that its maps can grow (client/continual/seams.py); the residual stream keeps its width.
    """

    def __init__(self, dims: int, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm = batch_norm(dims, inputs)
        self.act = nn.ReLU()
        self.inner = nn.Sequential(
            OrderedDict(
                conv0=convolution(dims, inputs, outputs, stride=stride),
                norm=batch_norm(dims, outputs),
                act=nn.ReLU(),
                dropout=nn.Dropout(dropout),
                conv1=convolution(dims, outputs, outputs),
            )
        )
        same = inputs == outputs and stride == 1
        self.shortcut = None if same else convolution(dims, inputs, outputs, 1, stride)

    def forward(self, maps: Tensor) -> Tensor:
        active = self.act(self.norm(maps))
        return self.inner(active) + (maps if self.shortcut is None else self.shortcut(active))  # type: ignore[no-any-return]


def make_backbone(name: str, dims: int, channels: int, width: float = 1.0, dropout: float = 0.0) -> tuple[Backbone, int]:
    """Return the three stages of WRN-d-k and the number of the last maps.

    Args:
        name: ``wrn-d-k``.
        dims: 1 for series (B,channels,T), 2 for images (B,channels,H,W).
        channels: of the inputs.
        width: multiplier of parameters; 1.0 is the network of the paper.
        dropout: between the two convolutions of a block.

    Raises:
        ValueError: the name is no such network.
    """
    depth, widening = depth_and_widening(name)
    before = scaled(MAPS[0], width)
    stem = convolution(dims, channels, before)
    stages: list[nn.Module] = []
    for number, (maps, stride) in enumerate(zip(MAPS, STRIDES, strict=True)):
        layers: OrderedDict[str, nn.Module] = OrderedDict() if number else OrderedDict(stem=stem)
        outputs = scaled(maps * widening, width)
        for i in range((depth - 4) // 6):
            layers[f"block{i}"] = Block(dims, before, outputs, 1 if i else stride, dropout)
            before = outputs
        stages.append(nn.Sequential(layers))
    stages[-1].add_module("norm", batch_norm(dims, before))
    stages[-1].add_module("act", nn.ReLU())
    return Backbone(stages), before
