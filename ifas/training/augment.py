"""Light augmentation, a function of (seed, position) alone: the same under any number of ranks and after a resume.

Mirrors, crops slightly, and changes exposure, contrast and white balance. It adds no blur, noise or compression, since
these are themselves cues of an attack.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ifas.faces.views import Square
from ifas.model.processor import Pixels

MIN_SIDE = 0.9
BRIGHTNESS = 0.4
CONTRAST = 0.4
TINT = 0.15


@dataclass(frozen=True)
class Augmentation:
    """Changes to one draw, the same for all its views.

    Attributes:
        left, top, side: of the part of each view that is seen, as fractions of the view's side.
        tint: factors of R, G, B.
    """

    mirror: bool
    left: float
    top: float
    side: float
    brightness: float
    contrast: float
    tint: tuple[float, float, float]

    def shifted(self, view: Square) -> Square:
        """The part of a view that is seen."""
        return Square(view.left + self.left * view.side, view.top + self.top * view.side, self.side * view.side)

    def recolour(self, views: Pixels) -> Pixels:
        """Mirrors views (V, S, S, 3) and changes their colours."""
        if self.mirror:
            views = views[:, :, ::-1]
        values = views.astype(np.float32)
        mean = values.mean()
        values = ((values - mean) * self.contrast + mean * self.brightness) * np.array(self.tint, dtype=np.float32)
        recoloured: Pixels = np.clip(values + 0.5, 0, 255).astype(np.uint8)
        return recoloured


def augmentation(seed: int, position: int) -> Augmentation:
    """The augmentation of the draw at a position of the global order."""
    rng = np.random.default_rng([seed, position, 1])
    side = rng.uniform(MIN_SIDE, 1.0)
    return Augmentation(
        mirror=bool(rng.integers(2)),
        left=rng.uniform(0, 1 - side),
        top=rng.uniform(0, 1 - side),
        side=side,
        brightness=rng.uniform(1 - BRIGHTNESS, 1 + BRIGHTNESS),
        contrast=rng.uniform(1 - CONTRAST, 1 + CONTRAST),
        tint=(rng.uniform(1 - TINT, 1 + TINT), 1.0, rng.uniform(1 - TINT, 1 + TINT)),
    )
