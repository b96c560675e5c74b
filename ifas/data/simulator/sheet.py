"""A flat or bent sheet before the camera: where each pixel of the sensor falls on the picture it carries."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ifas.data.simulator.arrays import F32, I32, U8, unit
from ifas.data.simulator.figure import Box
from ifas.data.simulator.framing import ABOVE_MIDDLE, Framing, bounding_box, direction
from ifas.data.simulator.light import Light
from ifas.data.simulator.raster import Fragments, View, rasterise
from ifas.data.simulator.topology import vertex_normals

GRID = 48  # vertices along each side of the sheet
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
        rim_visible: the edge of the picture lies within the frame.
    """

    uv: F32
    fragments: Fragments
    points: F32
    normals: F32
    views: F32
    face: Box
    rim_visible: bool


def _surface(u: F32, v: F32, width: float, height: float, bend: float) -> F32:
    depth = bend * ((u - 0.5) * 2) ** 2 + 0.25 * bend * np.sin(3 * v + 2 * u)
    return np.stack([(u - 0.5) * width, (0.5 - v) * height, depth], axis=-1).astype(np.float32)


def _grid(margin: tuple[float, float]) -> tuple[F32, F32, I32]:
    u, v = np.meshgrid(np.linspace(-margin[0], 1 + margin[0], GRID), np.linspace(-margin[1], 1 + margin[1], GRID))
    i = np.arange(GRID * GRID).reshape(GRID, GRID)[:-1, :-1].ravel()
    cells = np.concatenate([np.stack([i, i + GRID, i + 1], 1), np.stack([i + 1, i + GRID, i + GRID + 1], 1)])
    return u.ravel().astype(np.float32), v.ravel().astype(np.float32), cells.astype(np.int32)


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
    eye = centre + framing.distance * direction(framing.yaw, framing.pitch)
    at = centre + np.array([framing.shift[0], framing.shift[1] - ABOVE_MIDDLE, 0]) * face
    focal = framing.share * size / face * framing.distance
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
    covered = len(uv) < size * size or bool(((uv < 0) | (uv > 1)).any())
    return Placed(
        fragments.image(uv, OUTSIDE),
        fragments,
        columns[:, :3],
        unit(columns[:, 3:6]),
        unit(view.eye - columns[:, :3]),
        bounding_box(view.project(border), size),
        covered,
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
