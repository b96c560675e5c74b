"""Learning rate over the steps: a function of the step alone, so there is no scheduler state to save."""

from __future__ import annotations

import math
from collections.abc import Callable

#: Of a one-cycle schedule: peak over first rate, and first rate over last one; as in torch's OneCycleLR.
RISE, FALL = 25.0, 1e4


def cosine(step: int, steps: int, rising: int) -> float:
    """Linear warm-up, then half a cosine down to 0."""
    if step < rising:
        return (step + 1) / rising
    return _half_cosine(1.0, 0.0, (step - rising) / max(1, steps - rising))


def one_cycle(step: int, steps: int, rising: int) -> float:
    """Half a cosine from 1/25 up to 1, half a cosine down to 1/250,000 (Smith and Topin, arXiv 1708.07120; torch's
    OneCycleLR without its cycle of momentum)."""
    first, peak = 1 / RISE, max(0, rising - 1)
    if step <= peak:
        return _half_cosine(first, 1.0, step / peak) if peak else 1.0
    return _half_cosine(1.0, first / FALL, (step - peak) / max(1, steps - 1 - peak))


def _half_cosine(begin: float, end: float, part: float) -> float:
    return end + (begin - end) * 0.5 * (1 + math.cos(math.pi * part))


SCHEDULES: dict[str, Callable[[int, int, int], float]] = {"cosine": cosine, "one-cycle": one_cycle}


def lr_factor(step: int, *, steps: int, warmup: float, kind: str = "cosine") -> float:
    """Factor of the learning rate at a step, 0 to 1.

    Args:
        step: 0-based.
        steps: total number.
        warmup: part of the steps in which it rises.
        kind: key of `SCHEDULES`.
    """
    return SCHEDULES[kind](step, steps, math.ceil(warmup * steps))
