"""A frozen embedding of images for the domain probe: the vision tower where it has weights, else a descriptor."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING

from ifas.core.config import VisionConfig
from ifas.model.sources import PACKAGE

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

#: Cells a side of the descriptor, and images that go through the tower at a time.
CELLS = 4
BATCH = 16


def embed(pictures: Iterable[npt.NDArray[np.uint8]], vision: VisionConfig) -> tuple[npt.NDArray[np.float64], str]:
    """One vector per RGB image (H, W, 3), (N, F), and what it is in words.

    The tower is used where a package carries its weights: it is small. Others give the descriptor, which needs none.

    Raises:
        ConfigError: the package of the weights is not installed, or holds another kind of tower.
    """
    import numpy as np

    if vision.source.startswith(PACKAGE):
        return _tower(pictures, vision), f"the frozen tower {vision.kind} (the global token of each of its levels)"
    vectors = np.stack([descriptor(picture) for picture in pictures])
    return vectors, f"a plain descriptor (colour mean, spread and gradient of {CELLS} x {CELLS} cells)"


def descriptor(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Mean and spread of each channel and mean gradient of CELLS x CELLS cells of the image at 64 x 64 pixels."""
    import numpy as np
    from PIL import Image

    small = np.asarray(Image.fromarray(picture).resize((64, 64), Image.Resampling.BOX), dtype=np.float64) / 255
    side = 64 // CELLS
    cells = small.reshape(CELLS, side, CELLS, side, 3)
    down, across = np.gradient(small.mean(axis=2))
    steps = np.stack([np.abs(down), np.abs(across)], axis=-1).reshape(CELLS, side, CELLS, side, 2)
    parts = (cells.mean(axis=(1, 3)), cells.std(axis=(1, 3)), steps.mean(axis=(1, 3)))
    return np.concatenate([part.reshape(-1) for part in parts])


def _tower(pictures: Iterable[npt.NDArray[np.uint8]], vision: VisionConfig) -> npt.NDArray[np.float64]:
    import numpy as np
    import torch
    from PIL import Image

    from ifas.model.vision import load_tower

    tower = load_tower(vision).eval()
    side = (vision.image_size, vision.image_size)
    out = []
    with torch.inference_mode():
        waiting = iter(pictures)
        while some := list(islice(waiting, BATCH)):
            small = [np.asarray(Image.fromarray(one).resize(side, Image.Resampling.BILINEAR)) for one in some]
            _, levels = tower(torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).contiguous())
            out.append(torch.cat(levels, dim=1).double().numpy())
    return np.concatenate(out)
