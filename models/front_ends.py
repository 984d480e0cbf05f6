"""The front end of each modality: raw inputs to tokens with their places. Stays on the client, whatever the model.

Shapes: B batch, N tokens, D channels. A front end is called with raw inputs, and with the frozen module of the model if it has
one, and returns ``(x_BND, mask_BN or None, grid)``.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn

from models.cosine import Grid

Tokens = tuple[Tensor, Tensor | None, Grid]
TextPosition = Literal["learned", "sinusoidal"]

WORD_STD = 0.02
"""Standard deviation of word embeddings and learned positions at the start, as in BERT."""


@lru_cache(maxsize=64)
def fourier_code(grid: Grid, bands: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Fourier position features of a grid, cached: do not write to it.

    sin(pi f x) and cos(pi f x) for each axis, x in [-1, 1], with frequencies f equally spaced from 1 to half the axis length.

    Returns:
        Shape (N, 2 * bands * axes), N in row order.

    Source: Perceiver (Jaegle et al., ICML 2021), section 3.2; without the raw coordinate.
    """
    with torch.inference_mode(False):
        axes = []
        for length in grid:
            frequencies = torch.linspace(1.0, max(length / 2, 1.0), bands, dtype=torch.float64)
            angles = torch.pi * torch.linspace(-1.0, 1.0, length, dtype=torch.float64)[:, None] * frequencies
            axes.append(torch.cat([angles.sin(), angles.cos()], dim=-1))
        index = torch.cartesian_prod(*(torch.arange(length) for length in grid)).view(-1, len(grid))
        code = torch.cat([features[index[:, i]] for i, features in enumerate(axes)], dim=-1)
        return code.to(device=device, dtype=dtype)


@lru_cache(maxsize=64)
def sinusoidal_code(length: int, dim: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Sinusoidal position code of a text, cached: do not write to it.

    Channels 2i and 2i + 1 of place n are s sin(n / 10000^(2i/D)) and s cos(n / 10000^(2i/D)). The paper has s = 1 and
    multiplies word embeddings by sqrt(D). Here words keep their standard deviation of 0.02 and s = 0.02 sqrt(2), so that the
    root mean square of the code, s / sqrt(2), is that of words, and that of the learned code which it replaces.

    Returns:
        Shape (length, D); a row does not depend on the length.

    Source: Vaswani et al. (NeurIPS 2017), section 3.5.
    """
    with torch.inference_mode(False):
        rates = 10_000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
        angles = torch.arange(length, dtype=torch.float64)[:, None] * rates
        waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :dim]
        return (waves * (WORD_STD * math.sqrt(2))).to(device=device, dtype=dtype)


class ImageFrontEnd(nn.Module):
    """Square patches with Fourier position features, through one linear map: 4*4*3 + 12 = 60 features by default."""

    def __init__(self, dim: int, *, patch_size: int = 4, fourier_bands: int = 3, channels: int = 3) -> None:
        super().__init__()
        self.patch_size, self.fourier_bands = patch_size, fourier_bands
        self.patch_features = channels * patch_size**2
        self.embed = nn.Linear(self.patch_features + 4 * fourier_bands, dim)

    def forward(self, inputs: Tensor, frozen: nn.Module | None = None) -> Tokens:
        """Images (B,3,H,W), float in [0, 1] or uint8, to patch tokens (B,N,D) in row order; there is no padding.

        Raises:
            ValueError: height or width is not a multiple of the patch size.
        """
        B, C, H, W = inputs.shape
        P = self.patch_size
        if H % P or W % P:
            raise ValueError(
                f"image of {H} x {W} pixels does not divide into patches of {P} x {P}: resize it or set model.patch-size"
            )
        dtype = self.embed.weight.dtype
        images = inputs.to(dtype) / 127.5 - 1.0 if inputs.dtype == torch.uint8 else inputs.to(dtype) * 2.0 - 1.0
        patches = images.view(B, C, H // P, P, W // P, P).permute(0, 2, 4, 1, 3, 5).reshape(B, -1, self.patch_features)
        # The position part is the same for all images: it is mapped once and added, not concatenated to every patch.
        weight_patch, weight_place = torch.split(self.embed.weight, [self.patch_features, 4 * self.fourier_bands], dim=1)
        grid = (H // P, W // P)
        place_ND = fourier_code(grid, self.fourier_bands, dtype, inputs.device) @ weight_place.T + self.embed.bias
        return patches @ weight_patch.T + place_ND, None, grid


class SeriesFrontEnd(nn.Module):
    """Patches of consecutive samples with Fourier position features, through one linear map."""

    def __init__(self, dim: int, *, channels: int, patch_size: int = 4, fourier_bands: int = 3) -> None:
        super().__init__()
        self.patch_size, self.fourier_bands, self.channels = patch_size, fourier_bands, channels
        self.patch_features = channels * patch_size
        self.embed = nn.Linear(self.patch_features + 2 * fourier_bands, dim)

    def forward(self, inputs: Tensor, frozen: nn.Module | None = None) -> Tokens:
        """Series (B,C,T), z-scored, to patch tokens (B,N,D) in the order of time; there is no padding.

        Raises:
            ValueError: there are other channels than the model was made for, or a series does not divide into patches.
        """
        B, C, T = inputs.shape
        P = self.patch_size
        if self.channels != C or T % P:
            raise ValueError(
                f"series of {C} channels and {T} samples: expected {self.channels} channels, and samples that divide into "
                f"patches of {P}: set data.window or model.series-patch"
            )
        dtype = self.embed.weight.dtype
        patches = inputs.to(dtype).view(B, C, T // P, P).transpose(1, 2).reshape(B, -1, self.patch_features)
        weight_patch, weight_place = torch.split(self.embed.weight, [self.patch_features, 2 * self.fourier_bands], dim=1)
        place_ND = fourier_code((T // P,), self.fourier_bands, dtype, inputs.device) @ weight_place.T + self.embed.bias
        return patches @ weight_patch.T + place_ND, None, (T // P,)


class TextFrontEnd(nn.Module):
    """Word embedding plus a position code; token id 0 is padding.

    Args:
        dim: channels D.
        vocab_size: rows of the word embedding.
        max_tokens: rows of the learned position code; the sinusoidal one takes any length.
        position: ``learned`` or ``sinusoidal``.
    """

    def __init__(self, dim: int, *, vocab_size: int, max_tokens: int, position: TextPosition = "learned") -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab_size, dim, padding_idx=0)
        nn.init.trunc_normal_(self.embed.weight, std=WORD_STD)  # PyTorch's std of 1 drowns what few steps can learn
        self.place = None
        if position == "learned":
            self.place = nn.Parameter(torch.empty(max_tokens, dim))
            nn.init.trunc_normal_(self.place, std=WORD_STD)
        with torch.no_grad():
            self.embed.weight[0] = 0.0

    def forward(self, inputs: Tensor, frozen: nn.Module | None = None) -> Tokens:
        """Token ids (B,N), integers, to tokens (B,N,D) and the mask (B,N) of those that are not padding.

        Raises:
            ValueError: there are more tokens than learned positions.
        """
        N = inputs.shape[1]
        words_BND = self.embed(inputs)
        if self.place is None:
            return words_BND + sinusoidal_code(N, words_BND.shape[2], words_BND.dtype, inputs.device), inputs != 0, (N,)
        if len(self.place) < N:
            raise ValueError(
                f"text of {N} tokens, but the model has {len(self.place)} learned positions: cut it, raise data.max-tokens, "
                "or set model.text-position = 'sinusoidal', which takes any length"
            )
        return words_BND + self.place[:N], inputs != 0, (N,)


class BertFrontEnd(nn.Module):
    """Frozen embeddings of BERT (models/bert_embeddings.py), which have positions of their own, through one trainable map.

    The embeddings are handed in with each call. They are no part of this module, because adapters may leave a client, and they
    never do.
    """

    def __init__(self, dim: int, *, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Linear(hidden, dim)

    def forward(self, inputs: Tensor, frozen: nn.Module | None = None) -> Tokens:
        """Token ids (B,N), integers, to tokens (B,N,D) and the mask (B,N) of those that are not padding.

        Raises:
            ValueError: the model handed in no frozen embeddings.
        """
        if frozen is None:
            raise ValueError("there are no frozen embeddings: the model must call its front end with its module 'frozen'")
        return self.embed(frozen(inputs)), inputs != 0, (inputs.shape[1],)


FrontEnd = ImageFrontEnd | SeriesFrontEnd | TextFrontEnd | BertFrontEnd
