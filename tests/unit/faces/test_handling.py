"""Handlings keep what an image shows, and their box stays on the face."""

from __future__ import annotations

import io
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from ifas.core.config import HandlingName
from ifas.core.errors import ConfigError
from ifas.faces.boxes import Box, iou
from ifas.faces.face import Face
from ifas.faces.handling import (
    DRAWN,
    FIXED,
    Bars,
    Border,
    Cropped,
    Handling,
    Jpeg,
    Scaled,
    Toned,
    WebP,
    handling,
)

ALL = [*FIXED.values(), *(kind.drawn(np.random.default_rng(n)) for n in range(3) for kind in (*DRAWN, Cropped))]


def marked(height: int, width: int, box: tuple[int, int, int, int]) -> Face:
    """Grey, with a green marker where the face is."""
    picture = np.full((height, width, 3), 90, np.uint8)
    x, y, w, h = box
    picture[y : y + h, x : x + w] = (20, 230, 40)
    picture.setflags(write=False)  # as it comes from a decoder
    return Face(picture, tuple(map(float, box)))


def marker(picture: np.ndarray) -> Box:
    """Where the marker is."""
    values = picture.astype(int)
    rows, columns = np.nonzero(values[..., 1] - values[..., [0, 2]].max(-1) > 50)
    x, y = columns.min(), rows.min()
    return float(x), float(y), float(columns.max() - x + 1), float(rows.max() - y + 1)


@pytest.mark.parametrize("change", ALL, ids=repr)
@pytest.mark.parametrize(("height", "width", "x", "y"), [(90, 171, 40, 3), (133, 90, 0, 40), (101, 101, 17, 29)])
def test_the_box_stays_on_the_face(change: Handling, height: int, width: int, x: int, y: int) -> None:
    face = marked(height, width, (x, y, 50, 44))
    before = face.picture.copy()
    seen = change(face)
    assert seen.picture.dtype == np.uint8
    assert seen.picture.shape[2] == 3
    assert iou(seen.box, marker(seen.picture)) > 0.85
    assert (face.picture == before).all()
    assert face.box == (x, y, 50, 44)


def photo(height: int = 128, width: int = 96) -> np.ndarray:
    coarse = np.random.default_rng(1).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize(("format", "kind"), [("JPEG", Jpeg), ("WEBP", WebP)])
def test_compression_is_that_of_a_saved_file(format: str, kind: type[Jpeg] | type[WebP]) -> None:
    face, lost = Face.whole(photo()), []
    for quality in (90, 50, 10):
        file = io.BytesIO()
        Image.fromarray(face.picture).save(file, format, quality=quality)
        seen = kind(quality)(face)
        assert (seen.picture == np.asarray(Image.open(file).convert("RGB"))).all()
        assert seen.box == face.box
        lost.append(float(abs(seen.picture.astype(int) - face.picture).mean()))
    assert 0 < lost[0] < lost[1] < lost[2]


def test_bars_and_border_add_their_share_and_keep_every_pixel() -> None:
    face = Face.whole(photo(120, 80))
    for change, across, down, level in (
        (Bars(0.2), 0, 24, 0),
        (Bars(0.2, beside=True), 16, 0, 0),
        (Border(0.1, 255), 8, 8, 255),
    ):
        seen = change(face)
        assert seen.picture.shape == (120 + 2 * down, 80 + 2 * across, 3)
        assert (seen.picture[down : 120 + down, across : 80 + across] == face.picture).all()
        assert seen.box == (across, down, 80, 120)
        frame = np.ones(seen.picture.shape[:2], bool)
        frame[down : 120 + down, across : 80 + across] = False
        assert (seen.picture[frame] == level).all()


@pytest.mark.parametrize("place", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("ratio", [9 / 16, 3 / 4, 1.0, 16 / 9])
def test_a_crop_has_the_shape_asked_for_and_holds_the_face(ratio: float, place: float) -> None:
    face = marked(120, 160, (70, 30, 20, 30))
    seen = Cropped(ratio, place)(face)
    height, width = seen.picture.shape[:2]
    assert width / height == pytest.approx(ratio, rel=0.03)
    assert width == 160 or height == 120
    assert marker(seen.picture) == seen.box
    assert seen.box[2:] == (20, 30)
    # As far to one side as the face allows.
    x, y = seen.box[:2]
    if place == 0:
        assert (x, y) == (70 if width == 160 else min(70, width - 20), 30 if height == 120 else min(30, height - 30))


def test_a_crop_is_no_narrower_than_the_face() -> None:
    seen = Cropped(9 / 16)(marked(120, 160, (20, 30, 100, 60)))
    assert seen.picture.shape == (120, 100, 3)
    assert seen.box == (0, 30, 100, 60)


def test_halving_has_no_aliases() -> None:
    checks = (np.indices((128, 128)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    half = Scaled(0.5)(Face.whole(checks))
    assert half.picture.shape == (64, 64, 3)
    assert half.box == (0, 0, 64, 64)
    assert abs(half.picture.astype(int) - 127).max() < 20


def test_tones_are_clipped() -> None:
    picture = np.array([[[250, 100, 0]]], np.uint8)
    assert Toned(1.1, 1.0, 0.9)(Face.whole(picture)).picture.tolist() == [[[255, 100, 0]]]
    assert Toned(0.5, 0.5, 0.5)(Face.whole(picture)).picture.tolist() == [[[125, 50, 0]]]


def test_no_size_is_refused() -> None:
    """Training may halve what it then compresses, and an image may be longer than a WebP can be."""
    for shape in ((1, 1), (2, 20_000)):
        face = Face.whole(np.full((*shape, 3), 128, np.uint8))
        for change in ALL:
            assert change(face).picture.size


def test_names_are_those_of_the_configuration() -> None:
    assert set(get_args(HandlingName)) == set(FIXED)
    assert handling("webp80") == WebP(80)
    with pytest.raises(ConfigError, match="webp8'"):
        handling("webp8")
