"""The one place where image bytes from outside become pixels.

Training, evaluation and the served model decode here, so they see the same pixels and refuse the same files.
Pillow and numpy are imported on first use: `ifas.core` itself stays light.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from ifas.core.errors import ImageRefused

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image


class ImageLimits(BaseModel):
    """What is decoded at all. A 14000x14000 one-bit PNG is 23 KiB on the wire, so pixels are capped as well."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_bytes: int = 8 * 2**20
    max_pixels: int = 40_000_000
    min_side: int = 32
    formats: tuple[str, ...] = ("JPEG", "PNG", "WEBP")


def decode(data: bytes, limits: ImageLimits | None = None) -> npt.NDArray[np.uint8]:
    """Decodes one image to uint8 RGB of shape (H, W, 3), EXIF orientation applied.

    The size is read from the header and checked before any pixel is decoded.

    Raises:
        ImageRefused: empty, too many bytes or pixels, a format that is not accepted, animated, or truncated.
    """
    import numpy as np
    from PIL import ImageOps

    with _opened(data, limits or ImageLimits()) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"), dtype=np.uint8)


def glance(data: bytes, limits: ImageLimits | None = None, side: int = 64) -> tuple[npt.NDArray[np.uint8], int, int]:
    """A small grey copy (h, w), not smaller than `side` where the image is not, and the image's width and height.

    What `decode` refuses is refused here: every byte of the file is decompressed. A JPEG is only transformed at the
    scale that is needed, which saves most of the time. Width and height are those of `decode`.

    Raises:
        ImageRefused: as `decode`.
    """
    import numpy as np
    from PIL import ImageOps

    with _opened(data, limits or ImageLimits()) as image:
        width, height = image.size
        turned = image.getexif().get(_ORIENTATION, 1) >= 5
        image.draft("L", (side, side))
        grey = np.asarray(ImageOps.exif_transpose(image).convert("L"), dtype=np.uint8)
    return (grey, height, width) if turned else (grey, width, height)


def header(data: bytes | memoryview, limits: ImageLimits | None = None) -> tuple[int, int]:
    """Width and height that `decode` will give, read without decoding: a file passes whose pixels may still be damaged.

    Checked are what `decode` checks before it decodes, and that the file is whole: a JPEG has its end marker (what
    follows it is not looked at), a PNG its last chunk, a WebP as many bytes as it says.

    Raises:
        ImageRefused: as `decode`, but for damage inside the file.
    """
    limits = limits or ImageLimits()
    _check_bytes(data, limits)
    found = None
    if data[:2] == b"\xff\xd8" and "JPEG" in limits.formats:
        found = _jpeg_header(data)
    elif data[:8] == _PNG and "PNG" in limits.formats:
        found = _png_header(data)
    if found is None:
        return _pillow_header(data, limits)
    _check_size(*found, limits)
    return found


def _pillow_header(data: bytes | memoryview, limits: ImageLimits) -> tuple[int, int]:
    """`header` by Pillow, which knows of orientation, frames and every other thing that a header may say."""
    with _opened(data, limits) as image:
        if image.format == "WEBP" and len(data) < 8 + int.from_bytes(data[4:8], "little"):
            raise _truncated()
        width, height = image.size
        return (height, width) if image.getexif().get(_ORIENTATION, 1) >= 5 else (width, height)


#: EXIF tag; values from 5 on swap width and height.
_ORIENTATION = 0x0112

_PNG = b"\x89PNG\r\n\x1a\n"
#: JPEG markers that begin a frame header: SOF0 to SOF15 without DHT, JPG and DAC.
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
#: What application segments begin with that may turn the picture or hold further ones.
_TURNING = (b"Exif", b"MPF\0")


def _jpeg_header(data: bytes | memoryview) -> tuple[int, int] | None:
    """Width and height of a JPEG (ITU-T T.81, annex B); None where Pillow has to look at it. Raises ImageRefused."""
    at, size, plain = 2, None, True
    while at + 9 <= len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if kind == 0xDA:  # the entropy-coded data begin, where an end marker can't occur by chance
            if data[-2:] != b"\xff\xd9" and b"\xff\xd9" not in bytes(data[at:]):
                raise _truncated()
            return size if plain else None
        if kind in _FRAMES:
            size = (data[at + 7] << 8 | data[at + 8], data[at + 5] << 8 | data[at + 6])
        elif kind in (0xE1, 0xE2):
            plain = plain and data[at + 4 : at + 8] not in _TURNING
        at += 1 if kind == 0xFF else 2 + (data[at + 2] << 8 | data[at + 3])
    if at + 9 > len(data):
        raise _truncated()
    return None


def _png_header(data: bytes | memoryview) -> tuple[int, int] | None:
    """Width and height of a PNG (ISO/IEC 15948); None where Pillow has to look at it. Raises ImageRefused."""
    at, plain = 8, data[12:16] == b"IHDR"
    while at + 12 <= len(data):
        kind = data[at + 4 : at + 8]
        if kind == b"IEND":
            return (int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")) if plain else None
        plain = plain and kind not in (b"eXIf", b"acTL")
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    raise _truncated()


def _truncated() -> ImageRefused:
    return ImageRefused("image can't be decoded (the file is truncated)", "send a whole file")


@contextmanager
def _opened(data: bytes | memoryview, limits: ImageLimits) -> Iterator[Image.Image]:
    """An image whose header was checked; what Pillow raises while it is used becomes ImageRefused."""
    from PIL import Image, UnidentifiedImageError

    _check_bytes(data, limits)
    kinds = ", ".join(limits.formats)
    try:
        with warnings.catch_warnings():
            # Pillow warns from 89 megapixels on; our own limit below is lower and an error.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(data), formats=limits.formats)
        with opened as image:
            width, height = image.size
            _check_size(width, height, limits)
            if getattr(image, "n_frames", 1) != 1:
                raise ImageRefused("image has more than one frame", "send one still picture")
            yield image
    except ImageRefused:
        raise
    except Image.DecompressionBombError as error:
        raise ImageRefused(f"image has too many pixels ({error})", "scale it down first") from error
    except UnidentifiedImageError as error:
        # Pillow's text holds a memory address; records of two runs on the same bytes must be equal.
        raise ImageRefused(f"image can't be decoded (it is none of {kinds})", f"send a whole {kinds} file") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageRefused(f"image can't be decoded ({error})", f"send a whole {kinds} file") from error


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
