"""Any image file becomes a square of RGB, and what is no whole image is refused."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from data_partition.pictures import BadPictureError, decode, scale
from tests.data_partition.trees import example


def encoded(image: Image.Image, kind: str = "JPEG", **settings) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def drawing() -> Image.Image:
    return Image.fromarray(example(0, 0).pixels).resize((96, 96))


def distance(found: np.ndarray, wanted: Image.Image) -> float:
    expected = np.asarray(wanted.convert("RGB").resize((32, 32), Image.Resampling.BOX)).transpose(2, 0, 1)
    return float(np.abs(found.astype(int) - expected.astype(int)).mean())


@pytest.mark.parametrize(
    ("mode", "kind"), [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "PNG"), ("P", "PNG"), ("1", "PNG")]
)
def test_modes(mode, kind):
    image = drawing().convert(mode)
    found = decode(encoded(image, kind), 32)
    assert (found.shape, found.dtype, found.flags.c_contiguous) == ((3, 32, 32), np.uint8, True)
    assert distance(found, image) < 12
    if mode == "L":
        assert (found[0] == found[1]).all()


def test_an_oblong_is_squeezed_and_a_turn_left_alone():
    wide = Image.new("RGB", (200, 50), "red")
    wide.paste("blue", (100, 0, 200, 50))
    exif = Image.Exif()
    exif[0x0112] = 6
    found = decode(encoded(wide, exif=exif.tobytes()), 16)
    assert (found[0, :, :7] > 200).all()
    assert (found[2, :, 9:] > 200).all()


@pytest.mark.parametrize("keep", [0.66, 0.05, 0.0])
def test_truncated(keep):
    content = encoded(drawing())
    with pytest.raises(BadPictureError, match="no whole image"):
        decode(content[: int(len(content) * keep)], 32)


@pytest.mark.parametrize(
    "content", [b"<html>not found</html>", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, b"\xff\xd8\xff\xe0" + b"\0" * 40]
)
def test_no_image(content):
    with pytest.raises(BadPictureError, match=f"{len(content)} bytes"):
        decode(content, 32)


def test_pixels_are_scaled():
    pixels = np.asarray(drawing()).transpose(2, 0, 1)
    assert scale(pixels, 96) is pixels
    assert distance(scale(pixels, 32), drawing()) < 12
