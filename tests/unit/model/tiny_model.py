"""The tiny profile's model and pictures for it."""

import numpy as np

from ifas.core.config import ModelConfig, load
from ifas.faces.face import Face

#: Settings that turn the tiny profile's tower into DINOv2.
DINOV2 = (
    "model.vision.kind=dinov2",
    "model.vision.shape={hidden_size: 32, mlp_ratio: 2, num_hidden_layers: 3, num_attention_heads: 2, patch_size: 16}",
)


def tiny(*overrides: str) -> ModelConfig:
    return load("tiny", list(overrides)).model


def faces(n: int, seed: int = 0) -> list[Face]:
    """Noise of different sizes, and a box in each."""
    rng = np.random.default_rng(seed)
    images = (rng.integers(0, 256, (40 + 7 * i, 64 + 3 * i, 3), dtype=np.uint8) for i in range(n))
    return [Face(image, (10.0 + i, 5.0, 20.0, 24.0 + i)) for i, image in enumerate(images)]


CAPTIONS = (
    "A person looks at the camera.",
    "A face on a sheet of printed paper with visible wrinkles.",
    "A phone screen.",
    "A person stands in the street.",
    "A mask with a smooth surface.",
)
