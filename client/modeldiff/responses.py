"""A small sketch of a donor by its responses to common probes, which need no data: seeded noise and random words.

Whatever the order of the classes, it knows a relative among models that have learned enough, of images less well than of
texts. A target with few data seldom knows its relatives by it: where client/modeldiff/sketch.py applies, that is better.

Source: decision distance vectors of ModelDiff (Li et al., ISSTA 2021), on other inputs than any client's.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from client.modeldiff.outputs import outputs
from client.modeldiff.probes import Probes, random_pairs
from strategies.selection.sketches import PAIRS, Sketch

PROBES = 256
FIRST_WORD = 5
"""Ids before it are of special tokens in the shipped vocabulary."""
LONGEST = 12


def common_probes(
    modality: str,
    *,
    side: int = 32,
    vocab_size: int = 0,
    max_tokens: int = 0,
    shape: tuple[int, int] = (0, 0),
    seed: int = 0,
) -> Probes:
    """Return inputs that are the same for all clients of a modality, and pairs of them.

    Images are uniform noise, and series, which are z-scored, Gaussian noise. Texts have 3 to 12 words, each as probable as any
    other of the vocabulary. Words by a law of Zipf and smooth random fields were no better.

    Args:
        modality: ``image``, ``text`` or ``series``.
        side: of the images in pixels.
        vocab_size: token ids, padding included; text only.
        max_tokens: longest text; text only.
        shape: channels and samples of a window; series only.
        seed: the same for all clients.

    Raises:
        ValueError: the modality is unknown, or the sizes of texts are too small.
    """
    generator = torch.Generator().manual_seed(seed)
    if modality == "image":
        inputs = torch.rand(PROBES, 3, side, side, generator=generator)
    elif modality == "series" and min(shape) > 0:
        inputs = torch.randn(PROBES, *shape, generator=generator)
    elif modality == "text" and vocab_size > FIRST_WORD and max_tokens >= 3:
        words = torch.randint(FIRST_WORD, vocab_size, (PROBES, max_tokens), generator=generator)
        lengths = torch.randint(3, min(LONGEST, max_tokens) + 1, (PROBES, 1), generator=generator)
        inputs = torch.where(torch.arange(max_tokens) < lengths, words, 0)
    else:
        found = f"{modality!r} with {vocab_size} token ids and {max_tokens} tokens"
        raise ValueError(f"found modality {found}, expected 'image', or 'text' with more than {FIRST_WORD} ids and 2 tokens")
    return Probes(inputs, torch.zeros(PROBES, dtype=torch.long), random_pairs(PROBES, PAIRS, seed))


def response_sketch(model: nn.Module, probes: Probes, device: torch.device) -> Sketch:
    """Return cosine distances of centred features of pairs, float16 (pairs,): 2 KB.

    Args:
        model: the donor's, trained.
        probes: of :func:`common_probes`.
        device: of the model.
    """
    features = outputs(model, probes, device).features
    features = F.normalize(features - features.mean(dim=0), dim=1)
    first, second = features[probes.pairs].unbind(dim=1)
    return np.asarray((1 - (first * second).sum(dim=1)).numpy(), dtype=np.float16)
