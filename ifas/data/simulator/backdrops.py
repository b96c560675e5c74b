"""What is behind the subject: an office wall, a street, a hall with a bright window. Linear radiance, no people."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from ifas.data.simulator.arrays import F32

Backdrop = Callable[[np.random.Generator, int], F32]


def _blank(rng: np.random.Generator, n: int, top: F32, bottom: F32) -> F32:
    lean = rng.uniform(-0.3, 0.3)
    axis = np.linspace(0, 1, n, dtype=np.float32)
    t = np.clip(axis[:, None] + np.float32(lean) * (axis - 0.5), 0, 1)[..., None]
    return np.asarray(top * (1 - t) + bottom * t, dtype=np.float32)


def _box(image: F32, x: float, y: float, w: float, h: float, colour: F32) -> None:
    """Fills a rectangle; place and size as shares of the picture."""
    n = len(image)
    a, b = int(x * n), int(y * n)
    image[max(b, 0) : max(int((y + h) * n), 0), max(a, 0) : max(int((x + w) * n), 0)] = colour


def _muted(rng: np.random.Generator, low: float, high: float, colourful: float = 0.35) -> F32:
    c = rng.uniform(low, high, 3)
    return np.asarray(c * colourful + (1 - colourful) * c.mean(), dtype=np.float32)


def _grain(rng: np.random.Generator, image: F32, cells: int, amount: float) -> None:
    g = rng.uniform(1 - amount, 1 + amount, (cells, cells, 1)).astype(np.float32)
    image *= cv2.resize(g, image.shape[:2], interpolation=cv2.INTER_CUBIC)[..., None]


def _defocus(rng: np.random.Generator, image: F32, sharpest: float, softest: float) -> F32:
    sigma = np.exp(rng.uniform(np.log(sharpest), np.log(softest))) * len(image) / 512
    return np.asarray(cv2.GaussianBlur(np.clip(image, 0, 4), (0, 0), sigma), dtype=np.float32)


def office(rng: np.random.Generator, n: int) -> F32:
    """A wall with frames, or shelves with files and books."""
    wall = _muted(rng, 0.12, 0.5, 0.25) * np.array([1.08, 1.0, 0.88], np.float32)
    image = _blank(rng, n, wall * 1.1, wall * 0.7)
    if rng.random() < 0.55:
        y = float(rng.uniform(-0.1, 0.15))
        while y < 1:
            height = float(rng.uniform(0.16, 0.26))
            x = float(rng.uniform(-0.05, 0.1))
            while x < 1:
                width = float(rng.uniform(0.015, 0.06))
                if rng.random() < 0.8:
                    tall = height * float(rng.uniform(0.55, 0.92))
                    _box(image, x, y + height - tall, width, tall, _muted(rng, 0.02, 0.45, 0.55))
                x += width + float(rng.exponential(0.006))
            _box(image, 0, y + height, 1, 0.018, np.array([0.12, 0.075, 0.04], np.float32))
            y += height + 0.018
    else:
        for _ in range(int(rng.integers(1, 5))):
            x, y = rng.uniform(-0.1, 0.9), rng.uniform(-0.1, 0.6)
            w, h = rng.uniform(0.12, 0.4, 2)
            _box(image, x, y, w, h, _muted(rng, 0.02, 0.25))
            _box(image, x + 0.02, y + 0.02, w - 0.04, h - 0.04, _muted(rng, 0.05, 0.6, 0.6))
    _grain(rng, image, 96, 0.06)
    return _defocus(rng, image, 1.0, 9.0)


def street(rng: np.random.Generator, n: int) -> F32:
    """Sky, house fronts with windows, trees."""
    sky = np.array([0.55, 0.75, 1.05], np.float32) * np.float32(rng.uniform(0.7, 1.3))
    image = _blank(rng, n, sky, sky * 0.8 + 0.15)
    x = float(rng.uniform(-0.3, 0))
    while x < 1:
        width, roof = float(rng.uniform(0.2, 0.5)), float(rng.uniform(-0.2, 0.45))
        front = _muted(rng, 0.12, 0.6, 0.5)
        _box(image, x, roof, width, 1.5, front)
        step_x, step_y = rng.uniform(0.07, 0.12, 2)
        pane = _muted(rng, 0.02, 0.15)
        for i in np.arange(x + 0.03, x + width - 0.05, step_x):
            for j in np.arange(max(roof, 0) + 0.04, 1, step_y):
                _box(image, i, j, step_x * 0.55, step_y * 0.6, pane * np.float32(rng.uniform(0.5, 3)))
        x += width + float(rng.choice((0.0, 0.0, 0.1)))
    for _ in range(int(rng.integers(0, 4))):
        leaf = rng.random((40, 40)).astype(np.float32)
        leaves = cv2.resize(leaf, (n, n), interpolation=cv2.INTER_CUBIC)
        axis = np.linspace(0, 1, n, dtype=np.float32)
        across, down = axis - np.float32(rng.uniform(0, 1)), (axis - np.float32(rng.uniform(0.2, 0.9))) * 1.2
        r = np.hypot(across, down[:, None]) / np.float32(rng.uniform(0.12, 0.3))
        tree = (r + 0.5 * (leaves - 0.5) < 1)[..., None]
        green = np.array([0.10, 0.17, 0.05], np.float32) * (0.3 + 1.4 * leaves[..., None])
        image = np.where(tree, green, image).astype(np.float32)
    _grain(rng, image, 128, 0.10)
    return _defocus(rng, image, 1.2, 12.0)


def hall(rng: np.random.Generator, n: int) -> F32:
    """A dim tiled hall with a bright window or a lit panel behind the subject."""
    wall = _muted(rng, 0.04, 0.14, 0.3) * np.array([0.92, 1.05, 0.98], np.float32)
    image = _blank(rng, n, wall * 1.2, wall * 0.6)
    pitch = int(rng.uniform(0.07, 0.15) * n)
    image[int(rng.integers(pitch)) :: pitch] *= 0.6
    image[:, int(rng.integers(pitch)) :: pitch] *= 0.6
    for _ in range(int(rng.integers(1, 3))):
        w, h = rng.uniform(0.2, 0.5), rng.uniform(0.25, 0.7)
        x, y = rng.uniform(-0.15, 0.95), rng.uniform(-0.15, 0.3)
        glow = np.array([0.85, 1.0, 1.08], np.float32) * np.float32(rng.uniform(0.5, 1.5))
        _box(image, x, y, w, h, glow)
        _box(image, x + w / 2 - 0.008, y, 0.016, h, wall)
        _box(image, x, y + h / 2 - 0.008, w, 0.016, wall)
    _grain(rng, image, 64, 0.12)
    return _defocus(rng, image, 0.8, 5.0)
