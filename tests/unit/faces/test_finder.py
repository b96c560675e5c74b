"""Which face is found, what is refused and why; what a hostile image costs."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from ifas.core.config import FacesConfig
from ifas.core.errors import FACE_REASONS, ConfigError, FaceRefused
from ifas.core.imaging import decode
from ifas.faces.boxes import Box, iou
from ifas.faces.detector import Mtcnn
from ifas.faces.finder import Finder
from tests.conftest import SHARED
from tests.unit.faces.drawings import drawing

#: A real face that scikit-image carries (NASA, public domain), and its box.
FACE = astronaut()[:300, 70:370].copy()
BOX: Box = (108.0, 63.0, 87.0, 108.0)
FINDER = Finder(FacesConfig())


def reason(picture: np.ndarray, finder: Finder = FINDER) -> str:
    with pytest.raises(FaceRefused) as caught:
        finder.find(picture)
    assert caught.value.reason in FACE_REASONS
    return caught.value.reason


def encoded(picture: np.ndarray, kind: str, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind, quality=quality)
    return decode(file.getvalue())


def padded(picture: np.ndarray, *sides: int, value: int = 0) -> np.ndarray:
    return cv2.copyMakeBorder(picture, *sides, cv2.BORDER_CONSTANT, value=(value,) * 3)


def scaled(picture: np.ndarray, factor: float) -> np.ndarray:
    return cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


def beside(picture: np.ndarray, other: np.ndarray) -> np.ndarray:
    page = np.full((len(picture), picture.shape[1] + other.shape[1], 3), 120, np.uint8)
    page[:, : picture.shape[1]] = picture
    page[: len(other), picture.shape[1] :] = other
    return page


#: What happens to an image on its way to a deployment, and where its face lies then.
CHANGES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[Box], Box]]] = {
    "as it is": (lambda p: p, lambda b: b),
    "JPEG 50": (lambda p: encoded(p, "JPEG", 50), lambda b: b),
    "WebP 80": (lambda p: encoded(p, "WEBP", 80), lambda b: b),
    "halved": (lambda p: scaled(p, 0.5), lambda b: tuple(v / 2 for v in b)),
    "bars": (lambda p: padded(p, 0, 0, 120, 120), lambda b: (b[0] + 120, *b[1:])),
    "border": (lambda p: padded(p, 30, 30, 30, 30, value=255), lambda b: (b[0] + 30, b[1] + 30, *b[2:])),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_same_face_is_found_in_whatever_form_it_comes(change: str) -> None:
    picture, box = (f(x) for f, x in zip(CHANGES[change], (FACE, BOX), strict=True))
    found = FINDER.find(picture)
    assert iou(found.box, box) > 0.75
    assert found.picture is picture


@pytest.mark.parametrize("light", [0, 40, 200], ids=["dark", "haze", "glare"])
def test_a_face_with_little_contrast_is_found_by_the_second_search(light: int) -> None:
    faint = (FACE * 0.06 + light).astype(np.uint8)
    assert not Mtcnn().detect(faint)
    assert iou(FINDER.find(faint).box, BOX) > 0.75


def test_no_verdict_about_what_is_no_face() -> None:
    rng = np.random.default_rng(0)
    flat = [np.full((200, 160, 3), level, np.uint8) for level in (0, 90, 255)]
    for picture in [*flat, *(drawing(rng, k) for k in range(27))]:
        assert reason(picture) in ("no_face", "face_too_small")


@pytest.mark.slow
def test_no_verdict_about_2000_drawings() -> None:
    rng = np.random.default_rng(3)
    found = [k for k in range(2000) if reason_or_none(drawing(rng, k)) is None]
    assert found == []


def reason_or_none(picture: np.ndarray) -> str | None:
    try:
        FINDER.find(picture)
    except FaceRefused as refused:
        return refused.reason
    return None


@pytest.mark.parametrize(("size", "blocks"), [(0.3, False), (0.5, False), (0.7, True), (1.0, True)])
def test_a_second_face_blocks_only_if_it_is_of_like_size(size: float, blocks: bool) -> None:
    both = beside(FACE, scaled(FACE, size))
    if blocks:
        assert reason(both) == "several_faces"
    else:
        assert iou(FINDER.find(both).box, BOX) > 0.75


def test_a_box_of_the_dataset_chooses_among_faces_and_stands_in_for_none() -> None:
    both = beside(FACE, scaled(FACE, 0.7))
    small: Box = (300 + 0.7 * BOX[0], *(0.7 * v for v in BOX[1:]))
    assert iou(FINDER.find(both, BOX).box, BOX) > 0.75
    assert iou(FINDER.find(both, small).box, small) > 0.75
    leaves = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    assert FINDER.find(leaves, (50.0, 40.0, 80.0, 90.0)).box == (50.0, 40.0, 80.0, 90.0)


def test_a_box_never_reaches_beyond_the_image() -> None:
    close = FACE[72:, 124:].copy()  # cut through the forehead and one cheek
    x, y, w, h = FINDER.find(close).box
    assert x >= 0
    assert y >= 0
    assert x + w <= close.shape[1]
    assert y + h <= close.shape[0]
    assert (x, y) == (0, 0), "the face does reach beyond it"


def test_too_small_and_blurred_have_reasons_of_their_own() -> None:
    for size in (0.3, 0.2):
        assert reason(padded_to(scaled(FACE, size), 300)) == "face_too_small"
    blurred = cv2.GaussianBlur(FACE, (0, 0), 7)
    assert reason(blurred, Finder(FacesConfig(least_detail=0.09))) == "blurred"
    assert iou(FINDER.find(blurred).box, BOX) > 0.5, "the default is lenient"
    assert reason(cv2.GaussianBlur(FACE, (0, 0), 13)) in ("no_face", "blurred")


def padded_to(picture: np.ndarray, side: int) -> np.ndarray:
    return padded(picture, 0, side - picture.shape[0], 0, side - picture.shape[1])


def test_a_head_that_is_turned_far_away_is_refused() -> None:
    """Rendered heads: there the angle is known."""
    from ifas.simulator.backdrops import office
    from ifas.simulator.camera import digital_photo
    from ifas.simulator.cast import PHOTO_LIGHT, RenderedCast
    from ifas.simulator.framing import draw_framing
    from ifas.simulator.light import draw_light

    cast, answers = RenderedCast(7), {}
    for degrees in (0, 25, 75):
        for subject in (1, 2, 3, 5):
            rng = np.random.default_rng(subject)
            light, backdrop = draw_light(rng, PHOTO_LIGHT), office(rng, 256) * np.float32(0.8)
            framing = replace(draw_framing(rng, share=(0.45, 0.6), pitch=(-0.05, 0.05)), yaw=float(np.radians(degrees)))
            radiance, _ = cast.live(subject, framing, light, backdrop, rng)
            answers.setdefault(degrees, []).append(reason_or_none(digital_photo(radiance, -0.2, 0.5)))
    assert answers[0] == answers[25] == [None] * 4
    assert answers[75].count("turned_away") >= 3


def test_without_a_finder_an_image_is_its_face() -> None:
    grey = np.full((50, 70, 3), 99, np.uint8)
    whole = Finder(FacesConfig(finder="none"))
    assert whole.find(grey).box == (0, 0, 70, 50)
    assert whole.find(grey, (1.0, 2.0, 3.0, 4.0)).box == (0, 0, 70, 50), "as when it is served, without a box"


def test_networks_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pnet\.onnx"):
        Finder(FacesConfig(), tmp_path).find(FACE)


def test_threads_share_a_finder() -> None:
    pictures = [scaled(FACE, s) for s in (1.0, 0.8, 0.6)] * 8
    one_by_one = [FINDER.find(p).box for p in pictures]
    with ThreadPoolExecutor(8) as pool:
        assert [face.box for face in pool.map(FINDER.find, pictures)] == one_by_one


@pytest.mark.parametrize("shape", [(1, 1), (32, 32), (32, 200_000), (200_000, 32)])
def test_odd_shapes(shape: tuple[int, int]) -> None:
    assert reason(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)) == "no_face"


def test_an_image_full_of_faces_takes_bounded_time_and_memory() -> None:
    """CPU time of this process, so that a loaded machine does not fail the test."""
    import tracemalloc

    few, many = scaled(FACE[50:190, 90:220], 0.4), np.tile(FACE, (20, 20, 1))
    for picture in (np.tile(few, (9, 9, 1)), many, np.tile(few, (90, 100, 1))):
        tracemalloc.start()
        begin = time.process_time()
        assert reason(picture)
        assert time.process_time() - begin < 5
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
        tracemalloc.stop()


def test_proposals_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that see a face everywhere."""
    seen = []

    def everywhere(self: Mtcnn, stage: int, images: np.ndarray) -> tuple[np.ndarray, ...]:
        n, h, w, _ = images.shape
        if stage == 0:
            return np.zeros((n, h // 2 - 5, w // 2 - 5, 4)), np.ones((n, h // 2 - 5, w // 2 - 5))
        seen.append(n)
        return np.zeros((n, 4)), np.ones(n), np.zeros((n, 10))

    monkeypatch.setattr(Mtcnn, "_run", everywhere)
    assert Mtcnn(smallest=0.04).detect(np.zeros((480, 480, 3), np.uint8))
    assert max(seen) <= Mtcnn.MOST_PROPOSALS[1]


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_real_faces_are_found_in_whatever_form_they_come(change: str) -> None:
    made = CHANGES[change][0]
    portraits, samples = (
        [reason_or_none(made(decode(file.read_bytes()))) for file in sorted((SHARED / folder).glob("*.[jp][pn]g"))]
        for folder in ("portraits", "samples")
    )
    assert len(portraits) == 400
    assert portraits.count(None) >= 0.99 * len(portraits)
    assert samples == [None] * 4


@pytest.mark.parametrize("frame", [(0, 90, 255), (60, 0, 0), (40, 40, 0)])
def test_bars_and_borders_do_not_change_the_face_that_is_found(frame: tuple[int, int, int]) -> None:
    above, beside, tone = frame
    picture = astronaut()
    h, w = picture.shape[:2]
    framed = np.full((h + 2 * above, w + 2 * beside, 3), tone, np.uint8)
    framed[above : above + h, beside : beside + w] = picture
    bare, found = FINDER.find(picture).box, FINDER.find(framed).box
    assert found == (bare[0] + beside, bare[1] + above, bare[2], bare[3])
