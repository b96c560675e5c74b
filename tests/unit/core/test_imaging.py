import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ifas.core.errors import ImageRefused
from ifas.core.imaging import ImageLimits, decode, header


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


@settings(max_examples=150)
@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=16), st.booleans())
def test_broken_bytes_raise_only_the_documented_error(at, junk, cut):
    data = GOOD[:at] + junk + (b"" if cut else GOOD[at + len(junk) :])
    try:
        assert decode(data).ndim == 3
    except ImageRefused:
        pass


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


GREY, COLOUR = Image.effect_noise((70, 40), 60), Image.effect_noise((70, 40), 60).convert("RGB")
WHOLE = {
    "baseline": encoded(COLOUR, "JPEG"),
    "progressive": encoded(COLOUR, "JPEG", progressive=True),
    "grey": encoded(GREY, "JPEG"),
    "profile and comment": encoded(COLOUR, "JPEG", icc_profile=b"p" * 70_000, comment=b"\xff\xd9"),
    "turned JPEG": encoded(COLOUR, "JPEG", exif=turned(6)),
    "mirrored JPEG": encoded(COLOUR, "JPEG", exif=turned(2)),
    "padded JPEG": encoded(COLOUR, "JPEG") + bytes(37),
    "PNG": encoded(COLOUR),
    "one-bit PNG": encoded(GREY.convert("1")),
    "turned PNG": encoded(COLOUR, exif=turned(8)),
    "lossy WebP": encoded(COLOUR, "WEBP"),
    "lossless WebP": encoded(COLOUR, "WEBP", lossless=True),
    "turned WebP": encoded(COLOUR, "WEBP", exif=turned(5)),
}


@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE)
def test_the_header_says_the_size_that_decoding_gives(data: bytes) -> None:
    assert header(data) == decode(data).shape[1::-1]


@pytest.mark.parametrize("name", [name for name in WHOLE if "padded" not in name])
def test_a_file_that_ends_early_is_refused_without_decoding(name: str) -> None:
    data = WHOLE[name]
    for missing in (2, 8, len(data) // 3, len(data) - 30, len(data) - 3):
        with pytest.raises(ImageRefused):
            header(data[:-missing])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "decoded"),
        (encoded(RED, "BMP"), "none of"),
        (encoded(Image.new("RGB", (8, 50))), "smallest side"),
        (encoded(Image.new("1", (8000, 8000))), "8000x8000 pixels"),
        (encoded(RED, "WEBP", save_all=True, append_images=[Image.new("RGB", (50, 50), "blue")]), "frame"),
        (encoded(RED, "PNG", save_all=True, append_images=[Image.new("RGB", (50, 50), "blue")]), "frame"),
    ],
)
def test_the_header_refuses_what_decoding_refuses(data: bytes, said: str) -> None:
    for check in (header, decode):
        with pytest.raises(ImageRefused, match=said):
            check(data)


def test_formats_that_are_not_accepted_are_refused_by_the_header() -> None:
    for kind in ("JPEG", "PNG"):
        with pytest.raises(ImageRefused, match="none of WEBP"):
            header(encoded(RED, kind), ImageLimits(formats=("WEBP",)))


@settings(max_examples=300)
@given(st.sampled_from(sorted(WHOLE)), st.data())
def test_any_header_ends_in_a_size_or_the_documented_error(name: str, data: st.DataObject) -> None:
    whole = WHOLE[name]
    at = data.draw(st.integers(0, len(whole) - 1))
    junk = data.draw(st.binary(max_size=8))
    try:
        width, height = header(whole[:at] + junk + whole[at + len(junk) :])
        assert min(width, height) >= 32
    except ImageRefused:
        pass
