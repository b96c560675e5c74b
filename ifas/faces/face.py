"""An image and the face in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ifas.faces.boxes import Box

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Face:
    """An image, uint8 RGB (H, W, 3), and the box x, y, w, h of the face in it, in pixels."""

    picture: npt.NDArray[np.uint8]
    box: Box

    @classmethod
    def of(cls, picture: npt.NDArray[np.uint8], box: Box | None) -> Face:
        """The face in a box; without one, the image is nothing but the face."""
        return cls.whole(picture) if box is None else cls(picture, box)

    @classmethod
    def whole(cls, picture: npt.NDArray[np.uint8]) -> Face:
        """An image that is nothing but the face."""
        return cls(picture, (0.0, 0.0, float(picture.shape[1]), float(picture.shape[0])))
