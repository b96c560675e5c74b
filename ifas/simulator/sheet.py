"""A flat or bent sheet before the camera: where each pixel of the sensor falls on the picture it carries."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ifas.simulator.arrays import F32, I32, U8, unit
from ifas.simulator.figure import Box
from ifas.simulator.framing import ABOVE_MIDDLE, Framing, bounding_box, direction
from ifas.simulator.light import Light
from ifas.simulator.raster import Fragments, View, rasterise
from ifas.simulator.topology import vertex_normals

GRID = 48  # vertices along each side of the sheet
ALONG = 32  # points along each side of the picture's outline
#: A head's box is a little smaller than `share` and lies lower, as it turns; sheets are held so that theirs is alike.
AS_A_HEAD, LOWER = 0.985, 0.024
SQUARE_ON = 0.75  # a flat face narrows more with the angle than a head does
OUTSIDE = -9.0  # value of `Placed.uv` where the sheet is not


@dataclass(frozen=True)
class Photo:
    """A digital picture of one face. `face`: x, y, w, h as shares of the picture."""

    pixels: U8
    face: Box

    @property
    def aspect(self) -> float:
        """Width over height."""
        return float(self.pixels.shape[1] / self.pixels.shape[0])


@dataclass(frozen=True)
class Placed:
    """A sheet as the camera sees it; rows are the covered pixels.

    Attributes:
        uv: (size, size, 2) position on the picture, 0 to 1 within it; OUTSIDE where the sheet is not.
        fragments: the covered pixels.
        points, normals, views: (m, 3), decimetres and unit vectors.
        face: box of the face in the taken picture, shares of it.
        border: share of the picture's outline within the frame.
        outline: (n, 2) places in the frame of points along that outline, clockwise from the top left, in photosites.
        view: the camera. shape: width, height and bend of the sheet, decimetres.
    """

    uv: F32
    fragments: Fragments
    points: F32
    normals: F32
    views: F32
    face: Box
    border: float
    outline: F32
    view: View
    shape: tuple[float, float, float]

    def project(self, u: F32, v: F32) -> F32:
        """Where points of the picture are in the frame: (n, 2), x and y in photosites."""
        return np.asarray(self.view.project(_surface(u, v, *self.shape))[:, :2], dtype=np.float32)

    def edges(self, picture: int, bars: tuple[float, ...] = ()) -> list[list[float]]:
        """Straight lines that the medium shows: the sides of the picture on it, and level lines at heights `bars` of
        that picture. Each x0, y0, x1, y1 in pixels of a frame `picture` wide, also where they lie outside it."""
        sides = [(0.0, 0.0, 1.0, 0.0), (1.0, 0.0, 1.0, 1.0), (1.0, 1.0, 0.0, 1.0), (0.0, 1.0, 0.0, 0.0)]
        uv = np.array(sides + [(0.0, v, 1.0, v) for v in bars], np.float32).reshape(-1, 2)
        places = self.project(uv[:, 0], uv[:, 1]).reshape(-1, 4) * picture / self.view.size
        return [[round(float(v), 1) for v in line] for line in places]


def _surface(u: F32, v: F32, width: float, height: float, bend: float) -> F32:
    depth = bend * ((u - 0.5) * 2) ** 2 + 0.25 * bend * np.sin(3 * v + 2 * u)
    return np.stack([(u - 0.5) * width, (0.5 - v) * height, depth], axis=-1).astype(np.float32)


def _grid(margin: tuple[float, float]) -> tuple[F32, F32, I32]:
    u, v = np.meshgrid(np.linspace(-margin[0], 1 + margin[0], GRID), np.linspace(-margin[1], 1 + margin[1], GRID))
    i = np.arange(GRID * GRID).reshape(GRID, GRID)[:-1, :-1].ravel()
    cells = np.concatenate([np.stack([i, i + GRID, i + 1], 1), np.stack([i + 1, i + GRID, i + GRID + 1], 1)])
    return u.ravel().astype(np.float32), v.ravel().astype(np.float32), cells.astype(np.int32)


def _around(n: int) -> tuple[F32, F32]:
    """u and v of 4 `n` points along the picture's outline, clockwise from the top left corner."""
    t, zero, one = np.linspace(0, 1, n, endpoint=False), np.zeros(n), np.ones(n)
    return np.concatenate([t, one, 1 - t, zero]), np.concatenate([zero, t, one, 1 - t])


def place(photo: Photo, framing: Framing, height: float, margin: float, bend: float, size: int) -> Placed:
    """Holds a sheet before the camera so that the face on it is framed as `framing` asks.

    Args:
        height: of the picture on the sheet, decimetres.
        margin: border or bezel around the picture, as a share of its height.
        bend: sagitta of the sheet, decimetres; 0 is flat.
        size: side of the sensor in pixels.
    """
    width = height * photo.aspect
    u, v, cells = _grid((margin / photo.aspect, margin))
    points = _surface(u, v, width, height, bend)

    x, y, w, h = photo.face
    centre = _surface(np.array([x + w / 2]), np.array([y + h / 2]), width, height, 0.0)[0]
    face = h * height
    eye = centre + framing.distance * direction(SQUARE_ON * framing.yaw, framing.pitch)
    at = centre + np.array([framing.shift[0], framing.shift[1] - ABOVE_MIDDLE + LOWER, 0]) * face
    focal = framing.share * AS_A_HEAD * size / face * framing.distance
    view = View.looking(eye, at, focal, size, framing.roll)

    fragments = rasterise(view, points, cells)
    normals = vertex_normals(points, cells)
    normals *= np.sign(normals[:, 2:3] + 1e-9)
    columns = fragments.interpolate(np.concatenate([points, normals, u[:, None], v[:, None]], axis=1))
    uv = columns[:, 6:8]
    rim = np.linspace(0, 1, 17)
    border = _surface(
        np.concatenate([x + w * rim, x + w * rim, np.full(17, x), np.full(17, x + w)]),
        np.concatenate([np.full(17, y), np.full(17, y + h), y + h * rim, y + h * rim]),
        width,
        height,
        bend,
    )
    outline = view.project(_surface(*_around(ALONG), width, height, bend))[:, :2]
    within = ((outline > 1) & (outline < size - 1)).all(axis=1)
    return Placed(
        fragments.image(uv, OUTSIDE),
        fragments,
        columns[:, :3],
        unit(columns[:, 3:6]),
        unit(view.eye - columns[:, :3]),
        bounding_box(view.project(border), size),
        float(within.mean()),
        outline,
        view,
        (width, height, bend),
    )


def pixels_per_height(placed: Placed) -> float:
    """Sensor pixels along the height of the picture, in the middle of the sheet's visible part."""
    v = placed.uv[..., 1]
    inside = (v[:-1] > 0) & (v[1:] > 0) & (v[1:] < 1)
    return float(1 / max(np.median((v[1:] - v[:-1])[inside]), 1e-6))


def before(placed: Placed, colour: F32, backdrop: F32, light: Light, blur: float) -> F32:
    """Puts the sheet's radiance (m, 3) before a defocused backdrop, on which the sheet casts a shadow."""
    out = cv2.GaussianBlur(backdrop, (0, 0), max(blur, 0.1))
    size = len(out)
    covered = placed.fragments.image(np.ones(len(colour), np.float32))
    small = cv2.resize(covered, (size // 4, size // 4), interpolation=cv2.INTER_AREA)
    soft = cv2.resize(cv2.GaussianBlur(small, (0, 0), size / 200), (size, size))
    fall = (int(7 * light.towards[1]) + 4, int(-10 * light.towards[0]))
    out *= (1 - 0.3 * np.roll(soft, fall, (0, 1)))[..., None]
    rows, columns = placed.fragments.pixels.T
    out[rows, columns] = colour
    return np.asarray(out, dtype=np.float32)
