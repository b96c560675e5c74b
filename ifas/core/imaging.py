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


#: EXIF tag; values from 5 on swap width and height.
_ORIENTATION = 0x0112


@contextmanager
def _opened(data: bytes, limits: ImageLimits) -> Iterator[Image.Image]:
    """An image whose header was checked; what Pillow raises while it is used becomes ImageRefused."""
    from PIL import Image, UnidentifiedImageError

    if len(data) > limits.max_bytes:
        raise ImageRefused(f"image has {len(data)} bytes, the limit is {limits.max_bytes}", "send a smaller file")
    kinds = ", ".join(limits.formats)
    try:
        with warnings.catch_warnings():
            # Pillow warns from 89 megapixels on; our own limit below is lower and an error.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(data), formats=limits.formats)
        with opened as image:
            width, height = image.size
            if width * height > limits.max_pixels:
                raise ImageRefused(
                    f"image has {width}x{height} pixels, the limit is {limits.max_pixels}",
                    "scale it down first",
                )
            if min(width, height) < limits.min_side:
                raise ImageRefused(f"image is {width}x{height}, the smallest side allowed is {limits.min_side}")
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
