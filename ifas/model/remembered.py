"""The vision tower's features, for a judge that sees images twice: evaluation scores an image, then explains it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

#: X_V and G_V of some images, as of `IfasModel.see`.
Seen = tuple[Tensor, list[Tensor]]


class Remembered:
    """`IfasModel.see`, which keeps what it gave for an image as long as there is room for it.

    Args:
        see: of the model, for the views of B images, uint8 (B, U, C, H, W).
        most: bytes kept. Images that come when all of them are taken are seen again each time.
    """

    def __init__(self, see: Callable[[Tensor], Seen], most: int) -> None:
        self._see = see
        self._most = most
        self._kept: dict[bytes, Seen] = {}
        self.bytes = 0

    def __call__(self, pixel_values_BUCHW: Tensor) -> Seen:
        """X_V (B, N, D), and G_V of L tensors (B, D_l)."""
        views = pixel_values_BUCHW.cpu().contiguous().numpy()
        images = [hashlib.blake2b(one, digest_size=16).digest() for one in views]
        new = [place for place, image in enumerate(images) if image not in self._kept]
        fresh: dict[bytes, Seen] = {}
        if new:
            patches_BND, levels = self._see(pixel_values_BUCHW[new])
            fresh = {
                images[place]: (patches_BND[row, None], [level_BD[row, None] for level_BD in levels])
                for row, place in enumerate(new)
            }
        found = [fresh[image] if image in fresh else self._kept[image] for image in images]
        for image, (patches, levels) in fresh.items():
            self._keep(image, patches, levels)
        return torch.cat([patches for patches, _ in found]), [
            torch.cat(level) for level in zip(*(levels for _, levels in found), strict=True)
        ]

    def _keep(self, image: bytes, patches: Tensor, levels: Sequence[Tensor]) -> None:
        size = sum(part.numel() * part.element_size() for part in (patches, *levels))
        if self.bytes + size <= self._most:
            # Copies: a row of a batch would keep the whole batch in memory.
            self._kept[image] = patches.clone(), [level.clone() for level in levels]
            self.bytes += size
