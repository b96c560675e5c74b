"""Views: the square parts of an image that a model sees of a face.

A view is never squeezed: what lies outside of the image is the image mirrored at its edge. In black it would look like
the rim of a display or the edge of a sheet, which is what attacks are told by. Bars and borders of one colour that
somebody put around the image are no part of it: with them, the same image would look smaller to the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ifas.core.errors import unknown_key
from ifas.faces.face import Face

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]


#: How far the pixels of a bar are from one colour, in levels of 0 to 255: compression blurs a bar's edge and its tone.
BAR_LEVELS = 6
#: Bars that leave less than this share of a side are none.
LEAST_SHARE = 0.25


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


def without_bars(picture: Pixels) -> tuple[Pixels, int, int]:
    """An image (H, W, 3) without bars or a border of one colour, and how much went at its left and at its top.

    A row or column belongs to a bar where its pixels differ from the corner's by at most `BAR_LEVELS`; cameras have
    more noise than that. An image of one colour keeps its frame.
    """
    height, width = picture.shape[:2]
    rows, columns = (0, height), (0, width)
    # A border has two pairs of bars: the inner pair ends at the outer one.
    for _ in range(2):
        rows = _bars(picture[:, columns[0] : columns[1]], rows)
        if rows[0] < rows[1]:
            columns = _bars(picture[rows[0] : rows[1]].swapaxes(0, 1), columns)
        if rows[1] - rows[0] < LEAST_SHARE * height or columns[1] - columns[0] < LEAST_SHARE * width:
            return picture, 0, 0
    return picture[slice(*rows), slice(*columns)], columns[0], rows[0]


def unframed(face: Face) -> Face:
    """The face in its image without bars or a border of one colour; of the box, the part that lies in that."""
    bare, left, top = without_bars(face.picture)
    height, width = bare.shape[:2]
    x, y, w, h = face.box
    x0, x1 = max(x - left, 0.0), min(x + w - left, float(width))
    y0, y1 = max(y - top, 0.0), min(y + h - top, float(height))
    if bare.shape == face.picture.shape:
        return face
    # A box that lies in the bars alone tells nothing.
    return Face.whole(bare) if x1 <= x0 or y1 <= y0 else Face(bare, (x0, y0, x1 - x0, y1 - y0))


def _bars(lines: Pixels, inside: tuple[int, int]) -> tuple[int, int]:
    """First and last line (N, M, 3) between the bars."""
    first, last = inside
    while first < last and _plain(lines[first], lines[inside[0], 0]):
        first += 1
    while last > first and _plain(lines[last - 1], lines[inside[1] - 1, 0]):
        last -= 1
    return first, last


def _plain(line: Pixels, colour: Pixels) -> bool:
    return bool((abs(line.astype(int) - colour.astype(int)) <= BAR_LEVELS).all())


def cut(picture: Pixels, part: Square, side: int) -> Pixels:
    """A square of an image (H, W, 3), resized to (side, side, 3). Bilinear with antialiasing, mirrored outside.

    A square that does not meet the image is black.
    """
    import numpy as np
    import torch
    from torch.nn import functional as F

    height, width = picture.shape[:2]
    scale = side / max(part.side, 1.0)
    # Where the image's own part of the square begins and ends: in the image, and in the view.
    x0, x1 = _inside(part.left, part.side, width)
    y0, y1 = _inside(part.top, part.side, height)
    if x1 <= x0 or y1 <= y0:
        return np.zeros((side, side, 3), np.uint8)
    u0, u1 = _placed(x0 - part.left, x1 - part.left, scale, side)
    v0, v1 = _placed(y0 - part.top, y1 - part.top, scale, side)
    inner = np.require(picture[y0:y1, x0:x1], requirements=["C", "W"])  # what torch takes without a copy
    inner_1CHW = torch.from_numpy(inner).permute(2, 0, 1)[None]
    resized = F.interpolate(inner_1CHW, (v1 - v0, u1 - u0), mode="bilinear", antialias=True)[0]
    return np.pad(resized.permute(1, 2, 0).numpy(), ((v0, side - v1), (u0, side - u1), (0, 0)), mode="symmetric")


def _inside(start: float, length: float, limit: int) -> tuple[int, int]:
    return max(0, round(start)), min(limit, max(round(start) + 1, round(start + length)))


def _placed(start: float, end: float, scale: float, side: int) -> tuple[int, int]:
    """Pixels of the view between two places of the square; at least one."""
    first = min(side - 1, max(0, round(start * scale)))
    return first, min(side, max(first + 1, round(end * scale)))
