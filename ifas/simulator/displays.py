"""Replay attacks: a photo on an LCD behind glass. Moire is not drawn: it emerges where sub-pixels meet photosites."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from ifas.simulator.arrays import F32, dot, smoothstep, srgb_decode
from ifas.simulator.backdrops import Backdrop
from ifas.simulator.camera import PICTURE, SENSOR
from ifas.simulator.figure import Box
from ifas.simulator.framing import Framing
from ifas.simulator.holders import hold, lay_over
from ifas.simulator.jit import kernel
from ifas.simulator.light import Light, ggx
from ifas.simulator.screens import Interface, draw_interface, draw_over
from ifas.simulator.sheet import Photo, Placed, before, pixels_per_height, place
from ifas.simulator.visible import Scene

#: Device -> height of the displayed picture in decimetres, and display rows along it (low, high).
DEVICES: dict[str, tuple[float, tuple[int, int]]] = {
    "phone": (1.35, (600, 1500)),
    "tablet": (2.2, (640, 1600)),
}
BEZELS = (0.02, 0.08, 0.3, 0.5, 0.75)  # albedo: black, graphite, silver, grey, white


@kernel
def _opened(t: float, start: float, length: float) -> float:
    """Integral from 0 to t of a window [start, start + length) that repeats with period 1."""
    whole = math.floor(t)
    return whole * length + min(max(t - whole - start, 0.0), length)


@kernel
def _emit(uv: F32, picture: F32, rows: float, aperture: float, blur: float) -> tuple[F32, F32]:
    """Light of a striped LCD per photosite: 2 x 2 samples, each an exact box integral over sub-pixels.

    Returns it twice: as it is, and as a display without pixels would give it.
    """
    height, width = uv.shape[0], uv.shape[1]
    tall, wide = picture.shape[0], picture.shape[1]
    columns = rows * wide / tall
    out = np.zeros((height, width, 3), np.float32)
    plain = np.zeros((height, width, 3), np.float32)
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
                    light = (value * 0.96 + 0.002) / 4
                    out[y, x, c] += light * lit * row / (0.26 * 0.78)
                    plain[y, x, c] += light
    return out, plain


@dataclass(frozen=True)
class Display:
    """One device.

    Attributes:
        device: a key of DEVICES. rows: display rows along the picture.
        bezel: share of the height. luminance: mean of the picture over mean of the place.
        white: (3,) linear RGB of its white. vivid: exponent of its picture mode. frame: albedo of the bezel.
        aperture: light-gathering width of a photosite over its pitch. blur: defocus, photosites.
        roughness: of the glass. softbox: strength of a lamp or window seen in the glass, 0 for none.
        interface: text that the device draws, or None. held: by a hand or a clamp, if an edge is in view.
    """

    device: str
    rows: int
    bezel: float
    luminance: float
    white: tuple[float, float, float]
    vivid: float
    frame: float
    aperture: float
    blur: float
    roughness: float
    softbox: float
    interface: Interface | None
    held: bool

    @property
    def species(self) -> str:
        """PAI species."""
        return f"replay.{self.device}"


def draw_display(rng: np.random.Generator, device: str) -> Display:
    """A device; a third is out of focus, so that moire alone does not give replays away."""
    low, high = np.log(DEVICES[device][1])
    return Display(
        device,
        int(np.exp(rng.uniform(low, high))),
        float(rng.uniform(0.015, 0.06)),
        float(np.exp(rng.uniform(np.log(0.45), np.log(1.3)))),
        (float(rng.uniform(0.93, 1.07)), 1.0, float(rng.uniform(0.90, 1.07))),
        float(rng.uniform(1.2, 2.0)),
        float(rng.choice(BEZELS)),
        float(rng.uniform(0.5, 0.9)),
        float(rng.uniform(0.4, 1.4) if rng.random() < 0.35 else rng.uniform(0.0, 0.15)),
        float(rng.uniform(0.08, 0.3)),
        float(rng.uniform(4, 12) if rng.random() < 0.45 else 0.0),
        draw_interface(rng) if rng.random() < 0.45 else None,
        bool(rng.random() < 0.4),
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
    haze = ggx(normals, views, light.towards, rough, 0.04) * 0.1
    return np.asarray(out + haze[:, None] * light.key, dtype=np.float32)


def _text_in_frame(placed: Placed, boxes: tuple[Box, ...]) -> bool:
    """Whether at least half of any line of text is in the frame, in its whole height."""
    for x, y, w, h in boxes:
        u, v = np.meshgrid(np.linspace(x, x + w, 9), np.array([y, y + h]))
        places = placed.project(u.ravel().astype(np.float32), v.ravel().astype(np.float32))
        within = ((places > 2) & (places < SENSOR - 2)).all(axis=1).reshape(2, -1).all(axis=0)
        if float(within.mean()) >= 0.5:
            return True
    return False


def show_display(
    display: Display,
    photo: Photo,
    framing: Framing,
    light: Light,
    backdrop: F32,
    behind: Backdrop,
    rng: np.random.Generator,
) -> Scene:
    """The display before the camera."""
    placed = place(photo, framing, DEVICES[display.device][0], display.bezel, 0.0, SENSOR)
    pixels, boxes, bars = photo.pixels, tuple[Box, ...](), tuple[float, ...]()
    if display.interface is not None:
        screen = draw_over(pixels, photo.face, display.interface)
        pixels, boxes, bars = screen.pixels, screen.text, screen.bars
    picture = srgb_decode(pixels.astype(np.float32) / 255) ** np.float32(display.vivid)
    picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), 0.35), dtype=np.float32)
    emitted, plain = _emit(placed.uv, picture, float(display.rows), display.aperture, display.blur)
    rows, columns = placed.fragments.pixels.T
    uv = placed.uv[rows, columns]
    u, v = uv[:, 0], uv[:, 1]
    active = ((u >= 0) & (u <= 1) & (v >= 0) & (v <= 1))[:, None]
    lit = np.clip(dot(placed.normals, light.towards), 0, 1)[:, None] * light.key + light.sky
    plastic = np.float32(display.frame) * lit / np.pi
    mirrored = _reflection(display, placed, light, behind, rng) * np.where(active, np.float32(1), np.float32(0.7))
    # Whoever holds a device sets its brightness to the place.
    place_level = 0.5 * float(backdrop.mean()) + 0.1 * float(light.key.mean() + light.sky.mean())
    level = display.luminance * place_level / max(float(plain[plain > 0].mean()), 1e-3)
    white = np.array(display.white, np.float32) * np.float32(np.clip(level, 0.25, 3.0))
    blur = float(rng.uniform(0.1, 3))
    layer = hold(rng, placed.outline, light, SENSOR) if display.held else None

    def seen(emission: F32) -> F32:
        colour = np.where(active, emission[rows, columns] * white, plastic) + mirrored
        out = before(placed, colour, backdrop, light, blur)
        return out if layer is None else lay_over(out, layer)

    medium = placed.fragments.image(active[:, 0].astype(np.float32)) > 0
    truth: dict[str, object] = {
        "device": display.device,
        "display_rows": display.rows,
        "display_pitch_px": round(pixels_per_height(placed) / display.rows * PICTURE / SENSOR, 3),
        "bezel": round(display.bezel, 3),
        "bezel_albedo": round(display.frame, 3),
        "luminance": round(display.luminance, 3),
        "defocus": round(display.blur, 3),
        "softbox": round(display.softbox, 2),
        "edges": placed.edges(PICTURE, bars),
    }
    return Scene(
        seen(emitted),
        placed.face,
        medium,
        placed.fragments.image(mirrored.mean(1)),
        seen(plain),
        placed.border,
        screen_text=_text_in_frame(placed, boxes),
        holder=layer.kind if layer else None,
        truth=truth,
    )
