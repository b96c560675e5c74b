"""Light augmentation, a function of (seed, position) alone: the same under any number of ranks and after a resume.

Mirrors, crops slightly, and changes exposure, contrast and white balance. It adds no blur, noise or compression, since
these are themselves cues of an attack.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ifas.model.processor import Box, Pixels

MIN_SIDE = 0.9
BRIGHTNESS = 0.4
CONTRAST = 0.4
TINT = 0.15


@dataclass(frozen=True)
class Augmentation:
    """Changes to one draw. `left`, `top`, `side` are fractions of the width and height; `tint` multiplies R, G, B."""

    mirror: bool
    left: float
    top: float
    side: float
    brightness: float
    contrast: float
    tint: tuple[float, float, float]

    def box(self, height: int, width: int) -> Box:
        """The crop in whole pixels, at least one: left, top, right, bottom."""
        x, y = int(self.left * width), int(self.top * height)
        return x, y, x + max(1, round(self.side * width)), y + max(1, round(self.side * height))

    def recolour(self, picture: Pixels) -> Pixels:
        """Mirrors and changes the colours of an already cropped and resized image (H, W, 3)."""
        if self.mirror:
            picture = picture[:, ::-1]
        values = picture.astype(np.float32)
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
