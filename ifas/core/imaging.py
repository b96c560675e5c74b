"""The one place where image bytes from outside become pixels.

Training, evaluation and the served model decode here, so they see the same pixels and refuse the same files.
docs/pictures.md says for each kind of file how it is decoded, or that it is refused.
Pillow and numpy are imported on first use: `ifas.core` itself stays light.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from ifas.core.colour import srgb_transform
from ifas.core.errors import ImageRefused

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image


class ImageLimits(BaseModel):
    """What is decoded at all. A 14000x14000 one-bit PNG is 23 KiB on the wire, so pixels are capped as well."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_bytes: int = Field(default=8 * 2**20, ge=1, le=2**30)
    max_pixels: int = Field(default=40_000_000, ge=1, le=2**31 - 1)
    min_side: int = Field(default=32, ge=1, le=65_536)
    formats: tuple[str, ...] = ("JPEG", "PNG", "WEBP")


def decode(data: bytes, limits: ImageLimits | None = None) -> npt.NDArray[np.uint8]:
    """Decodes one image to uint8 sRGB of shape (H, W, 3), as a viewer shows it on a white page.

    EXIF orientation and an embedded ICC profile are applied, what is transparent is white, of 16 bits the upper 8
    count. The size is read from the header and checked before any pixel is decoded.

    Raises:
        ImageRefused: empty, too many bytes or pixels, a format or kind of pixel that is not accepted, animated, or
            damaged. What `header` refuses is refused.
    """
    import numpy as np

    image = _loaded(data, limits or ImageLimits())
    shown = _turned(_shown(image, data), image)
    return np.asarray(shown if shown.mode == "RGB" else shown.convert("RGB"), dtype=np.uint8)


def glance(data: bytes, limits: ImageLimits | None = None, side: int = 64) -> tuple[npt.NDArray[np.uint8], int, int]:
    """A small grey copy (h, w), not smaller than `side` where the image is not, and the image's width and height.

    What `decode` refuses is refused here: every byte of the file is decompressed. A JPEG is only transformed at the
    scale that is needed, which saves most of the time. Width and height are those of `decode`.

    Raises:
        ImageRefused: as `decode`.
    """
    import numpy as np

    with _opened(data, limits or ImageLimits()) as image:
        width, height = image.size
        profile = image.info.get("icc_profile")
        coloured = image.mode == "RGB" and isinstance(profile, bytes) and srgb_transform(profile, "RGB")
        image.draft("RGB" if coloured else "L", (side, side))
        image.load()
    grey = np.asarray(_turned(_shown(image, data).convert("L"), image), dtype=np.uint8)
    return (grey, *_seen_size(image, width, height))


def header(data: bytes | memoryview, limits: ImageLimits | None = None) -> tuple[int, int]:
    """Width and height that `decode` will give, read without decoding: a file passes whose pixels may still be damaged.

    This checks what `decode` checks before it decodes, and that the file is complete: a JPEG has its end marker (what
    follows it is ignored), a PNG its last chunk, a WebP as many bytes as its header says.

    Raises:
        ImageRefused: as `decode`, but for damage inside the file.
    """
    limits = limits or ImageLimits()
    found = _plain_size(data, limits)
    if found is not None:
        return found
    with _opened(data, limits) as image:
        if image.format == "PNG" and b"exif" in bytes(data).lower():
            image.load()  # a PNG may tell its orientation after its pixels
        return _seen_size(image, *image.size)


def _loaded(data: bytes, limits: ImageLimits) -> Image.Image:
    with _opened(data, limits) as image:
        image.load()
        return image


#: Pixel modes of Pillow that can be shown in 8 bits in several ways. None of the three formats above uses them.
_NOT_SHOWN = {"I": "32-bit integers", "F": "floating-point numbers", "LAB": "CIELAB"}


def _shown(image: Image.Image, data: bytes | memoryview) -> Image.Image:
    """A loaded image as a viewer shows it on a white page: 8 bits, mode L or RGB."""
    from PIL import Image

    colour, alpha = _channels(image, data)
    profile = image.info.get("icc_profile")
    transform = srgb_transform(profile, colour.mode) if isinstance(profile, bytes) else None
    if transform is not None:
        colour = transform.apply(colour)
    elif colour.mode == "CMYK":
        colour = colour.convert("RGB")
    if alpha is None:
        return colour
    page = Image.new(colour.mode, colour.size, "white")
    page.paste(colour, mask=alpha)
    return page


def _channels(image: Image.Image, data: bytes | memoryview) -> tuple[Image.Image, Image.Image | None]:
    """Colour in 8 bits (mode L, RGB or CMYK) and alpha (mode L), of a loaded image."""
    import numpy as np
    from PIL import Image

    mode, alpha = image.mode, None
    if mode == "P" and isinstance(image.info.get("transparency"), int | bytes):
        image = image.convert("RGBA")
    # Otherwise remove it before Pillow converts: it may be text of that name.
    clear = image.info.pop("transparency", None)
    if mode in ("La", "RGBa", "PA"):
        image = image.convert("LA" if mode == "La" else "RGBA")
    elif clear is not None and mode != "P":
        alpha = _keyed_alpha(image, clear, data)
    if image.mode in ("LA", "RGBA"):
        alpha = image.getchannel("A")
    if image.mode == "CMYK":
        return image, alpha
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)), alpha
    if image.mode in ("1", "L", "LA"):
        return image.convert("L"), alpha
    if mode == "RGBA" and image.format == "PNG" and data[25] == _PNG_GREY_ALPHA:
        return image.getchannel("R"), alpha  # Pillow's form of 16-bit grey with alpha
    return image if image.mode == "RGB" else image.convert("RGB"), alpha


def _keyed_alpha(image: Image.Image, clear: Any, data: bytes | memoryview) -> Image.Image | None:
    """Alpha of a PNG that names one grey or colour as transparent (chunk tRNS)."""
    import numpy as np
    from PIL import Image

    levels = clear if isinstance(clear, tuple) else (clear,)
    if not all(isinstance(level, int) for level in levels):
        return None  # a text chunk of that name
    bits = data[24] if image.format == "PNG" else 8
    if bits in (2, 4):  # Pillow widens such samples to 8 bits, but not the level that is to match them
        levels = tuple((level % (1 << bits)) * 255 // ((1 << bits) - 1) for level in levels)
    elif bits == 8:
        levels = tuple(level % 256 for level in levels)
    pixels = np.asarray(image.convert("L") if image.mode == "1" else image)
    pixels = pixels.reshape(image.height, image.width, -1)
    if pixels.shape[-1] != len(levels):
        return None
    return Image.fromarray(np.where((pixels == levels).all(-1), 0, 255).astype(np.uint8))


def _turned(shown: Image.Image, image: Image.Image) -> Image.Image:
    from PIL.Image import Transpose

    turn = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(_orientation(image))
    return shown if turn is None else shown.transpose(turn)


def _seen_size(image: Image.Image, width: int, height: int) -> tuple[int, int]:
    return (height, width) if _orientation(image) >= 5 else (width, height)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8. As in browsers, XMP is ignored and a broken EXIF gives 1; `getexif` would read XMP."""
    from PIL import Image

    block = image.info.get("exif")
    if not isinstance(block, bytes):
        return 1
    exif = Image.Exif()
    try:
        with _without_warnings():
            exif.load(block)
            value = exif.get(0x0112)
    except Exception:  # noqa: BLE001 - Pillow's EXIF parser raises whatever the bytes lead it to
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


_PNG = b"\x89PNG\r\n\x1a\n"
#: Colour type of a PNG that is grey with alpha.
_PNG_GREY_ALPHA = 4
#: Chunks that change neither the size nor whether the file is accepted.
_PNG_PLAIN = frozenset({b"IHDR", b"PLTE", b"IDAT", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"sBIT", b"bKGD", b"tIME"})
#: JPEG markers that begin a frame header: SOF0 to SOF15 without DHT, JPG and DAC.
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
#: Baseline, extended and progressive: the processes that viewers show.
_SHOWN_FRAMES = frozenset({0xC0, 0xC1, 0xC2})


def _plain_size(data: bytes | memoryview, limits: ImageLimits) -> tuple[int, int] | None:
    """Size of a JPEG or PNG whose header says nothing that Pillow has to look at. Raises ImageRefused."""
    _check_bytes(data, limits)
    found = None
    if data[:2] == b"\xff\xd8" and "JPEG" in limits.formats:
        found = _jpeg_header(data)
    elif data[:8] == _PNG and "PNG" in limits.formats:
        found = _png_header(data)
    if found is not None:
        _check_size(*found, limits)
    return found


def _jpeg_header(data: bytes | memoryview) -> tuple[int, int] | None:
    """Width and height of a JPEG (ITU-T T.81, annex B); None where Pillow has to look at it. Raises ImageRefused."""
    at, size, plain = 2, None, True
    while at + 10 <= len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if kind == 0xDA:  # the entropy-coded data begin, where an end marker can't occur by chance
            if data[-2:] != b"\xff\xd9" and b"\xff\xd9" not in bytes(data[at:]):
                raise _truncated()
            return size if plain else None
        if kind in _FRAMES:
            _check_frame(kind, bits=data[at + 4], channels=data[at + 9])
            size = (data[at + 7] << 8 | data[at + 8], data[at + 5] << 8 | data[at + 6])
        elif kind == 0xE1:
            plain = plain and data[at + 4 : at + 8] != b"Exif"
        at += 1 if kind == 0xFF else 2 + (data[at + 2] << 8 | data[at + 3])
    if at + 10 > len(data):
        raise _truncated()
    return None


def _check_frame(kind: int, bits: int, channels: int) -> None:
    if kind not in _SHOWN_FRAMES:
        name = "lossless" if kind == 0xC3 else "arithmetic-coded" if kind > 0xC8 else "hierarchical"
        raise ImageRefused(f"image is a JPEG that viewers do not show ({name})", "save it as a baseline JPEG")
    if bits != 8:
        raise ImageRefused(f"image is a JPEG of {bits} bits per channel", "save it with 8 bits")
    if channels not in (1, 3, 4):
        raise ImageRefused(f"image is a JPEG of {channels} channels", "save it as grey, RGB or CMYK")


def _png_header(data: bytes | memoryview) -> tuple[int, int] | None:
    """Width and height of a PNG (ISO/IEC 15948); None where Pillow has to look at it. Raises ImageRefused."""
    if len(data) >= 16 and data[12:16] != b"IHDR":
        raise ImageRefused("image can't be decoded (a PNG must begin with its header)", "send a whole file")
    at, plain = 8, True
    while at + 12 <= len(data):
        kind = bytes(data[at + 4 : at + 8])
        if kind == b"IEND":
            return (int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")) if plain else None
        plain = plain and kind in _PNG_PLAIN and (at == 8) == (kind == b"IHDR")
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    raise _truncated()


def _truncated() -> ImageRefused:
    return ImageRefused("image can't be decoded (the file is truncated)", "send a whole file")


@contextmanager
def _opened(data: bytes | memoryview, limits: ImageLimits) -> Iterator[Image.Image]:
    """An image whose header was checked, for opening and loading only: whatever Pillow raises becomes ImageRefused."""
    from PIL import Image, UnidentifiedImageError

    expected = _plain_size(data, limits)
    kinds = ", ".join(limits.formats)
    try:
        with _without_warnings(), _open(data, limits.formats) as image:
            _check_size(image.width, image.height, limits)
            _check_kind(image, data)
            if expected not in (None, image.size):
                raise ImageRefused("image can't be decoded (its headers name two sizes)", "save it again")
            yield image
    except (ImageRefused, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise ImageRefused(f"image has too many pixels ({error})", "scale it down first") from error
    except UnidentifiedImageError as error:
        # Pillow's text holds a memory address; records of two runs on the same bytes must be equal.
        raise ImageRefused(f"image can't be decoded (it is none of {kinds})", f"send a whole {kinds} file") from error
    except Exception as error:
        # Pillow's parsers raise whatever the bytes lead them to: struct.error, KeyError, RuntimeError, ...
        raise ImageRefused(f"image can't be decoded ({error})", f"send a whole {kinds} file") from error


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Pillow warns of a broken EXIF, which does not matter, and of many pixels, which our own limit already bounds."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def _open(data: bytes | memoryview, formats: tuple[str, ...]) -> Image.Image:
    from PIL import Image

    if "JPEG" in formats and data[:3] == b"\xff\xd8\xff":
        from PIL.JpegImagePlugin import JpegImageFile

        # `Image.open` would follow the list of further images (MPF) that phones write, and fail where it is broken.
        return JpegImageFile(io.BytesIO(data))
    return Image.open(io.BytesIO(data), formats=formats)


def _check_kind(image: Image.Image, data: bytes | memoryview) -> None:
    if image.format == "WEBP" and len(data) < 8 + int.from_bytes(data[4:8], "little"):
        raise _truncated()
    if getattr(image, "n_frames", 1) != 1:
        raise ImageRefused("image has more than one frame", "send one still image")
    if image.mode in _NOT_SHOWN:
        raise ImageRefused(f"image has pixels of {_NOT_SHOWN[image.mode]} (mode {image.mode})", "save it as 8-bit RGB")
    if image.format == "PNG" and image.mode == "RGB" and data[24] == 16 and "transparency" in image.info:
        # Pillow gives the upper 8 bits, by which the one transparent colour can't be told from its neighbours.
        raise ImageRefused("image is a 16-bit PNG with a transparent colour (tRNS)", "save it with an alpha channel")


def _check_bytes(data: bytes | memoryview, limits: ImageLimits) -> None:
    if len(data) > limits.max_bytes:
        raise ImageRefused(f"image has {len(data)} bytes, the limit is {limits.max_bytes}", "send a smaller file")


def _check_size(width: int, height: int, limits: ImageLimits) -> None:
    if width * height > limits.max_pixels:
        raise ImageRefused(
            f"image has {width}x{height} pixels, the limit is {limits.max_pixels}", "scale it down first"
        )
    if min(width, height) < limits.min_side:
        raise ImageRefused(f"image is {width}x{height}, the smallest side allowed is {limits.min_side}")
