"""A canvas of flat shapes that are shaded and textured all at once: what backdrops are drawn on."""

from __future__ import annotations

import cv2
import numpy as np

from ifas.simulator.arrays import F32, I32

SHIFT = 4  # fractional bits of OpenCV's drawing


def fractal(
    rng: np.random.Generator, n: int, coarsest: int, octaves: int, stretch: tuple[float, float] = (1, 1)
) -> F32:
    """Smooth noise (n, n) of standard deviation 1; each octave is twice as fine and 0.6 times as strong."""
    out = np.zeros((n, n), np.float32)
    for k in range(octaves):
        cells = coarsest * 2**k
        if cells > n:
            break
        shape = max(2, int(cells * stretch[0])), max(2, int(cells * stretch[1]))
        some = rng.standard_normal((min(shape[0], n), min(shape[1], n)), dtype=np.float32)
        out += cv2.resize(some, (n, n), interpolation=cv2.INTER_CUBIC) * np.float32(0.6**k)
    return np.asarray(out / max(float(out.std()), 1e-6), dtype=np.float32)


def muted(rng: np.random.Generator, low: float, high: float, colourful: float = 0.35) -> F32:
    """A linear colour; `colourful` 0 is grey."""
    c = rng.uniform(low, high, 3)
    return np.asarray(c * colourful + (1 - colourful) * c.mean(), dtype=np.float32)


class Canvas:
    """Shapes painted one over the other; places and sizes are shares of the picture."""

    def __init__(self, rng: np.random.Generator, n: int, ground: F32) -> None:
        self._rng, self._n = rng, n
        self._labels: I32 = np.zeros((n, n), np.int32)
        self._colours: list[F32] = []
        self._textures: list[tuple[float, float]] = []
        self._slopes: list[tuple[float, float]] = []
        self._add(ground, 0.05, 0.3)

    def _add(self, colour: F32, texture: float, slope: float) -> int:
        self._colours.append(np.asarray(colour, dtype=np.float32))
        self._textures.append((texture * float(self._rng.uniform(0.5, 1.5)), float(self._rng.random())))
        self._slopes.append((float(self._rng.normal(0, slope)), float(self._rng.normal(0, slope))))
        return len(self._colours) - 1

    def polygon(self, points: object, colour: F32, texture: float = 0.06, slope: float = 0.3) -> None:
        """A filled polygon; `points` (k, 2)."""
        label = self._add(colour, texture, slope)
        corners = np.rint(np.asarray(points) * self._n * 2**SHIFT).astype(np.int32)
        cv2.fillPoly(self._labels, [corners], label, cv2.LINE_8, SHIFT)

    def box(
        self, x: float, y: float, w: float, h: float, colour: F32, texture: float = 0.06, slope: float = 0.3
    ) -> None:
        """A rectangle."""
        self.polygon([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], colour, texture, slope)

    def disc(self, x: float, y: float, rx: float, ry: float, turn: float, colour: F32, texture: float = 0.06) -> None:
        """An ellipse, turned by `turn` radians."""
        t = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        a, b = rx * np.cos(t), ry * np.sin(t)
        c, s = np.cos(turn), np.sin(turn)
        self.polygon(np.stack([x + a * c - b * s, y + a * s + b * c], 1), colour, texture)

    def leaves(self, x: float, y: float, radius: float, count: int, colour: F32) -> None:
        """A plant or a tree's crown: many small turned ellipses about a place."""
        rng = self._rng
        for _ in range(count):
            r, t = radius * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
            size = radius * rng.uniform(0.08, 0.24)
            tone = colour * np.float32(rng.uniform(0.35, 1.7))
            self.disc(x + r * np.cos(t), y + r * np.sin(t), size, size * 0.45, rng.uniform(0, np.pi), tone)

    def clutter(self, x: float, y: float, w: float, h: float, count: int, low: float, high: float) -> None:
        """Things of all sizes within a rectangle, few large and many small, one before the other (dead leaves)."""
        rng = self._rng
        for k in range(count):
            size = 0.5 * min(w, h) * (1 + k) ** -0.5
            a, b = x + rng.uniform(0, w), y + rng.uniform(0, h)
            colour = muted(rng, low, high, 0.5)
            if rng.random() < 0.6:
                wide, tall = size * rng.uniform(0.4, 1.6), size * rng.uniform(0.4, 1.6)
                a, b = np.clip(a, x, max(x, x + w - wide)), np.clip(b, y, max(y, y + h - tall))
                self.box(float(a), float(b), float(wide), float(tall), colour)
            else:
                self.disc(a, b, size * 0.6, size * rng.uniform(0.3, 0.6), rng.uniform(0, np.pi), colour)

    def paint(self, blur: tuple[float, float]) -> F32:
        """Linear radiance (n, n, 3): shapes shaded, textured, and out of focus by sigma `blur` at n = 512."""
        rng, n, at = self._rng, self._n, self._labels
        axis = np.linspace(-1, 1, n, dtype=np.float32)
        slope, texture = np.array(self._slopes, np.float32), np.array(self._textures, np.float32)
        coarse, fine = fractal(rng, n, 6, 4), fractal(rng, n, 64, 3, (1.0, float(rng.choice((0.3, 1.0, 3.0)))))
        strength, mix = texture[at, 0], texture[at, 1]
        shade = 1 + slope[at, 0] * axis + slope[at, 1] * axis[:, None]
        shade = np.clip(shade, 0.35, 1.8) * np.clip(1 + strength * (mix * coarse + 1.6 * (1 - mix) * fine), 0.2, 2)
        # Shapes darken what lies below and beside them.
        edge = (at[1:, 1:] != at[:-1, :-1]).astype(np.float32)
        contact = cv2.GaussianBlur(np.pad(edge, ((1, 0), (1, 0))), (0, 0), n / 170)
        shade = shade * (1 - 0.45 * np.clip(contact * 2, 0, 1))
        image = np.array(self._colours, np.float32)[at] * shade[..., None].astype(np.float32)
        image = image * (1 + 0.25 * fractal(rng, n, 2, 2))[..., None].clip(0.3, 2)
        sigma = max(0.3, np.exp(rng.uniform(*np.log(blur))) * n / 512)
        return np.asarray(cv2.GaussianBlur(np.clip(image, 0.015, 2.5), (0, 0), sigma), dtype=np.float32)
