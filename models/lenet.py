"""LeNet-5 for colour images of 32 x 32 pixels, in the form of the Pick-a-back experiments.

    3 --conv 5x5--> 6 maps 28x28 --pool--> 14x14 --conv 5x5--> 16 maps 10x10 --pool--> 5x5 = 400 --> 120 --> 84 --> classes

Unlike the paper, as in the experiments: three input planes, every map of the second convolution sees all six before it, batch
norm after each convolution, plain average pooling, a linear classifier in place of radial basis functions. ReLU in place of
tanh is our choice; what the experiments use could not be read. 60,930 weights at width 1 before the classifier.

``model.width`` applies, ``model.dropout`` does not; see models/convnet.py.

Source: LeNet-5 (LeCun et al., Proceedings of the IEEE 1998), section II.B; Pick-a-back (ECCV 2024).
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from models.convnet import Backbone, convolution, scaled


def make_backbone(width: float = 1.0) -> tuple[Backbone, int]:
    """Return the four blocks of LeNet-5, two of maps and two of features, and the number of the last features.

    Args:
        width: multiplier of parameters; 1.0 is the network of the paper.
    """
    first, second, third, last = (scaled(size, width) for size in (6, 16, 120, 84))
    blocks = (
        nn.Sequential(OrderedDict(layer=convolution(3, first, 5), pool=nn.AvgPool2d(2))),
        nn.Sequential(OrderedDict(layer=convolution(first, second, 5), pool=nn.AvgPool2d(2))),
        nn.Sequential(OrderedDict(flatten=nn.Flatten(), linear=nn.Linear(second * 5 * 5, third), act=nn.ReLU())),
        nn.Sequential(OrderedDict(linear=nn.Linear(third, last), act=nn.ReLU())),
    )
    return Backbone(blocks), last
