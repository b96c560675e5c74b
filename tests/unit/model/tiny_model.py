"""The tiny profile's model and pictures for it."""

from typing import Any

import numpy as np

from ifas.core.config import ModelConfig, load


def tiny(*overrides: str) -> ModelConfig:
    return load("tiny", list(overrides)).model


def pictures(n: int, seed: int = 0) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    """Noise of different sizes."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (40 + 7 * i, 64 + 3 * i, 3), dtype=np.uint8) for i in range(n)]


CAPTIONS = (
    "A person looks at the camera.",
    "A face on a sheet of printed paper with visible wrinkles.",
    "A phone screen.",
    "A person stands in the street.",
    "A mask with a smooth surface.",
)
