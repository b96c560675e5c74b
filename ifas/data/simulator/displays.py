"""Replay attacks: a photo on an LCD behind glass. Moire is not drawn: it emerges where sub-pixels meet photosites."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from ifas.data.simulator.arrays import F32, dot, smoothstep, srgb_decode
from ifas.data.simulator.backdrops import Backdrop
from ifas.data.simulator.camera import PICTURE, SENSOR
from ifas.data.simulator.framing import Framing
from ifas.data.simulator.jit import kernel
from ifas.data.simulator.light import Light, ggx
from ifas.data.simulator.sheet import Photo, Placed, before, pixels_per_height, place

#: Device -> height of the displayed picture in decimetres, and display rows along it (low, high).
DEVICES: dict[str, tuple[float, tuple[int, int]]] = {
    "phone": (1.35, (900, 1500)),
    "tablet": (2.2, (700, 1300)),
    "monitor": (3.0, (520, 1080)),
}
WHITE = np.array([0.95, 1.0, 1.08], np.float32)


@kernel
def _opened(t: float, start: float, length: float) -> float:
    """Integral from 0 to t of a window [start, start + length) that repeats with period 1."""
    whole = math.floor(t)
    return whole * length + min(max(t - whole - start, 0.0), length)


@kernel
def _emit(uv: F32, picture: F32, rows: float, aperture: float, blur: float) -> F32:
    """Light of a striped LCD per photosite: 2 x 2 samples, each an exact box integral over sub-pixels."""
    height, width = uv.shape[0], uv.shape[1]
    tall, wide = picture.shape[0], picture.shape[1]
    columns = rows * wide / tall
    out = np.zeros((height, width, 3), np.float32)
    for y in range(height):
        for x in range(width):
            u0, v0 = uv[y, x, 0], uv[y, x, 1]
            if u0 < 0 or u0 > 1 or v0 < 0 or v0 > 1:
                continue
            right = x + 1 if x + 1 < width and uv[y, x + 1, 0] > -5 else x - 1
            below = y + 1 if y + 1 < height and uv[y + 1, x, 0] > -5 else y - 1
            if right < 0 or below < 0 or uv[y, right, 0] < -5 or uv[below, x, 0] < -5:
                continue
            ux, vx = (uv[y, right, 0] - u0) * (right - x), (uv[y, right, 1] - v0) * (right - x)
            uy, vy = (uv[below, x, 0] - u0) * (below - y), (uv[below, x, 1] - v0) * (below - y)
            half_u = (abs(ux) + abs(uy)) * columns * (aperture / 4 + blur / 2)
            half_v = (abs(vx) + abs(vy)) * rows * (aperture / 4 + blur / 2)
            for k in range(4):
                dx, dy = (k % 2 - 0.5) * aperture / 2, (k // 2 - 0.5) * aperture / 2
                u = u0 + dx * ux + dy * uy
                v = v0 + dx * vx + dy * vy
                if u < 0 or u > 1 or v < 0 or v > 1:
                    continue
                px = min(u * (wide - 1), wide - 1.001)
                py = min(v * (tall - 1), tall - 1.001)
                i, j = int(py), int(px)
                fy, fx = py - i, px - j
                s, t = u * columns, v * rows
                row = (_opened(t + half_v, 0.12, 0.78) - _opened(t - half_v, 0.12, 0.78)) / (2 * half_v)
                for c in range(3):
                    start = (c + 0.08) / 3
                    lit = (_opened(s + half_u, start, 0.26) - _opened(s - half_u, start, 0.26)) / (2 * half_u)
                    value = (picture[i, j, c] * (1 - fx) + picture[i, j + 1, c] * fx) * (1 - fy) + (
                        picture[i + 1, j, c] * (1 - fx) + picture[i + 1, j + 1, c] * fx
                    ) * fy
                    out[y, x, c] += (value * 0.96 + 0.002) * lit * row / (0.26 * 0.78) / 4
    return out


@dataclass(frozen=True)
class Display:
    """One device.

    Attributes:
        device: a key of DEVICES. rows: display rows along the picture.
        bezel: share of the height. luminance: of white. pale: a light grey bezel instead of black.
        aperture: light-gathering width of a photosite over its pitch. blur: defocus, photosites.
        roughness: of the glass. softbox: strength of a lamp or window seen in the glass, 0 for none.
    """

    device: str
    rows: int
    bezel: float
    luminance: float
    pale: bool
    aperture: float
    blur: float
    roughness: float
    softbox: float

    @property
    def species(self) -> str:
        """PAI species."""
        return f"replay.{self.device}"


def draw_display(rng: np.random.Generator) -> Display:
    """A device; a third is out of focus, so that moire alone does not give replays away."""
    device = str(rng.choice(list(DEVICES)))
    rows = DEVICES[device][1]
    return Display(
        device,
        int(rng.integers(*rows)),
        float(rng.uniform(0.03, 0.09)),
        float(rng.uniform(0.8, 2.2)),
        bool(rng.random() < 0.2),
        float(rng.uniform(0.5, 0.9)),
        float(rng.uniform(0.4, 1.2) if rng.random() < 0.35 else rng.uniform(0.0, 0.15)),
        float(rng.uniform(0.08, 0.3)),
        float(rng.uniform(3, 14) if rng.random() < 0.6 else 0.0),
    )


def _reflection(display: Display, placed: Placed, light: Light, behind: Backdrop, rng: np.random.Generator) -> F32:
    """What the glass mirrors: the room, a soft box or window, and the haze of the key light. (m, 3)."""
    normals, views = placed.normals, placed.views
    facing = np.clip(dot(normals, views), 0, 1)
    mirrored = 2 * facing[:, None] * normals - views
    grazing = 1 - facing
    fresnel = (0.04 + 0.96 * grazing * np.square(np.square(grazing)))[:, None]
    room = behind(rng, 128) * np.float32(rng.uniform(0.2, 1.0))
    column = np.clip((mirrored[:, 0] * 0.5 + 0.5) * 127, 0, 127).astype(np.int32)
    row = np.clip((0.5 - mirrored[:, 1] * 0.5) * 127, 0, 127).astype(np.int32)
    out = room[row, column] * fresnel * (light.sky * np.float32(1.5))
    where = mirrored[int(rng.integers(len(mirrored)))]
    extent, edge = rng.uniform(0.02, 0.12, 2), float(rng.uniform(0.004, 0.03))
    if display.softbox:
        inside = smoothstep(-edge, edge, extent[0] - np.abs(mirrored[:, 0] - where[0]))
        inside = inside * smoothstep(-edge, edge, extent[1] - np.abs(mirrored[:, 1] - where[1]))
        out += (inside * fresnel[:, 0])[:, None] * (light.key * np.float32(display.softbox / 2.2))
    rough = np.full(len(normals), display.roughness, np.float32)
    haze = ggx(normals, views, light.towards, rough, 0.04) * 0.15
    return np.asarray(out + haze[:, None] * light.key, dtype=np.float32)


def show_display(
    display: Display,
    photo: Photo,
    framing: Framing,
    light: Light,
    backdrop: F32,
    behind: Backdrop,
    rng: np.random.Generator,
) -> tuple[F32, Placed, dict[str, object]]:
    """Radiance (SENSOR, SENSOR, 3) of the display before the camera, its placement, and its ground truth."""
    placed = place(photo, framing, DEVICES[display.device][0], display.bezel, 0.0, SENSOR)
    picture = cv2.GaussianBlur(srgb_decode(photo.pixels.astype(np.float32) / 255), (0, 0), 0.5)
    emitted = _emit(placed.uv, picture, float(display.rows), display.aperture, display.blur)
    rows, columns = placed.fragments.pixels.T
    uv = placed.uv[rows, columns]
    u, v = uv[:, 0], uv[:, 1]
    active = ((u >= 0) & (u <= 1) & (v >= 0) & (v <= 1))[:, None]
    lit = np.clip(dot(placed.normals, light.towards), 0, 1)[:, None] * light.key + light.sky
    plastic = np.float32(0.4 if display.pale else 0.02) * lit / np.pi
    mirrored = _reflection(display, placed, light, behind, rng)
    colour = np.where(active, emitted[rows, columns] * (np.float32(display.luminance) * WHITE), plastic)
    colour += mirrored * np.where(active, np.float32(1), np.float32(0.7))
    dim = np.float32(rng.uniform(0.3, 1.0))
    radiance = before(placed, colour, backdrop * dim, light, float(rng.uniform(0.1, 4)))
    truth: dict[str, object] = {
        "device": display.device,
        "display_rows": display.rows,
        "display_pitch_px": round(pixels_per_height(placed) / display.rows * PICTURE / SENSOR, 3),
        "bezel": round(display.bezel, 3),
        "luminance": round(display.luminance, 3),
        "defocus": round(display.blur, 3),
        "softbox": round(display.softbox, 2),
        "rim_visible": placed.rim_visible,
    }
    return radiance, placed, truth
