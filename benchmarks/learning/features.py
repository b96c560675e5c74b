"""The frozen tower's features of faces, pooled for the logistic regression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ifas.core.config import RunConfig

if TYPE_CHECKING:
    from ifas.faces.face import Face

FloatsND = np.ndarray[Any, np.dtype[np.float32]]


class Pooled:
    """Pooled features of faces, of the views that the product's model sees: all levels and the mean of the patches of
    each view, (B, sum of widths)."""

    def __init__(self, config: RunConfig) -> None:
        from ifas.model.build import build

        self.model, self.processor = build(config.model)
        self.model.eval()

    @torch.inference_mode()
    def __call__(self, faces: Sequence[Face]) -> FloatsND:
        """Features of B faces."""
        pixels = self.processor.pixel_values([self.processor.views(face) for face in faces])
        patches_BMD, levels = self.model.see(pixels)
        means_BUD = patches_BMD.unflatten(1, (pixels.shape[1], -1)).mean(dim=2)
        pooled: FloatsND = torch.cat([*levels, means_BUD.flatten(1)], dim=1).numpy()
        return pooled
