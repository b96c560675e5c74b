"""What a device draws over the picture it shows: a status bar, a title, the buttons of a call."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ifas.simulator.arrays import U8
from ifas.simulator.figure import Box

TITLES = ("Photos", "Gallery", "Video call", "Camera", "Messages", "Today", "Album", "IMG_2041.JPG")
FOOTERS = (
    "Share   Edit   Delete",
    "Mute   Camera   End",
    "Like   Reply   Save",
    "PHOTO   VIDEO   1x",
    "Back   Info   More",
)
LINE = 0.085  # height of a line of text, share of the face's height


@dataclass(frozen=True)
class Interface:
    """What is written where.

    Attributes:
        lines: (text, left edge as a share of the picture's width, line number, size relative to LINE); lines count down
            from 0 at the top of the header, -1 is the footer.
        light: dark text on a light bar. above, below: gap between face and bars, face heights.
    """

    lines: tuple[tuple[str, float, float, float], ...]
    light: bool
    above: float
    below: float


def draw_interface(rng: np.random.Generator) -> Interface:
    """One to three lines: time and battery, a title below it, buttons at the foot."""
    lines = []
    clock, charge = f"{rng.integers(0, 24)}:{rng.integers(0, 60):02d}", f"{rng.integers(5, 100)}%"
    if rng.random() < 0.8:
        lines += [(clock, 0.04, 0.0, 0.8), (charge, 0.84, 0.0, 0.8)]
    if rng.random() < 0.7 or not lines:
        lines.append((str(rng.choice(TITLES)), 0.06, 1.15, 1.0))
    if rng.random() < 0.6:
        lines.append((str(rng.choice(FOOTERS)), 0.10, -1.0, 0.9))
    light, above, below = bool(rng.random() < 0.5), float(rng.uniform(0.06, 0.3)), float(rng.uniform(0.1, 0.3))
    return Interface(tuple(lines), light, above, below)


@dataclass(frozen=True)
class Screen:
    """A picture with its interface: `pixels` (h, w, 3); boxes of the lines of text and heights of the inner edges of
    the bars, all as shares of it."""

    pixels: U8
    text: tuple[Box, ...]
    bars: tuple[float, ...]


def draw_over(pixels: U8, face: Box, interface: Interface) -> Screen:
    """Draws the interface over a picture (h, w, 3)."""
    # Text needs more pixels than a small photo has.
    scale = max(1, round(640 / len(pixels)))
    out = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC) if scale > 1 else pixels.copy()
    rows, columns = out.shape[:2]
    ink, bar = ((20, 20, 20), (245, 245, 245)) if interface.light else ((245, 245, 245), (18, 18, 20))
    boxes: list[Box] = []
    bars: list[float] = []
    height = LINE * face[3] * rows
    header = [line[2] for line in interface.lines if line[2] >= 0]
    # The device shows the picture between its bars, as closely around the face as the user has scrolled it.
    deep = (max(header, default=0.0) + 1.35) * height
    top = max(0.0, (face[1] - interface.above * face[3]) * rows - deep)
    foot = min(float(rows) - 1.5 * height, (face[1] + (1 + interface.below) * face[3]) * rows)
    if header:
        out[: int(top + deep)] = bar
        bars.append((top + deep) / rows)
    if len(header) < len(interface.lines):
        out[int(foot) :] = bar
        bars.append(foot / rows)
    for text, left, down, size in interface.lines:
        font = cv2.FONT_HERSHEY_SIMPLEX
        weight = max(1, round(height / 13))
        (_, tall), _ = cv2.getTextSize(text, font, 1.0, weight)
        zoom = 0.72 * height * size / tall
        (wide, tall), below = cv2.getTextSize(text, font, zoom, weight)
        base = foot + 1.1 * height if down < 0 else top + (down + 1.0) * height
        x = min(left * columns, max(0.0, columns - wide - 4))
        cv2.putText(out, text, (int(x), int(base)), font, zoom, ink, weight, cv2.LINE_AA)
        boxes.append((x / columns, (base - tall) / rows, wide / columns, (tall + below / 2) / rows))
    return Screen(np.asarray(out, dtype=np.uint8), tuple(boxes), tuple(bars))
