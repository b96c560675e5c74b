"""Straight borders around the face: the rim of a sheet of paper, the bezel of a screen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ifas.captioning.view import blurred

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ifas.captioning.view import View

    Floats = npt.NDArray[np.float32]

#: Shortest line that counts, as a share of the picture's shorter side.
SHORTEST = 0.25

#: Step across a line from which it counts in full. Levels are relative to the picture: its 2nd percentile is 0, its
#: 98th is 1.
FULL_STEP = 0.2

#: The darker side of a bezel is nearly black: at the first level it counts in full, from the second on not at all.
BLACK = (0.15, 0.40)

#: The brighter side of a paper rim is nearly white.
WHITE = (0.60, 0.80)

#: The darker side of a paper rim may be any background, but seldom black.
NOT_BLACK = (0.05, 0.25)

#: Pixels from a line at which its two sides are looked at.
REACH = 3

#: Lines nearer to a diagonal than this (degrees) are no rim: media are held more or less upright.
DIAGONAL = 20.0


@dataclass(frozen=True)
class Borders:
    """Longest straight border outside the face, as a share of the shorter side (may exceed 1), by its kind.

    Attributes:
        bright: one side is nearly white, as a paper rim is.
        dark: one side is nearly black, as a bezel is.
    """

    bright: float
    dark: float


def straight_borders(view: View) -> Borders:
    """Finds line segments, keeps upright or level ones outside the face, and weighs them by length and step."""
    import cv2
    import numpy as np

    height, width = view.grey.shape
    eight_bit = np.clip(blurred(view.grey, 1.0) * 255, 0, 255).astype(np.uint8)
    found = cv2.createLineSegmentDetector(0).detect(eight_bit)[0]
    best = {"bright": 0.0, "dark": 0.0}
    if found is None:
        return Borders(**best)
    shorter = min(height, width)
    x0, y0, x1, y1 = view.face
    black, white = np.percentile(view.grey, (2, 98))
    levels = (view.grey - black) / max(float(white - black), 0.05)
    for segment in found.reshape(-1, 4).astype(np.float64):
        start, end = segment[:2], segment[2:]
        along = end - start
        length = float(np.hypot(*along))
        if length < SHORTEST * shorter or _diagonal(along):
            continue
        middle = (start + end) / 2
        if x0 < middle[0] < x1 and y0 < middle[1] < y1:
            continue
        low, high = _sides(levels, start, along)
        weight = length / shorter * min(1.0, (high - low) / FULL_STEP)
        best["dark"] = max(best["dark"], weight * (1 - _within(low, *BLACK)))
        best["bright"] = max(best["bright"], weight * _within(high, *WHITE) * _within(low, *NOT_BLACK))
    return Borders(**best)


def _within(value: float, zero: float, one: float) -> float:
    return min(1.0, max(0.0, (value - zero) / (one - zero)))


def _diagonal(along: npt.NDArray[np.float64]) -> bool:
    import numpy as np

    angle = float(np.degrees(np.arctan2(abs(along[1]), abs(along[0]))))
    return abs(angle - 45.0) < 45.0 - DIAGONAL


def _sides(levels: Floats, start: npt.NDArray[np.float64], along: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Level on the darker and on the brighter side of a line, medians along it."""
    import numpy as np

    normal = np.array([-along[1], along[0]]) / np.hypot(*along)
    points = start + along * np.linspace(0.1, 0.9, 25)[:, None]
    height, width = levels.shape

    def level(offset: float) -> float:
        xy = np.rint(points + normal * offset).astype(int)
        return float(np.median(levels[np.clip(xy[:, 1], 0, height - 1), np.clip(xy[:, 0], 0, width - 1)]))

    low, high = sorted((level(-REACH), level(REACH)))
    return low, high


def sides(view: View) -> int:
    """How many of the four sides of the face, left, right, above and below, have a straight border beside them."""
    import cv2
    import numpy as np

    height, width = view.grey.shape
    eight_bit = np.clip(blurred(view.grey, 1.0) * 255, 0, 255).astype(np.uint8)
    found = cv2.createLineSegmentDetector(0).detect(eight_bit)[0]
    if found is None:
        return 0
    x0, y0, x1, y1 = view.face
    black, white = np.percentile(view.grey, (2, 98))
    levels = (view.grey - black) / max(float(white - black), 0.05)
    there = set()
    for segment in found.reshape(-1, 4).astype(np.float64):
        start, along = segment[:2], segment[2:] - segment[:2]
        if np.hypot(*along) < SHORTEST * min(height, width) or _diagonal(along):
            continue
        low, high = _sides(levels, start, along)
        if high - low < FULL_STEP / 2:
            continue
        x, y = start + along / 2
        upright = abs(along[1]) > abs(along[0])
        if upright and not x0 < x < x1:
            there.add("left" if x <= x0 else "right")
        elif not upright and not y0 < y < y1:
            there.add("above" if y <= y0 else "below")
    return len(there)
