"""Embedded ICC profiles: which colours the numbers in a file stand for.

littlecms does the work, through Pillow. A profile is untrusted input, as the image is. If it is broken, or made for
another kind of pixel, it is ignored, and the image is taken as sRGB.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageCms import ImageCmsTransform

#: Larger profiles are ignored. The largest profiles in use, those of printing presses, have about 3 MiB.
MAX_PROFILE_BYTES = 4 * 2**20
#: A profile that moves no colour by more than this (of 255) counts as sRGB: the pixels stay as they are.
SAME = 2

_SPACES = {"L": b"GRAY", "RGB": b"RGB ", "CMYK": b"CMYK"}
#: Input, display, output and colour space profiles; the other classes do not describe an image.
_CLASSES = (b"scnr", b"mntr", b"prtr", b"spac")


@lru_cache(maxsize=8)
def srgb_transform(profile: bytes, mode: str) -> ImageCmsTransform | None:
    """The transform of `mode` (L, RGB or CMYK) to sRGB, perceptual intent; None if the pixels stay as they are.

    The transform gives mode RGB and may be used by several threads.
    """
    if len(profile) > MAX_PROFILE_BYTES or profile[16:20] != _SPACES[mode] or profile[12:16] not in _CLASSES:
        return None
    from PIL import ImageCms

    srgb: Any = ImageCms.createProfile("sRGB")
    try:
        found = ImageCms.ImageCmsTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(_without_float_tags(profile))),
            ImageCms.ImageCmsProfile(srgb),
            mode,
            "RGB",
            ImageCms.Intent.PERCEPTUAL,
            flags=ImageCms.Flags.NOCACHE,
        )
    except (OSError, ValueError, TypeError):
        return None
    return None if mode != "CMYK" and _same(found, mode) else found


def _same(transform: ImageCmsTransform, mode: str) -> bool:
    import numpy as np
    from PIL import Image

    if mode == "L":
        probe = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    else:
        levels = np.linspace(0, 255, 16).astype(np.uint8)
        probe = Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), -1).reshape(16, -1, 3))
    moved = _signed(transform.apply(probe)) - _signed(probe.convert("RGB"))
    return bool(np.abs(moved).max() <= SAME)


def _signed(image: Image.Image) -> Any:
    import numpy as np

    return np.asarray(image).astype(np.int16)


def _without_float_tags(profile: bytes) -> bytes:
    """The profile without its D2B tags (ICC.1:2010, 9.2.28).

    They describe the colours a second time, as a chain of elements of any length: 32 KiB of them keep littlecms busy
    for seconds. The first description is mandatory, so nothing is lost.
    """
    kept = bytearray(profile)
    for n in range(min(int.from_bytes(profile[128:132], "big"), (len(profile) - 132) // 12)):
        at = 132 + 12 * n
        if kept[at : at + 3] == b"D2B":
            kept[at : at + 4] = b"none"
    return bytes(kept)
