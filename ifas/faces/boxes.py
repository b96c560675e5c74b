"""Boxes x, y, w, h in pixels: overlap, and smoothing along a track."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

Box: TypeAlias = tuple[float, float, float, float]
Point: TypeAlias = tuple[float, float]


def box_of(value: object) -> Box | None:
    """A box in a manifest's column: four numbers, or None where it is null."""
    if not isinstance(value, Iterable):
        return None
    numbers = [float(v) for v in value]
    return (numbers[0], numbers[1], numbers[2], numbers[3]) if len(numbers) == 4 else None


def iou(a: Box, b: Box) -> float:
    """Intersection over union, 0 to 1; 0 where a box is empty."""
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(0.0, across) * max(0.0, down)
    whole = a[2] * a[3] + b[2] * b[3] - both
    return min(1.0, both / whole) if whole > 0 else 0.0


def smoothed(boxes: Sequence[Box], weight: float = 0.5) -> list[Box]:
    """Centre and size smoothed by an exponential filter, run forwards and backwards so that nothing lags behind.

    Args:
        weight: of a new box against the past, in (0, 1]; 1 changes nothing.
    """
    import numpy as np

    if len(boxes) < 3 or weight >= 1:
        return list(boxes)
    values = np.array([(x + w / 2, y + h / 2, w, h) for x, y, w, h in boxes])
    for _ in range(2):
        for i in range(1, len(values)):
            values[i] = weight * values[i] + (1 - weight) * values[i - 1]
        values = values[::-1].copy()
    return [(cx - w / 2, cy - h / 2, w, h) for cx, cy, w, h in values.tolist()]
