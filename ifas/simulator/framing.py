"""How a face sits in the picture: drawn in the same way for a head, a print and a display, so framing tells nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ifas.simulator.arrays import F32
from ifas.simulator.raster import View

FACE_HEIGHT = 1.88  # decimetres, chin to hairline
FACE_FORWARD = 0.9  # decimetres from `HEAD_MIDDLE` to the plane of the face
#: The face stands a little above the middle of the picture, in face heights.
ABOVE_MIDDLE = 0.08
#: Middle of the head seen from the front, from between the eyes.
HEAD_MIDDLE = np.array([0.0, -0.45, -0.5])


@dataclass(frozen=True)
class Framing:
    """One drawn framing.

    Attributes:
        share: face height over picture height.
        distance: camera to subject, decimetres.
        yaw, pitch, roll: radians; where the camera stands and how it is held.
        shift: (x, y) of the camera's aim, in face heights.
    """

    share: float
    distance: float
    yaw: float
    pitch: float
    roll: float
    shift: tuple[float, float]


def draw_framing(
    rng: np.random.Generator,
    share: tuple[float, float] = (0.50, 0.66),
    yaw: float = 0.42,
    pitch: tuple[float, float] = (-0.18, 0.22),
) -> Framing:
    """A framing; `yaw` is the largest angle to either side, radians."""
    return Framing(
        float(rng.uniform(*share)),
        float(rng.uniform(5, 10)),
        float(rng.uniform(-yaw, yaw)),
        float(rng.uniform(*pitch)),
        float(rng.normal(0, 0.06)),
        (float(rng.uniform(-0.22, 0.22)), float(rng.uniform(-0.11, 0.11))),
    )


def direction(yaw: float, pitch: float) -> F32:
    """Unit vector from the subject to a camera at these angles: (3,)."""
    return np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)], dtype=np.float32)


def view_of_head(framing: Framing, size: int) -> View:
    """The camera in front of a head whose origin is between the eyes."""
    at = HEAD_MIDDLE + np.array([*framing.shift, 0]) * FACE_HEIGHT
    eye = at + framing.distance * direction(framing.yaw, framing.pitch)
    focal = size * framing.share / FACE_HEIGHT * (framing.distance - FACE_FORWARD)
    return View.looking(eye, at, focal, size, framing.roll)


def bounding_box(screen: F32, size: int) -> tuple[float, float, float, float]:
    """x, y, w, h of projected points (n, 2+), as shares of the picture, clipped to it."""
    low = np.clip(screen[:, :2].min(0) / size, 0, 1)
    high = np.clip(screen[:, :2].max(0) / size, 0, 1)
    return float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])
