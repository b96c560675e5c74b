"""Augmentation, a function of (seed, position) alone: the same under any number of ranks and after a resume.

It crops the image to another shape and handles it as networks and apps do (`ifas.faces.handling`). It shows the whole
image as from further away, moves the box of the face a little, as another finder would, mirrors, crops each view
slightly, and changes exposure, contrast and white balance.

Shapes and distances vary because a dataset's may all be one. What is beside an upright image, or around a face that is
further away, is then something that the model has only seen around attacks.

Compression, blur and borders are also cues of an attack. Draws do not look at the class, so here they come with bona
fide as often as with attacks, and tell nothing about the class.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ifas.faces.face import Face
from ifas.faces.handling import DRAWN, Cropped, Handling
from ifas.faces.views import Square
from ifas.model.processor import Pixels

MIN_SIDE = 0.9
#: The whole image is shown as from up to this many times as far away, its mirror around it.
FARTHEST = 1.7
BRIGHTNESS = 0.4
CONTRAST = 0.4
TINT = 0.15
#: Of a handled image, the share that is handled in two ways, one after the other.
TWICE = 1 / 3
#: The box moves by up to this share of its sides, and its sides change by up to this factor.
MOVED = 0.05
WIDENED = 1.1


@dataclass(frozen=True)
class Augmentation:
    """Changes to one draw, the same for all its views.

    Attributes:
        left, top, side: of the part of each view that is seen, as fractions of the view's side.
        tint: factors of R, G, B.
        distance: how many times as far away the whole image is seen from.
        handlings: of the image, in their order.
        moved, widened: of the box of the face: by shares of its width and height, by a factor.
    """

    mirror: bool
    left: float
    top: float
    side: float
    brightness: float
    contrast: float
    tint: tuple[float, float, float]
    distance: float = 1.0
    handlings: tuple[Handling, ...] = ()
    moved: tuple[float, float] = (0.0, 0.0)
    widened: float = 1.0

    def handled(self, face: Face) -> Face:
        """The image as it arrives, and the box of the face as another finder would place it."""
        for handling in self.handlings:
            face = handling(face)
        x, y, w, h = face.box
        across, down = x + w * (0.5 + self.moved[0]), y + h * (0.5 + self.moved[1])
        w, h = w * self.widened, h * self.widened
        return Face(face.picture, (across - w / 2, down - h / 2, w, h))

    def shifted(self, kind: str, view: Square) -> Square:
        """What is seen in place of a view of a kind."""
        side = view.side * (self.distance if kind == "frame" else 1.0)
        left, top = view.left - (side - view.side) / 2, view.top - (side - view.side) / 2
        return Square(left + self.left * side, top + self.top * side, self.side * side)

    def recolour(self, views: Pixels) -> Pixels:
        """Mirrors views (V, S, S, 3) and changes their colours."""
        if self.mirror:
            views = views[:, :, ::-1]
        values = views.astype(np.float32)
        mean = values.mean()
        values = ((values - mean) * self.contrast + mean * self.brightness) * np.array(self.tint, dtype=np.float32)
        recoloured: Pixels = np.clip(values + 0.5, 0, 255).astype(np.uint8)
        return recoloured


def augmentation(seed: int, position: int, handled: float = 0.0) -> Augmentation:
    """The augmentation of the draw at a position of the global order.

    Args:
        handled: share of the draws whose image is cropped to another shape, is seen from further away, and is handled.
    """
    rng = np.random.default_rng([seed, position, 1])
    side = rng.uniform(MIN_SIDE, 1.0)
    plain = Augmentation(
        mirror=bool(rng.integers(2)),
        left=rng.uniform(0, 1 - side),
        top=rng.uniform(0, 1 - side),
        side=side,
        brightness=rng.uniform(1 - BRIGHTNESS, 1 + BRIGHTNESS),
        contrast=rng.uniform(1 - CONTRAST, 1 + CONTRAST),
        tint=(rng.uniform(1 - TINT, 1 + TINT), 1.0, rng.uniform(1 - TINT, 1 + TINT)),
        moved=(rng.uniform(-MOVED, MOVED), rng.uniform(-MOVED, MOVED)),
        widened=float(WIDENED ** rng.uniform(-1, 1)),
    )
    cropped = (Cropped.drawn(rng),) if rng.random() < handled else ()
    distance = rng.uniform(1, FARTHEST) if rng.random() < handled else 1.0
    return replace(plain, distance=distance, handlings=(*cropped, *_handlings(rng, handled)))


def _handlings(rng: np.random.Generator, handled: float) -> tuple[Handling, ...]:
    if rng.random() >= handled:
        return ()
    chosen = rng.choice(len(DRAWN), size=2 if rng.random() < TWICE else 1, replace=False)
    return tuple(DRAWN[kind].drawn(rng) for kind in chosen)
