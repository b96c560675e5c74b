"""Views: the square parts of an image that a model sees of a face.

A view is never squeezed: what lies outside of the image is black, as the bars of a letterboxed image are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ifas.core.errors import unknown_key
from ifas.faces.face import Face

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]


class Square(NamedTuple):
    """A square in pixels of an image; it may reach beyond the image."""

    left: float
    top: float
    side: float


def _face(face: Face, margin: float) -> Square:
    x, y, w, h = face.box
    side = max(w, h) * margin
    return Square(x + (w - side) / 2, y + (h - side) / 2, side)


def _frame(face: Face, _margin: float) -> Square:
    height, width = face.picture.shape[:2]
    side = float(max(height, width))
    return Square((width - side) / 2, (height - side) / 2, side)


#: Kind of view -> its square, of a face and a margin: side of the square over the longer side of the face's box.
VIEWS = {"face": _face, "frame": _frame}


def square(face: Face, kind: str, margin: float) -> Square:
    """The part of the image that a kind of view shows.

    Raises:
        ConfigError: unknown kind.
    """
    if kind not in VIEWS:
        raise unknown_key("view", kind, VIEWS)
    return VIEWS[kind](face, margin)


def cut(picture: Pixels, part: Square, side: int) -> Pixels:
    """A square of an image (H, W, 3), resized to (side, side, 3). Bilinear with antialiasing."""
    import numpy as np
    import torch
    from torch.nn import functional as F

    height, width = picture.shape[:2]
    scale = side / max(part.side, 1.0)
    # Where the image's own part of the square begins and ends: in the image, and in the view.
    x0, x1 = _inside(part.left, part.side, width)
    y0, y1 = _inside(part.top, part.side, height)
    view = np.zeros((side, side, 3), np.uint8)
    if x1 <= x0 or y1 <= y0:
        return view
    u0, u1 = _placed(x0 - part.left, x1 - part.left, scale, side)
    v0, v1 = _placed(y0 - part.top, y1 - part.top, scale, side)
    inner = np.require(picture[y0:y1, x0:x1], requirements=["C", "W"])  # what torch takes without a copy
    inner_1CHW = torch.from_numpy(inner).permute(2, 0, 1)[None]
    resized = F.interpolate(inner_1CHW, (v1 - v0, u1 - u0), mode="bilinear", antialias=True)[0]
    view[v0:v1, u0:u1] = resized.permute(1, 2, 0).numpy()
    return view


def _inside(start: float, length: float, limit: int) -> tuple[int, int]:
    return max(0, round(start)), min(limit, max(round(start) + 1, round(start + length)))


def _placed(start: float, end: float, scale: float, side: int) -> tuple[int, int]:
    """Pixels of the view between two places of the square; at least one."""
    first = min(side - 1, max(0, round(start * scale)))
    return first, min(side, max(first + 1, round(end * scale)))
