"""What an onlooker would say about the scene: colour of the top, background, light."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ifas.captioning.view import View

    Floats = npt.NDArray[np.float32]

#: Upper end of the hue in degrees -> colour word.
_HUES = ((15, "red"), (42, "orange"), (68, "yellow"), (165, "green"), (200, "teal"), (255, "blue"), (300, "purple"))
#: Every word that `colour_word` and `light_word` can give.
COLOURS = ("black", "white", "grey", "pink", "brown", *(word for _, word in _HUES))
LIGHTS = ("dim", "bright", "hard", "soft")


@dataclass(frozen=True)
class Scene:
    """Words of a picture's scene.

    Attributes:
        wall: colour of the background.
        top: colour of what is worn; empty where the picture ends before that.
        light: dim, bright, hard or soft.
    """

    wall: str
    top: str
    light: str

    @classmethod
    def of(cls, view: View, values: Mapping[str, float]) -> Scene:
        """The scene of a measured picture."""
        return cls(background_colour(view), top_colour(view) or "", light_word(values, view))


def colour_word(rgb: Floats) -> str:
    """Everyday name of the median colour of some pixels (..., 3) in 0..1."""
    import numpy as np

    red, green, blue = (float(v) for v in np.median(rgb.reshape(-1, 3), axis=0))
    hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
    if value < 0.16:
        return "black"
    if saturation < 0.13:
        return "white" if value > 0.82 else "grey"
    degrees = hue * 360
    if degrees >= 345:
        return "red"
    word = next((name for end, name in _HUES if degrees < end), "pink")
    return "brown" if word in ("red", "orange") and value < 0.5 else word


def top_colour(view: View) -> str | None:
    """Colour of what is worn, taken well below the face; None where the picture ends before that."""
    height = view.grey.shape[0]
    x0, y0, x1, y1 = view.face
    start = y1 + int(0.45 * (y1 - y0))
    if height - start < 12:
        return None
    return colour_word(view.rgb[start:, x0:x1])


def background_colour(view: View) -> str:
    """Colour of the picture left and right of the face, or of its upper rim where the face fills the width."""
    import numpy as np

    x0, _, x1, y1 = view.face
    gap = (x1 - x0) // 4
    left, right = view.rgb[:y1, : max(0, x0 - gap)], view.rgb[:y1, x1 + gap :]
    sides = np.concatenate([left.reshape(-1, 3), right.reshape(-1, 3)])
    return colour_word(sides if len(sides) else view.rgb[:8])


def light_word(values: Mapping[str, float], view: View) -> str:
    """dim, bright, hard, or soft light."""
    if values["brightness"] < 0.30:
        return "dim"
    if values["glare_share"] > 0.08:
        return "bright"
    face = view.face_grey
    half = face.shape[1] // 2
    uneven = abs(float(face[:, :half].mean() - face[:, half:].mean()))
    return "hard" if uneven > 0.12 else "soft"
