"""Drawings that show no face: noise, gradients, shapes, text, ovals."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np


def noise(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    grain = int(rng.integers(1, 24))
    cells = rng.integers(0, 256, (h // grain + 1, w // grain + 1, 3)).astype(np.uint8)
    return cv2.resize(cells, (w, h), interpolation=int(rng.integers(0, 3)))


def clouds(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """Noise whose power falls with its frequency, as in photographs."""
    frequency = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w)[None])
    frequency[0, 0] = 1
    power = rng.uniform(0.7, 2)
    planes = [np.fft.ifft2(np.fft.fft2(rng.normal(size=(h, w))) / frequency**power).real for _ in range(3)]
    image = np.stack(planes, -1)
    return (image - image.mean()) / image.std() * 50 + 128


def gradient(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    y, x = np.mgrid[:h, :w]
    corners = rng.uniform(0, 64, (4, 3))
    planes = np.stack([np.ones((h, w)), x / w, y / h, x * y / (w * h)], -1)
    return planes @ corners * rng.uniform(1, 4)


def flat(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    return rng.integers(0, 256, 3) + rng.normal(0, rng.uniform(0, 6), (h, w, 3))


def boxes(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    image = page(rng, h, w)
    for _ in range(int(rng.integers(3, 60))):
        x, y, dx, dy = (int(rng.integers(low, high)) for low, high in ((0, w), (0, h), (3, w // 2), (3, h // 2)))
        cv2.rectangle(image, (x, y), (x + dx, y + dy), colour(rng), -1)
    return image


def ellipses(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    image = page(rng, h, w)
    for _ in range(int(rng.integers(3, 60))):
        x, y, dx, dy = (int(rng.integers(low, high)) for low, high in ((0, w), (0, h), (2, w // 3), (2, h // 3)))
        cv2.ellipse(image, (x, y), (dx, dy), float(rng.uniform(0, 180)), 0, 360, colour(rng), -1)
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 4))


def text(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    image = page(rng, h, w)
    for y in range(14, h, int(rng.integers(14, 40))):
        said = "".join(chr(c) for c in rng.integers(33, 126, 60))
        cv2.putText(image, said, (2, y), int(rng.integers(0, 8)), rng.uniform(0.3, 1), colour(rng), 1)
    return image


def gratings(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    y, x = np.mgrid[:h, :w]
    image = np.full((h, w, 3), 128.0)
    for _ in range(3):
        angle, frequency = rng.uniform(0, np.pi), rng.uniform(0.01, 0.4)
        wave = np.sin(frequency * (x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi)
        image += wave[..., None] * rng.uniform(0, 60, 3)
    return image


def ovals(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """One oval of the colour of skin, with a dark spot or none. Several spots can lie like eyes and mouth."""
    image, side = page(rng, h, w), min(h, w)
    skin = tuple(int(rng.integers(*span)) for span in ((120, 255), (90, 200), (70, 160)))
    cv2.ellipse(image, (w // 2, h // 2), (side // 4, int(side * 0.35)), 0, 0, 360, skin, -1)
    for _ in range(int(rng.integers(0, 2))):
        at = int(w / 2 + rng.normal() * side * 0.15), int(h / 2 + rng.normal() * side * 0.2)
        cv2.circle(image, at, int(side * rng.uniform(0.01, 0.06)), (30, 20, 20), -1)
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 5))


def page(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    return np.full((h, w, 3), rng.integers(0, 256, 3), np.uint8)


def colour(rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(int(v) for v in rng.integers(0, 256, 3))


KINDS: tuple[Callable[[np.random.Generator, int, int], np.ndarray], ...] = (
    *(noise, clouds, gradient, flat, boxes, ellipses, text, gratings, ovals),
)


def drawing(rng: np.random.Generator, k: int) -> np.ndarray:
    """The k-th drawing, uint8 RGB, of the k-th kind in turn."""
    h, w = (int(v) for v in rng.integers(64, 513, 2))
    return np.ascontiguousarray(np.clip(KINDS[k % len(KINDS)](rng, h, w), 0, 255).astype(np.uint8))
