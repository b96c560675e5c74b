"""Learning rate over the steps."""

from __future__ import annotations

import math


def lr_factor(step: int, *, steps: int, warmup: float) -> float:
    """Factor of the learning rate at a step, 0 to 1: linear warm-up, then half a cosine down to 0.

    A function of the step alone, so there is no scheduler state to save.

    Args:
        step: 0-based.
        steps: total number.
        warmup: part of the steps that warm up.
    """
    rising = math.ceil(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))
