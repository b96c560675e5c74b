"""Which part of an image each view shows, and how it is resized."""

import io

import numpy as np
import pytest
from PIL import Image

from ifas.core.errors import ConfigError
from ifas.faces.face import Face
from ifas.faces.views import Square, cut, square, unframed


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_antialiased() -> None:
    checks = np.kron(np.indices((64, 64)).sum(0) % 2, np.ones((4, 4))).astype(np.uint8)[..., None].repeat(3, 2) * 255
    small = cut(checks, Square(0, 0, 256), 32)
    assert small.shape == (32, 32, 3)
    assert abs(small.astype(int) - 127).max() < 20  # without antialias, 0 or 255 remain


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("side", [480, 57, 1, 20])
def test_a_square_inside_is_resized_as_pillow_does_to_one_level(side: int) -> None:
    """Also of arrays that can't be written to, as they come from a decoder."""
    picture = noise(side + 30, side + 9)
    picture.setflags(write=False)
    wanted = Image.fromarray(picture).crop((4, 20, 4 + side, 20 + side)).resize((32, 32), Image.Resampling.BILINEAR)
    got = cut(picture, Square(4, 20, side), 32)
    assert got.dtype == np.uint8
    assert abs(got.astype(int) - np.asarray(wanted)).max() <= 1


@pytest.mark.parametrize(("height", "width"), [(40, 80), (80, 40), (33, 70), (1, 200)])
def test_the_frame_is_whole_and_never_squeezed(height: int, width: int) -> None:
    """The image in its own shape, and beyond its edges itself, mirrored: an edge that is not there would be a rim."""
    picture = noise(height, width)
    face = Face(picture, (5, 5, 10, 10))
    view = cut(picture, square(face, "frame", 1.2), 64)
    scale = 64 / max(height, width)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (64 - rows + 1) // 2, (64 - columns + 1) // 2
    inner = view[top : top + rows, left : left + columns]
    wanted = Image.fromarray(picture).resize((columns, rows), Image.Resampling.BILINEAR)
    assert abs(inner.astype(int) - np.asarray(wanted)).mean() < 12
    assert (view == np.pad(inner, ((top, 64 - rows - top), (left, 64 - columns - left), (0, 0)), "symmetric")).all()


def test_the_face_is_a_square_about_its_box_and_mirrored_outside_of_the_image() -> None:
    picture = noise(100, 100)
    face = Face(picture, (-10.0, 0.0, 40.0, 50.0))
    part = square(face, "face", 1.2)
    assert part == Square(-20.0, -5.0, 60.0)
    view = cut(picture, part, 60)
    assert (view[5:, 20:] == picture[:55, :40]).all()
    assert (view[:5, 20:] == picture[4::-1, :40]).all()
    assert (view[5:, :20] == picture[:55, 19::-1]).all()


@pytest.mark.parametrize("part", [Square(500, 0, 10), Square(-40, -40, 20), Square(0, 0, 0.1), Square(99.7, 99.7, 3)])
def test_squares_outside_and_tiny_ones_give_a_view(part: Square) -> None:
    assert cut(noise(100, 100), part, 16).shape == (16, 16, 3)


def test_two_sizes_of_one_image_give_nearly_the_same_views() -> None:
    """An image halved by its sender shows the model the same face."""
    small = np.asarray(Image.fromarray(noise(16, 16)).resize((200, 160), Image.Resampling.BICUBIC))
    half = np.asarray(Image.fromarray(small).resize((100, 80), Image.Resampling.LANCZOS))
    for kind in ("face", "frame"):
        whole = cut(small, square(Face(small, (40, 30, 60, 80)), kind, 1.2), 48).astype(int)
        halved = cut(half, square(Face(half, (20, 15, 30, 40)), kind, 1.2), 48).astype(int)
        assert abs(whole - halved).mean() < 4


@pytest.mark.parametrize("tone", [0, 255, 90])
@pytest.mark.parametrize(("above", "beside"), [(51, 0), (0, 40), (26, 26), (0, 0)])
@pytest.mark.parametrize("quality", [None, 75])
def test_bars_and_borders_change_nothing_of_the_frame(tone: int, above: int, beside: int, quality: int | None) -> None:
    """Also where the framed image was compressed, which blurs the inner edge of a bar over 16 pixels at most."""
    picture = noise(256, 256) // 2 + 64
    framed = np.full((256 + 2 * above, 256 + 2 * beside, 3), tone, np.uint8)
    framed[above : above + 256, beside : beside + 256] = picture
    if quality:
        file = io.BytesIO()
        Image.fromarray(framed).save(file, "JPEG", quality=quality)
        framed = np.asarray(Image.open(file))
    face = unframed(Face(framed, (beside + 30, above + 40, 50, 60)))
    assert face.picture.shape[:2] == pytest.approx((256, 256), abs=32 if quality else 0)
    assert face.box == pytest.approx((30, 40, 50, 60), abs=16 if quality else 0)


def test_a_box_that_reaches_into_the_bars_ends_at_the_image() -> None:
    """The whole image is the face of a model without a finder: with bars it is that without them."""
    framed = np.zeros((200, 400, 3), np.uint8)
    framed[:, 100:300] = noise(200, 200) // 2 + 64
    assert unframed(Face.whole(framed)).box == (0, 0, 200, 200)
    assert unframed(Face(framed, (0, 0, 50, 50))).box == (0, 0, 200, 200), "a box in a bar alone tells nothing"
    assert unframed(Face(framed, (90, 20, 60, 50))).box == (0, 20, 50, 50)


def test_only_bars_go_and_an_image_of_one_colour_stays() -> None:
    camera = noise(80, 60) // 16 + 100  # a wall with a camera's noise
    black = np.zeros((80, 60, 3), np.uint8)
    thin = np.zeros((80, 60, 3), np.uint8)
    thin[40:45] = camera[:5]
    for picture in (camera, black, thin):
        face = Face(picture, (1, 2, 3, 4))
        assert unframed(face) is face or unframed(face).picture.shape == picture.shape


def test_an_unknown_view_is_refused() -> None:
    with pytest.raises(ConfigError, match="frame"):
        square(Face.whole(noise(9, 9)), "eyes", 1.2)
