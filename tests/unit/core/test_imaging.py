import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ifas.core.errors import ImageRefused
from ifas.core.imaging import ImageLimits, decode


def encoded(image: Image.Image, fmt: str = "PNG", **kwargs) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, fmt, **kwargs)
    return buffer.getvalue()


RED = Image.new("RGB", (50, 50), "red")


def test_round_trip():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    assert (decode(encoded(Image.fromarray(pixels))) == pixels).all()


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encoded(Image.new("RGB", (60, 40)), "JPEG", exif=exif)).shape == (60, 40, 3)


@pytest.mark.parametrize("side", [8000, 14000])
def test_bomb_is_refused_before_decoding(side):
    bomb = encoded(Image.new("1", (side, side)))
    assert len(bomb) < 100_000
    with pytest.raises(ImageRefused, match="pixels"):
        decode(bomb)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "decoded"),
        (b"hello", "decoded"),
        (encoded(Image.effect_noise((99, 99), 50), "JPEG")[:-400], "decoded"),
        (encoded(Image.new("RGB", (50, 50)), "BMP"), "decoded"),
        (encoded(Image.new("RGB", (8, 50))), "smallest side"),
        (encoded(RED, "WEBP", save_all=True, append_images=[Image.new("RGB", (50, 50), "blue")]), "frame"),
    ],
)
def test_refused(data, said):
    with pytest.raises(ImageRefused, match=said):
        decode(data)


def test_byte_limit():
    with pytest.raises(ImageRefused, match="bytes"):
        decode(b"x" * 11, ImageLimits(max_bytes=10))


GOOD = encoded(Image.effect_noise((64, 64), 60), "JPEG")


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=16), st.booleans())
def test_broken_bytes_raise_only_the_documented_error(at, junk, cut):
    data = GOOD[:at] + junk + (b"" if cut else GOOD[at + len(junk) :])
    try:
        assert decode(data).ndim == 3
    except ImageRefused:
        pass
