"""Print attacks: a photo as a CMYK halftone on a flat or bent sheet of paper."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ifas.simulator.arrays import F32, dot
from ifas.simulator.camera import PICTURE, SENSOR
from ifas.simulator.framing import Framing
from ifas.simulator.holders import hold, lay_over
from ifas.simulator.jit import kernel
from ifas.simulator.light import Light, ggx
from ifas.simulator.sheet import OUTSIDE, Photo, before, pixels_per_height, place
from ifas.simulator.visible import Scene

SCREEN_ANGLES = np.deg2rad(np.array([15.0, 75.0, 0.0, 45.0])).astype(np.float32)  # C, M, Y, K
INKS = np.array(
    [[0.10, 0.62, 0.80], [0.78, 0.10, 0.38], [0.90, 0.80, 0.10], [0.015, 0.015, 0.015]], np.float32
)  # linear transmittance
PAPER = np.array([0.86, 0.86, 0.84], np.float32)
CELL = 64  # side of one halftone cell in the table; a power of two


def _cell() -> F32:
    """Threshold of one halftone cell, 0 in the middle of a dot: the tile that repeats over the sheet."""
    t = np.arange(CELL) / CELL * 2 * np.pi
    return (1 - (np.cos(t)[:, None] + np.cos(t)[None] + 2) / 4).astype(np.float32)


DOT = _cell()
UNDER_COLOUR = 0.6  # under-colour removal
BLEED = 4.0  # how steep the edge of a dot is
#: Ink share of a cell, by coverage 0 to 1.
MEAN = np.array([np.clip((c - DOT) * BLEED + 0.5, 0, 1).mean() for c in np.linspace(0, 1, 256)], np.float32)


@kernel
def _halftone(
    uv: F32, coverage: F32, lines: float, angles: F32, inks: F32, dot: F32, paper: F32, bleed: float, mean: F32
) -> tuple[F32, F32]:
    """Reflectance per pixel, 3 x 3 samples each, and what it is on average over the dots (Demichel, Neugebauer).

    `coverage` is the root of the ink share, (h, w, 4); `mean` the ink share of a cell by coverage.
    """
    height, width = uv.shape[0], uv.shape[1]
    rows, columns = coverage.shape[0], coverage.shape[1]
    aspect = columns / rows
    cells = dot.shape[0]
    last = cells - 1
    cosine, sine = np.cos(angles), np.sin(angles)
    out = np.zeros((height, width, 3), np.float32)
    plain = np.zeros((height, width, 3), np.float32)
    ink = np.zeros(4, np.float32)
    for y in range(height):
        for x in range(width):
            u, v = uv[y, x, 0], uv[y, x, 1]
            if u < -5:
                continue
            if u < 0 or u >= 1 or v < 0 or v >= 1:
                for c in range(3):
                    out[y, x, c] = paper[c]
                    plain[y, x, c] = paper[c]
                continue
            right = x + 1 if x + 1 < width and uv[y, x + 1, 0] > -5 else x - 1
            below = y + 1 if y + 1 < height and uv[y + 1, x, 0] > -5 else y - 1
            if right < 0 or below < 0 or uv[y, right, 0] < -5 or uv[below, x, 0] < -5:
                continue
            ux, vx = (uv[y, right, 0] - u) * (right - x), (uv[y, right, 1] - v) * (right - x)
            uy, vy = (uv[below, x, 0] - u) * (below - y), (uv[below, x, 1] - v) * (below - y)
            px = min(u * (columns - 1), columns - 1.001)
            py = min(v * (rows - 1), rows - 1.001)
            i, j = int(py), int(px)
            fy, fx = py - i, px - j
            for c in range(4):
                ink[c] = (coverage[i, j, c] * (1 - fx) + coverage[i, j + 1, c] * fx) * (1 - fy) + (
                    coverage[i + 1, j, c] * (1 - fx) + coverage[i + 1, j + 1, c] * fx
                ) * fy
            for c in range(3):
                plain[y, x, c] = paper[c]
                for q in range(4):
                    if ink[q] >= 0.1:
                        plain[y, x, c] *= 1 - mean[int(ink[q] * (mean.shape[0] - 1))] * (1 - inks[q, c])
            for k in range(9):
                dx, dy = (k % 3 - 1) / 3.0, (k // 3 - 1) / 3.0
                a = (u + dx * ux + dy * uy) * aspect * lines
                b = (v + dx * vx + dy * vy) * lines
                r, g, bl = 1.0, 1.0, 1.0
                for c in range(4):
                    if ink[c] < 0.1:
                        continue
                    s = a * cosine[c] + b * sine[c]
                    t = b * cosine[c] - a * sine[c]
                    threshold = dot[int((s - np.floor(s)) * cells) & last, int((t - np.floor(t)) * cells) & last]
                    share = min(max((ink[c] - threshold) * bleed + 0.5, 0.0), 1.0)
                    r *= 1 - share * (1 - inks[c, 0])
                    g *= 1 - share * (1 - inks[c, 1])
                    bl *= 1 - share * (1 - inks[c, 2])
                out[y, x, 0] += r * paper[0] / 9
                out[y, x, 1] += g * paper[1] / 9
                out[y, x, 2] += bl * paper[2] / 9
    return out, plain


def separate(pixels: F32, black: float, cast: tuple[float, float, float]) -> F32:
    """Reflectance in [0, 1], (h, w, 3), to the root of CMYK ink shares (h, w, 4).

    `black` of the grey part goes to K, and UNDER_COLOUR of that is taken off C, M and Y: the rest of the colours below
    the black is what makes the shadows of a print deep. `cast` scales C, M and Y.
    """
    cmy = 1 - pixels
    k = cmy.min(2, keepdims=True) * black
    rest = (cmy - UNDER_COLOUR * k) * np.array(cast, np.float32)
    return np.asarray(np.sqrt(np.clip(np.concatenate([rest, k], axis=2), 0, 1)), dtype=np.float32)


@dataclass(frozen=True)
class Print:
    """One printed sheet.

    Attributes:
        height: of the picture, decimetres. border: white margin, share of the height.
        bend: sagitta over the width, share of the height; 0 is flat.
        lines: halftone lines along the height. black: share of grey printed with K.
        soft: sigma of missed focus, photosites. contrast: of the print. lightness: gain of the photo before printing.
        gain: exponent of the tone curve; 2.2 reproduces the photo, less is a thin print. cast: (3,) error of C, M, Y.
        roughness, gloss: of the paper. held: by a hand or a clamp, if an edge is in view.
    """

    height: float
    border: float
    bend: float
    lines: float
    black: float
    soft: float
    contrast: float
    lightness: float
    gain: float
    cast: tuple[float, float, float]
    roughness: float
    gloss: float
    held: bool

    @property
    def species(self) -> str:
        """PAI species."""
        return "print.bent" if self.bend else "print.flat"


def draw_print(rng: np.random.Generator, *, bent: bool) -> Print:
    """A sheet: half of them with a border, from newspaper to glossy photo paper."""
    glossy = rng.random() < 0.4
    return Print(
        height=float(rng.uniform(1.6, 4.2)),
        border=float(rng.choice((0.0, 0.0, 0.02, 0.05))),
        bend=float(rng.choice((-1, 1)) * rng.uniform(0.05, 0.14)) if bent else 0.0,
        lines=float(np.exp(rng.uniform(np.log(380), np.log(1200)))),
        black=float(rng.uniform(0.93, 1.0)),
        soft=float(rng.uniform(0.7, 1.8) if rng.random() < 0.25 else 0.0),
        contrast=float(rng.uniform(0.95, 1.3) if glossy else rng.uniform(0.85, 1.15)),
        lightness=float(rng.uniform(1.0, 1.8)),
        gain=float(rng.uniform(1.6, 2.3) if glossy else rng.uniform(1.3, 2.0)),
        cast=(float(rng.uniform(0.95, 1.15)), float(rng.uniform(0.8, 1.0)), float(rng.uniform(0.62, 0.88))),
        roughness=float(rng.uniform(0.2, 0.35) if glossy else rng.uniform(0.45, 0.8)),
        gloss=float(rng.uniform(0.5, 1.2) if glossy else rng.uniform(0.05, 0.3)),
        held=bool(rng.random() < 0.4),
    )


def show_print(
    sheet: Print, photo: Photo, framing: Framing, light: Light, backdrop: F32, rng: np.random.Generator
) -> Scene:
    """The sheet before the camera."""
    placed = place(photo, framing, sheet.height, sheet.border, sheet.bend * sheet.height, SENSOR)
    pixels = 0.5 + sheet.contrast * (photo.pixels.astype(np.float32) / 255 - 0.5)
    tones = np.clip(sheet.lightness * np.clip(pixels, 0, 1) ** sheet.gain, 0, 1).astype(np.float32)
    ink = separate(tones, sheet.black, sheet.cast)
    halftone, plain = _halftone(placed.uv, ink, sheet.lines, SCREEN_ANGLES, INKS, DOT, PAPER, BLEED, MEAN)
    rows, columns = placed.fragments.pixels.T
    cosine = np.clip(dot(placed.normals, light.towards), 0, 1)
    irradiance = cosine[:, None] * light.key + light.from_sky(placed.normals) * 1.5
    rough = np.full(len(rows), sheet.roughness, np.float32)
    shine = ggx(placed.normals, placed.views, light.towards, rough, 0.04) * sheet.gloss
    mirrored = shine[:, None] * light.key
    blur = float(rng.uniform(0.1, 3))
    layer = hold(rng, placed.outline, light, SENSOR) if sheet.held else None

    def seen(reflectance: F32) -> F32:
        colour = reflectance[rows, columns] * irradiance / np.pi + mirrored
        out = before(placed, colour, backdrop, light, blur)
        if sheet.soft:
            out = np.asarray(cv2.GaussianBlur(out, (0, 0), sheet.soft), dtype=np.float32)
        return out if layer is None else lay_over(out, layer)

    pitch = pixels_per_height(placed) / sheet.lines * PICTURE / SENSOR
    truth: dict[str, object] = {
        "halftone_lines": round(sheet.lines, 1),
        "halftone_pitch_px": round(pitch, 3),
        "sheet_height_mm": round(sheet.height * 100, 1),
        "border": round(sheet.border, 3),
        "bend": round(sheet.bend, 3),
        "gloss": round(sheet.gloss, 3),
        "roughness": round(sheet.roughness, 3),
        "contrast": round(sheet.contrast, 3),
        "edges": placed.edges(PICTURE),
    }
    return Scene(
        seen(halftone),
        placed.face,
        placed.uv[..., 0] > OUTSIDE / 2,
        placed.fragments.image(mirrored.mean(1)),
        seen(plain),
        placed.border,
        soft=sheet.soft,
        holder=layer.kind if layer else None,
        truth=truth,
    )


assert OUTSIDE < -5  # the kernel's test for "no sheet here"
