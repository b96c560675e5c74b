"""Flat colours, gradients and noise are refused, pictures of faces are not. The figures are in docs/pictures.md."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from ifas.core.detail import LOWEST, check, measure
from ifas.core.errors import ImageWithoutDetail
from ifas.core.imaging import decode
from tests.conftest import SHARED
from tests.toy_dataset import make

SIZES = [(64, 64), (240, 320), (33, 200), (480, 360)]


def as_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=quality)
    return decode(out.getvalue())


def levels(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 255).astype(np.uint8)


def flat(height: int, width: int) -> Iterator[np.ndarray]:
    for colour in ((0, 0, 0), (255, 255, 255), (128, 128, 128), (200, 30, 60), (7, 9, 3)):
        yield np.full((height, width, 3), colour, np.uint8)


def gradients(height: int, width: int) -> Iterator[np.ndarray]:
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    from_middle, from_corner = np.hypot(x - 0.5, y - 0.5) * 1.4, np.hypot(x, y) / 1.42
    for ramp in (
        x,
        1 - y,
        (x + y) / 2,
        x * y,
        from_middle,
        from_corner,
        np.sqrt(x),
        np.sin(np.pi * x),
        1 - abs(2 * x - 1),
    ):
        yield levels(np.stack([ramp * 255] * 3, -1))
        yield levels(np.stack([ramp * 200, (1 - ramp) * 90 + 20, y * 255], -1))


def noise(height: int, width: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(height)
    shape = (height, width, 3)
    grey = (height, width, 1)
    yield rng.integers(0, 256, shape, dtype=np.uint8)
    yield np.repeat(rng.integers(0, 256, grey, dtype=np.uint8), 3, -1)
    yield levels(rng.normal(128, 40, shape))
    yield levels(rng.normal(128, 15, shape))
    yield np.repeat(np.where(rng.random(grey) > 0.5, 255, 0).astype(np.uint8), 3, -1)
    yield np.repeat(np.where(rng.random(grey) > 0.97, 255, 0).astype(np.uint8), 3, -1)
    yield levels(rng.normal(0, 20, shape) + np.linspace(40, 200, width)[:, None])


#: Much noise averages out in the cells of a large picture: it may count as flat.
KINDS = {"flat": (flat, "flat colour"), "gradient": (gradients, "gradient"), "noise": (noise, "noise|flat colour")}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_that_shows_nothing_is_refused(kind: str, size: tuple[int, int]) -> None:
    drawn, said = KINDS[kind]
    for pixels in drawn(*size):
        with pytest.raises(ImageWithoutDetail, match=said):
            check(pixels)
        for quality in (90, 30):
            with pytest.raises(ImageWithoutDetail):
                check(as_jpeg(pixels, quality))


@pytest.mark.parametrize("size", [(480, 640), (1080, 1440)], ids=str)
def test_noise_with_large_grains_is_refused(size: tuple[int, int]) -> None:
    """Grains of up to a 48th of the side; larger ones are not promised."""
    height, width = size
    rng = np.random.default_rng(1)
    for grain in (2, 4, height // 48):
        small = rng.integers(0, 256, (-(-height // grain), -(-width // grain), 3), dtype=np.uint8)
        for how in (Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC):
            with pytest.raises(ImageWithoutDetail, match="noise"):
                check(np.asarray(Image.fromarray(small).resize((width, height), how)))


@pytest.mark.parametrize("size", [(32, 50_000), (50_000, 32)], ids=str)
def test_a_long_picture_takes_little_memory(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 200, np.uint8)
    tracemalloc.start()
    with pytest.raises(ImageWithoutDetail):
        check(image)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * 2**20


def worse(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """The picture dark, pale, blurred, small, noisy, and on an empty page."""
    rng = np.random.default_rng(0)
    image, side = Image.fromarray(pixels), min(pixels.shape[:2])
    yield levels(pixels * 0.1)
    yield levels(pixels * 0.1 + 110)
    yield levels(pixels * 0.2 + 205.0)
    yield as_jpeg(levels(pixels * 0.1), 75)
    yield as_jpeg(pixels, 5)
    for share in (0.02, 0.06):
        yield np.asarray(image.filter(ImageFilter.GaussianBlur(side * share)))
    for small in (32, 64):
        yield np.asarray(image.resize([round(n * small / side) for n in image.size], Image.Resampling.BOX))
    yield levels(pixels + rng.normal(0, 50, pixels.shape))
    yield levels(pixels * 0.1 + rng.normal(0, 5, pixels.shape))
    yield np.pad(pixels, ((side, side), (side, side), (0, 0)), constant_values=255)


def test_the_drawn_pictures_that_tests_send_are_not_refused(tmp_path: Path) -> None:
    """Cartoons of faces before coarse blobs: nearer to noise than any photograph."""
    for path in sorted(make(tmp_path).rglob("*.png")):
        check(decode(path.read_bytes()))


@pytest.mark.shared
def test_no_picture_of_a_face_is_refused() -> None:
    files = sorted((SHARED / "portraits").glob("*.jpg")) + sorted((SHARED / "samples").iterdir())
    assert len(files) == 404
    figures = []
    for n, file in enumerate(files):
        pixels = decode(file.read_bytes())
        check(pixels)
        figures.append(measure(pixels))
        if n % 32 == 0:
            for changed in worse(pixels):
                check(changed)
    # As docs/pictures.md says; the simulator has the nearest one of the first two figures.
    nearest = np.min(figures, axis=0)
    assert nearest == pytest.approx((16.2, 0.43, 0.41, 0.45), abs=0.02)
    assert (nearest > np.array(LOWEST) * (10, 2, 4, 2)).all()
