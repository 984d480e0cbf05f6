"""VGG16 with batch norm for images of 32 x 32 pixels, in the form of CPG's experiments on CIFAR-100.

    64 64 | 128 128 | 256 256 256 | 512 512 512 | 512 512 512 | --> 4096 --> 4096 --> classes

Numbers are maps after a convolution 3x3 without bias, batch norm and ReLU; a bar is max-pooling, which halves the side, so
that 512 features of 1 x 1 are left. Against the paper the first linear map has 512 inputs in place of 25,088, as images are
32 pixels wide and not 224. 33.6 million weights at width 1.

Initial weights: convolutions by He et al. (ICCV 2015), fan out, as in CPG; linear maps too, whereas CPG draws them with a
deviation of 0.01, in which the signal of a narrow network is lost.

``model.width`` applies, and ``model.dropout`` after each of the two hidden linear maps (the paper has 0.5, CPG's form, as far
as known, none: 0); see models/convnet.py for the rest.

Source: VGG (Simonyan & Zisserman, ICLR 2015), configuration D; batch norm (Ioffe & Szegedy, ICML 2015); CPG (Hung et al.,
NeurIPS 2019).
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from models.convnet import Backbone, convolution, scaled

MAPS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Maps after each convolution of each block; max-pooling ends a block."""
HIDDEN = 4096


def make_backbone(width: float = 1.0, dropout: float = 0.0) -> tuple[Backbone, int]:
    """Return the seven blocks of VGG16, five of maps and two of features, and the number of the last features.

    Args:
        width: multiplier of parameters; 1.0 is the network of the paper.
        dropout: after each linear map.
    """
    blocks: list[nn.Module] = []
    before = 3
    for sizes in MAPS:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i, size in enumerate(sizes):
            layers[f"layer{i}"] = convolution(before, scaled(size, width), 3, padding=1)
            before = scaled(size, width)
        layers["pool"] = nn.MaxPool2d(2)
        blocks.append(nn.Sequential(layers))
    hidden = scaled(HIDDEN, width)
    for inputs in (before, hidden):
        linear = nn.Linear(inputs, hidden)
        blocks.append(
            nn.Sequential(OrderedDict(flatten=nn.Flatten(), linear=linear, act=nn.ReLU(), dropout=nn.Dropout(dropout)))
        )
    backbone = Backbone(blocks)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return backbone, hidden
