"""CLIP with learned prompts: an image and a text branch whose features meet in one space. The branches are transformers' own.

A class is scored by the cosine of an image's features to those of its text (Eq. 1 of ComKD-CLIP):

    p(y | x) = softmax_y( s u w_y^T ),   u = f_I(x) / |f_I(x)|,   w_y = f_T(t_y) / |f_T(t_y)|

Prompts are learned vectors in both branches: in a text they stand in place of the words before the class name, and start as
these; in an image they are tokens behind the patches.

The teacher is this whole model. A student is an image branch and a projector to the width of the teacher's features, and
scores by the teacher's stored text features (client/comkd.py).

Sizes come from the run config, with weights from scratch, or from a local folder (models/clip_files.py). ``transformers`` is
imported when a model is built, because that takes seconds.

Shapes: B batch, N tokens, P prompts, D channels, F width of the features, C classes.

Sources: CLIP (Radford et al., ICML 2021), section 2; prompts in place of words, CoOp (Zhou et al., IJCV 2022), and in images,
VPT-shallow (Jia et al., ECCV 2022); ComKD-CLIP (Chen, Qiao, Sun & Li, arXiv 2408.04145), whose prompts are those of PromptSRC
(Khattak et al., ICCV 2023), in every block of both branches: here they are in the first alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
"""Of the pixels of CLIP's training images, which its image branch is fed in units of."""
START_SCALE = 2.6592
"""Logarithm of the logit scale at the start, 1 / 0.07 (CLIP, section 2.5)."""
LARGEST_SCALE = 100.0
PROMPT_STD = 0.02


@dataclass(frozen=True)
class Vision:
    """Sizes of an image branch.

    Attributes:
        side: pixels of an image's side; others are resized.
        patch: of a patch's side.
        width: channels D.
        layers: blocks.
        heads: of attention.
        hidden: width of a feed-forward block.
        features: width F of what comes out.
        activation: name of the feed-forward block's.
        prompts: learned tokens P beside the patches.
    """

    side: int
    patch: int
    width: int
    layers: int
    heads: int
    hidden: int
    features: int
    activation: str = "quick_gelu"
    prompts: int = 0

    def config(self) -> Any:
        """Return the same for transformers."""
        from transformers import CLIPVisionConfig

        return CLIPVisionConfig(
            image_size=self.side,
            patch_size=self.patch,
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=self.hidden,
            projection_dim=self.features,
            hidden_act=self.activation,
        )


@dataclass(frozen=True)
class Language:
    """Sizes of a text branch: token ids, the longest text, channels, blocks, heads, features, and the id that ends a text."""

    tokens: int
    positions: int
    width: int
    layers: int
    heads: int
    features: int
    end: int


class PromptedPatches(nn.Module):
    """The embeddings of an image, and P learned tokens behind them: (B,3,S,S) to (B,1+N+P,D)."""

    def __init__(self, embeddings: nn.Module, prompts: int, width: int) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.prompts = nn.Parameter(PROMPT_STD * torch.randn(prompts, width))

    def forward(self, pixel_values: Tensor, **options: Any) -> Tensor:
        """See the class."""
        patches_BND = self.embeddings(pixel_values, **options)
        return torch.cat([patches_BND, self.prompts.expand(len(patches_BND), -1, -1)], dim=1)


class PromptedWords(nn.Module):
    """The embeddings of token ids, where the id -1 - p stands for the learned prompt p: (B,N) to (B,N,D)."""

    def __init__(self, embedding: nn.Module, prompts: int, width: int) -> None:
        super().__init__()
        self.embedding = embedding
        self.prompts = nn.Parameter(PROMPT_STD * torch.randn(prompts, width))

    def forward(self, ids: Tensor) -> Tensor:
        """See the class."""
        words: Tensor = self.embedding(ids.clamp(min=0))
        return torch.where((ids < 0)[..., None], self.prompts[(-1 - ids).clamp(min=0)], words)


class ImageBranch(nn.Module):
    """Images, uint8 (B,3,S,S), to features (B,F).

    Args:
        sizes: of the branch.
        vision: transformers' image model of these sizes; None: a new one.
        projection: its last linear map; None: a new one.
    """

    def __init__(self, sizes: Vision, vision: nn.Module | None = None, projection: nn.Module | None = None) -> None:
        super().__init__()
        self.sizes = sizes
        if vision is None or projection is None:
            from transformers import CLIPVisionModelWithProjection

            whole = CLIPVisionModelWithProjection(sizes.config())
            vision, projection = whole.vision_model, whole.visual_projection
        if sizes.prompts:
            vision.embeddings = PromptedPatches(vision.embeddings, sizes.prompts, sizes.width)  # type: ignore[arg-type]
        self.vision, self.projection = vision, projection

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        features: Tensor = self.projection(self.vision(pixel_values=as_pixels(images, self.sizes.side)).pooler_output)
        return features


class TextBranch(nn.Module):
    """Token ids (B,N), of :func:`text_rows` or :func:`class_rows`, to features (B,F)."""

    def __init__(self, text: nn.Module, projection: nn.Module, prompts: int, width: int) -> None:
        super().__init__()
        embeddings: Any = text.embeddings
        embeddings.token_embedding = PromptedWords(embeddings.token_embedding, prompts, width)
        self.text, self.projection = text, projection

    @property
    def words(self) -> PromptedWords:
        """Where the prompts are."""
        return self.text.embeddings.token_embedding  # type: ignore[union-attr, return-value]

    def forward(self, ids: Tensor) -> Tensor:
        """See the class."""
        features: Tensor = self.projection(self.text(input_ids=ids).pooler_output)
        return features


class Teacher(nn.Module):
    """A CLIP with prompts in both branches; see the module's docstring."""

    def __init__(self, image: ImageBranch, text: TextBranch) -> None:
        super().__init__()
        self.image, self.text = image, text
        self.scale = nn.Parameter(torch.tensor(START_SCALE))

    def logit_scale(self) -> Tensor:
        """What cosines are multiplied by, at most 100."""
        return self.scale.exp().clamp(max=LARGEST_SCALE)

    def image_features(self, images: Tensor) -> Tensor:
        """Images (B,3,S,S) to features (B,F) of norm 1."""
        return F.normalize(self.image(images), dim=-1)

    def text_features(self, texts: Tensor) -> Tensor:
        """The ids of C texts to features (C,F) of norm 1, in the order of the texts."""
        return F.normalize(self.text(texts), dim=-1)

    def logits(self, u_BF: Tensor, w_CF: Tensor) -> Tensor:
        """Return the logits (B,C) of features of norm 1."""
        return self.logit_scale() * u_BF @ w_CF.T

    @torch.no_grad()
    def start_prompts(self, context: Sequence[int]) -> None:
        """Make the text prompts the embeddings of words, by their ids, as many as there are prompts."""
        words = self.text.words
        words.prompts.copy_(words.embedding(torch.tensor(context, device=words.prompts.device)))

    def learn_prompts_alone(self) -> list[nn.Parameter]:
        """Freeze all but the prompts of both branches, and return these."""
        prompts = [parameter for name, parameter in self.named_parameters() if name.endswith(".prompts")]
        for parameter in self.parameters():
            parameter.requires_grad_(any(parameter is one for one in prompts))
        return prompts


def new_teacher(vision: Vision, language: Language, prompts: int) -> Teacher:
    """Return a CLIP from scratch, drawn from the global random state.

    Args:
        vision: sizes of its image branch.
        language: sizes of its text branch.
        prompts: of the text branch.
    """
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=language.tokens,
        max_position_embeddings=language.positions,
        hidden_size=language.width,
        num_hidden_layers=language.layers,
        num_attention_heads=language.heads,
        intermediate_size=4 * language.width,
        projection_dim=language.features,
        eos_token_id=language.end,
        bos_token_id=None,
        pad_token_id=0,
    )
    whole = CLIPTextModelWithProjection(config)
    text = TextBranch(whole.text_model, whole.text_projection, prompts, language.width)
    return Teacher(ImageBranch(vision), text)


def small_vision(side: int, patch: int, width: int, layers: int, heads: int, features: int, prompts: int = 0) -> Vision:
    """Return the sizes of an image branch whose feed-forward blocks are four times as wide as the rest."""
    return Vision(side, patch, width, layers, heads, 4 * width, features, prompts=prompts)


def vision_from(fields: dict[str, Any]) -> Vision:
    """Read sizes that travelled.

    Raises:
        ValueError: a field is missing or unknown, or is no size.
    """
    try:
        found = Vision(**fields)
    except TypeError as error:
        raise ValueError(f"sizes of an image branch: {error}") from None
    numbers = {name: value for name, value in dataclasses.asdict(found).items() if name != "activation"}
    wrong = {name: value for name, value in numbers.items() if type(value) is not int or not 0 <= value <= 16_384}
    if wrong or not all(value for name, value in numbers.items() if name != "prompts"):
        raise ValueError(f"sizes of an image branch are {fields}, expected integers from 1 to 16384")
    if found.activation not in ("quick_gelu", "gelu"):
        raise ValueError(f"found activation {found.activation!r}, expected 'quick_gelu' or 'gelu'")
    return found


def as_pixels(images: Tensor, side: int) -> Tensor:
    """Return images, uint8 (B,3,S,S), as CLIP reads them: ``side`` pixels wide, with mean 0 and deviation 1 a colour."""
    pixels = images.float() / 255
    if pixels.shape[-1] != side:
        pixels = F.interpolate(pixels, size=(side, side), mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = (torch.tensor(values, device=pixels.device).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    return (pixels - mean) / std


def text_rows(texts: Tensor, begin: int, end: int) -> Tensor:
    """Frame texts as CLIP reads them: begin, words, end; 0 behind.

    >>> text_rows(torch.tensor([[7, 8, 0], [9, 0, 0]]), 2, 3)
    tensor([[2, 7, 8, 3, 0],
            [2, 9, 3, 0, 0]])

    Args:
        texts: ids (n,N), 0 = padding on the right.
        begin: id before the first word.
        end: id behind the last word, which the branch reads the text's features at.
    """
    rows = F.pad(texts, (1, 1))
    rows[:, 0] = begin
    rows[torch.arange(len(texts)), 1 + (texts != 0).sum(dim=1)] = end
    return rows


def class_rows(names: Sequence[Sequence[int]], context: Sequence[int], begin: int, end: int, prompted: bool) -> Tensor:
    """Return the text of each class, in their order: the context and its name.

    >>> class_rows([[7], [8, 9]], [4, 5], 2, 3, prompted=True)
    tensor([[ 2, -1, -2,  7,  3,  0],
            [ 2, -1, -2,  8,  9,  3]])

    Args:
        names: ids of the words of each name.
        context: ids of the words before it.
        begin: see :func:`text_rows`.
        end: see there.
        prompted: with the learned prompts in place of the context.
    """
    before = [-1 - place for place in range(len(context))] if prompted else list(context)
    rows = [[begin, *before, *name, end] for name in names]
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [0] * (longest - len(row)) for row in rows])
