"""Decoding one image to pixels."""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


class BadPictureError(ValueError):
    """An image that cannot be decoded; the message says why."""


def decode(content: bytes, side: int) -> Pixels:
    """Return the pixels of an image file, uint8 (3, side, side).

    Any mode becomes RGB: grey-scale, palette and CMYK too. The image is scaled to a square with bilinear filtering, whatever
    its proportions; a turn in its EXIF data is left alone, as most readers of these data sets do.

    Raises:
        BadPictureError: the content is no image, or it is cut short or damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged EXIF data, which are not read
            with Image.open(io.BytesIO(content)) as image:
                image.draft(None, (side, side))  # JPEG: decode at a fraction of the size where that is enough
                return _square(image.convert("RGB"), side)
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise BadPictureError(f"{len(content)} bytes that are no whole image: {error}") from None


def scale(pixels: Pixels, side: int) -> Pixels:
    """Return decoded pixels (3, height, width) at another size, uint8 (3, side, side)."""
    if pixels.shape[1:] == (side, side):
        return pixels
    return _square(Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))), side)


def _square(image: Image.Image, side: int) -> Pixels:
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
