"""Embedded ICC profiles: which colours the numbers in a file stand for.

littlecms does the work, through Pillow. A profile comes from outside like the picture: one that is broken, or made for
another kind of pixel, is left out, and the picture is taken as sRGB.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageCms import ImageCmsTransform

#: Larger profiles are left out. Profiles of printing presses, the largest in use, have some 3 MiB.
MAX_PROFILE_BYTES = 4 * 2**20
#: A profile that moves no colour by more than this (of 255) is sRGB by another name: the pixels stay as they are.
SAME = 2

_SPACES = {"L": b"GRAY", "RGB": b"RGB ", "CMYK": b"CMYK"}
#: Input, display, output and colour space profiles; the other classes do not describe a picture.
_CLASSES = (b"scnr", b"mntr", b"prtr", b"spac")


@lru_cache(maxsize=8)
def srgb_transform(profile: bytes, mode: str) -> ImageCmsTransform | None:
    """What brings pixels of `mode` (L, RGB or CMYK) to sRGB, perceptual intent; None where they stay as they are.

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
    """The profile without its D2B tags (ICC.1:2010, 9.2.28), a second description that may chain elements without end.

    32 KiB of them keep littlecms busy for seconds; every profile must have the first description as well.
    """
    kept = bytearray(profile)
    for n in range(min(int.from_bytes(profile[128:132], "big"), (len(profile) - 132) // 12)):
        at = 132 + 12 * n
        if kept[at : at + 3] == b"D2B":
            kept[at : at + 4] = b"none"
    return bytes(kept)
