"""A picture prepared for measuring: floats, grey values, colour differences, and where the face is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]
    #: One picture: uint8 RGB of shape (H, W, 3).
    Picture: TypeAlias = npt.NDArray[np.uint8]

#: Face box x, y, w, h in pixels of the picture, or None where no face was boxed.
Box: TypeAlias = tuple[float, float, float, float] | None

#: Larger pictures are shrunk to this longest side, so that lengths in pixels mean the same everywhere.
LONGEST_SIDE = 640

#: Where a face usually is when no box is known: x0, y0, x1, y1 as shares of width and height.
CENTRAL = (0.28, 0.20, 0.72, 0.75)


@dataclass(frozen=True)
class View:
    """One picture under measurement.

    Attributes:
        rgb: float32 (H, W, 3) in 0..1.
        face: x0, y0, x1, y1 in pixels of `rgb`; the central region where no usable box was given.
        boxed: whether `face` comes from a box; only then is it known what lies just outside it.
    """

    rgb: Floats
    face: tuple[int, int, int, int]
    boxed: bool

    @classmethod
    def of(cls, picture: Picture, box: Box) -> View:
        """Prepares a uint8 RGB picture with a face box in its pixels."""
        import cv2
        import numpy as np

        height, width = picture.shape[:2]
        scale = min(1.0, LONGEST_SIDE / max(height, width))
        if scale < 1.0:
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        height, width = picture.shape[:2]
        boxed = _corners(box, scale, width, height)
        left, top, right, bottom = CENTRAL
        central = round(left * width), round(top * height), round(right * width), round(bottom * height)
        return cls(rgb=picture.astype(np.float32) / np.float32(255), face=boxed or central, boxed=boxed is not None)

    @cached_property
    def grey(self) -> Floats:
        """Luma, (H, W) in 0..1."""
        import numpy as np

        return self.rgb @ np.array([0.299, 0.587, 0.114], dtype=np.float32)

    @cached_property
    def opponent(self) -> Floats:
        """Red minus green and yellow minus blue, (H, W, 2)."""
        import numpy as np

        red, green, blue = self.rgb[..., 0], self.rgb[..., 1], self.rgb[..., 2]
        return np.stack([red - green, (red + green) / 2 - blue], axis=-1)

    @cached_property
    def detail(self) -> Floats:
        """Grey values without their slow part (Gaussian, sigma 3 px), (H, W)."""
        return self.grey - blurred(self.grey, 3.0)

    @cached_property
    def face_grey(self) -> Floats:
        """Grey values inside the face box."""
        x0, y0, x1, y1 = self.face
        return self.grey[y0:y1, x0:x1]


def blurred(values: Floats, sigma: float) -> Floats:
    """Gaussian blur with `sigma` in pixels."""
    import cv2

    result: Floats = cv2.GaussianBlur(values, (0, 0), sigma)
    return result


def _corners(box: Box, scale: float, width: int, height: int) -> tuple[int, int, int, int] | None:
    if box is not None:
        x, y, w, h = (value * scale for value in box)
        x0, y0 = max(0, round(x)), max(0, round(y))
        x1, y1 = min(width, round(x + w)), min(height, round(y + h))
        if x1 - x0 >= 8 and y1 - y0 >= 8:
            return x0, y0, x1, y1
    return None
