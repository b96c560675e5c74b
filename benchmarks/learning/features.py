"""The frozen tower's features: remembered during a run, and pooled for the logistic regression."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ifas.core.config import RunConfig
from ifas.core.errors import ConfigError
from ifas.model import towers
from ifas.model.processor import Pixels

FloatsND = np.ndarray[Any, np.dtype[np.float32]]


class RememberingTower(towers.EfficientNetLite0Tower):
    """The tower of the product, which computes each image once. Right only while frozen, on images as they are."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self._seen: dict[bytes, tuple[Tensor, list[Tensor]]] = {}

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See `VisionTower`."""
        keys = [hashlib.blake2b(one.contiguous().numpy(), digest_size=16).digest() for one in pixel_values]
        new = {key: i for i, key in enumerate(keys) if key not in self._seen}
        if new:
            with torch.no_grad():
                patches_BND, levels = super().forward(pixel_values[list(new.values())])
            for row, key in enumerate(new):
                self._seen[key] = (patches_BND[row].clone(), [level[row].clone() for level in levels])
        found = [self._seen[key] for key in keys]
        per_level = zip(*(levels for _, levels in found), strict=True)
        return torch.stack([patches for patches, _ in found]), [torch.stack(level) for level in per_level]


def remember(config: RunConfig) -> None:
    """Puts `RememberingTower` in the product's place, in this process.

    Raises:
        ConfigError: the tower is trained, or images are augmented.
    """
    vision = config.model.vision
    if vision.kind != "efficientnet-lite0" or vision.tune != "frozen" or config.train.augment:
        raise ConfigError(
            "features can only be remembered of a frozen efficientnet-lite0 on pictures as they are",
            "set model.vision.tune=frozen and train.augment=false",
        )
    towers.TOWERS["efficientnet-lite0"] = RememberingTower


class Pooled:
    """Pooled features of images: all levels and the mean of the patches, (B, sum of widths)."""

    def __init__(self, config: RunConfig) -> None:
        from ifas.model.vision import load_tower

        self.tower = load_tower(config.model.vision).eval()
        self.side = config.model.vision.image_size

    @torch.inference_mode()
    def __call__(self, images: Sequence[Pixels]) -> FloatsND:
        """Resized as the product's processor does."""
        from PIL import Image

        side = (self.side, self.side)
        resized = [np.asarray(Image.fromarray(i).resize(side, Image.Resampling.BILINEAR)) for i in images]
        patches_BND, levels = self.tower(torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).contiguous())
        pooled: FloatsND = torch.cat([*levels, patches_BND.mean(dim=1)], dim=1).numpy()
        return pooled
