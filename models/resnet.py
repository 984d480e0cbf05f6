"""ResNet-18 for images of 32 x 32 pixels.

    3 --conv 3x3--> 64 | 64 64 | 128 128, 16x16 | 256 256, 8x8 | 512 512, 4x4 | --mean--> 512 --> classes

Numbers are the maps of a block, which is conv 3x3, norm, ReLU, conv 3x3, norm, the sum with what came in, and ReLU; where maps
or side change, what came in is conv 1x1 and norm. As is usual for small images, and unlike the paper's form for 224 pixels,
the first convolution is 3 x 3 with stride 1 and no pooling follows. 11,173,962 parameters with 10 classes.

The stages of a trace are the maps after each of the four pairs of blocks. ``model.width`` applies, ``model.dropout`` does not;
convolutions are drawn by He et al. (ICCV 2015), fan out. See models/convnet.py for the rest.

Source: He et al., Deep Residual Learning for Image Recognition (CVPR 2016), table 1, and section 4.2 for CIFAR.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from models.convnet import Backbone, scaled
from models.wrn import batch_norm, convolution

MAPS = (64, 128, 256, 512)
STRIDES = (1, 2, 2, 2)
BLOCKS = 2
"""Blocks of a stage."""


class Block(nn.Module):
    """One residual block: maps (B,inputs,H,W) to (B,outputs,H',W'), of a side divided by the stride."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            OrderedDict(
                conv0=convolution(2, inputs, outputs, stride=stride),
                norm0=batch_norm(2, outputs),
                act=nn.ReLU(),
                conv1=convolution(2, outputs, outputs),
                norm1=batch_norm(2, outputs),
            )
        )
        self.act = nn.ReLU()
        self.shortcut: nn.Module | None = None
        if stride > 1 or inputs != outputs:
            conv = convolution(2, inputs, outputs, 1, stride)
            self.shortcut = nn.Sequential(OrderedDict(conv=conv, norm=batch_norm(2, outputs)))

    def forward(self, maps: Tensor) -> Tensor:
        return self.act(self.inner(maps) + (maps if self.shortcut is None else self.shortcut(maps)))  # type: ignore[no-any-return]


def make_backbone(width: float = 1.0) -> tuple[Backbone, int]:
    """Return the four stages of ResNet-18 and the number of the last maps.

    Args:
        width: multiplier of parameters; 1.0 is the network of the paper.
    """
    before = scaled(MAPS[0], width)
    stem = OrderedDict(stem=convolution(2, 3, before), norm=batch_norm(2, before), act=nn.ReLU())
    stages: list[nn.Module] = []
    for number, (maps, stride) in enumerate(zip(MAPS, STRIDES, strict=True)):
        layers: OrderedDict[str, nn.Module] = OrderedDict() if number else OrderedDict(stem)
        outputs = scaled(maps, width)
        for i in range(BLOCKS):
            layers[f"block{i}"] = Block(before, outputs, 1 if i else stride)
            before = outputs
        stages.append(nn.Sequential(layers))
    return Backbone(stages), before
