"""Edges of a medium: straight lines beside the face, and how likely each is the rim of a sheet or a device.

Rooms are full of straight lines. The rim of something held before the camera differs from them in a few ways: it is
as sharp as the picture on the medium, while the room behind is not; it lies away from the face; it is nearly upright or
level; and its inner side differs from its outer side. Each of these adds to the log-odds. The amounts come from a table
that `python -m benchmarks.edges --fit` makes from pictures of the simulator, whose outlines are known.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifas.captioning.ramp import ramp
from ifas.captioning.view import blurred

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ifas.captioning.view import View

    Floats = npt.NDArray[np.float64]
    Pixels = npt.NDArray[np.float32]

TABLE = Path(__file__).with_name("edge_odds.json")
#: Shortest line, as a share of the picture's shorter side; steepest tilt against the picture's axes, degrees.
SHORTEST, MOST_TILT = 0.15, 25.0
#: Pixels from a line at which its two sides are compared, and at which a sharp line has changed already.
REACH, NEAR = 4.0, 1.5
#: Columns of `features`.
FEATURES = ("length", "step", "colour", "steepness", "gap", "tilt", "detail", "unevenness")


@dataclass(frozen=True)
class Edge:
    """One straight line outside the face.

    Attributes:
        ends: x0, y0, x1, y1 in pixels of the view.
        side: of the face on which its middle lies: left, right, above or below.
        darker, brighter: levels of its two sides; the picture's 2nd percentile is 0, its 98th is 1.
        features: a number per name in FEATURES.
        chance: that it is the edge of a medium, 0 to 1.
    """

    ends: tuple[float, float, float, float]
    side: str
    darker: float
    brighter: float
    features: tuple[float, ...]
    chance: float


#: Levels of a bezel's darker side: at the first it counts in full, from the second on not at all.
BLACK = (0.15, 0.40)
#: Levels of a paper rim: its brighter side is nearly white, its darker side may be any background but seldom black.
WHITE, NOT_BLACK = (0.60, 0.80), (0.05, 0.25)


def bright(found: list[Edge]) -> float:
    """Chance of the likeliest edge of a medium with a nearly white side, as paper has; 0 without any."""
    return max((e.chance * ramp(e.brighter, *WHITE) * ramp(e.darker, *NOT_BLACK) for e in found), default=0.0)


def dark(found: list[Edge]) -> float:
    """Chance of the likeliest edge of a medium with a nearly black side, as most screens have; 0 without any."""
    return max((e.chance * (1 - ramp(e.darker, *BLACK)) for e in found), default=0.0)


def edges(view: View) -> list[Edge]:
    """All straight lines outside the face, the likeliest edge of a medium first."""
    layers = _layers(view)
    found = [edge for segment in _segments(view) if (edge := _edge(view, layers, segment)) is not None]
    return sorted(found, key=lambda edge: -edge.chance)


def _segments(view: View) -> Floats:
    """Line segments of the picture: (n, 4), x0, y0, x1, y1."""
    import cv2
    import numpy as np

    eight_bit = np.clip(blurred(view.grey, 1.0) * 255, 0, 255).astype(np.uint8)
    found = cv2.createLineSegmentDetector(0).detect(eight_bit)[0]
    return np.zeros((0, 4)) if found is None else found.reshape(-1, 4).astype(np.float64)


def _edge(view: View, layers: _Layers, segment: Floats) -> Edge | None:
    import numpy as np

    start, along = segment[:2], segment[2:] - segment[:2]
    length, shorter = float(np.hypot(*along)), min(view.grey.shape)
    angle = float(np.degrees(np.arctan2(abs(along[1]), abs(along[0]))))
    tilt = 45.0 - abs(angle - 45.0)
    x0, y0, x1, y1 = view.face
    middle = start + along / 2
    if length < SHORTEST * shorter or tilt > MOST_TILT or (x0 < middle[0] < x1 and y0 < middle[1] < y1):
        return None
    away = middle - np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    outward = np.array([-along[1], along[0]]) / length
    outward = outward * (1.0 if float(outward @ away) >= 0 else -1.0)
    points = start + along * np.linspace(0.05, 0.95, 31)[:, None]

    def beside(image: Pixels, offset: float) -> Pixels:
        xy = np.rint(points + outward * offset).astype(int)
        values: Pixels = image[np.clip(xy[:, 1], 0, len(image) - 1), np.clip(xy[:, 0], 0, image.shape[1] - 1)]
        return values

    levels, colours, detail = layers.levels, layers.colours, layers.detail
    inner, outer = float(np.median(beside(levels, -REACH))), float(np.median(beside(levels, REACH)))
    step = outer - inner
    near = float(np.median(beside(levels, NEAR)) - np.median(beside(levels, -NEAR)))
    difference = np.median(beside(colours, REACH), axis=0) - np.median(beside(colours, -REACH), axis=0)
    within = float(np.median([beside(detail, -offset).mean() for offset in (5, 8, 11)]))
    uneven = float(np.mean([beside(levels, o).std() - beside(levels, -o).std() for o in (4, 7)]))
    features = (
        length / shorter,
        step,
        float(np.hypot(*difference)),
        float(np.clip(near / (step if abs(step) > 0.03 else np.copysign(0.03, step)), -2, 4)),
        float(outward @ away) / (x1 - x0),
        tilt,
        float(np.log(within + 1e-4)),
        uneven,
    )
    upright = abs(along[1]) > abs(along[0])
    side = ("left" if away[0] < 0 else "right") if upright else ("above" if away[1] < 0 else "below")
    ends = (float(segment[0]), float(segment[1]), float(segment[2]), float(segment[3]))
    return Edge(ends, side, min(inner, outer), max(inner, outer), features, chance(features))


def chance(features: tuple[float, ...]) -> float:
    """Of a line with these `FEATURES` to be the edge of a medium: the logistic function of the summed shares."""
    import numpy as np

    table = odds_table()
    odds = table["offset"] + sum(
        float(np.interp(value, *table["shares"][name])) for name, value in zip(FEATURES, features, strict=True)
    )
    return float(1 / (1 + np.exp(-odds)))


@cache
def odds_table() -> Any:
    """The fitted table: `offset`, and per feature its knots and log-odds there."""
    return json.loads(TABLE.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class _Layers:
    """Of one picture: levels (H, W), colour differences (H, W, 2), both on its own scale, and fine detail (H, W)."""

    levels: Pixels
    colours: Pixels
    detail: Pixels


def _layers(view: View) -> _Layers:
    import cv2
    import numpy as np

    black, white = np.percentile(view.grey, (2, 98))
    scale = np.float32(max(float(white - black), 0.05))
    detail = cv2.blur(np.abs(cv2.Laplacian(view.grey, cv2.CV_32F)), (5, 5))
    return _Layers((view.grey - np.float32(black)) / scale, blurred(view.opponent, 1.0) / scale, detail / scale)
