"""Handlings: what happens to an image between the camera and the judge, none of which changes what its face is.

It is compressed, scaled, cropped to another shape, put between bars or into a border, blurred a little, or shown in
another tint. Training crops, and draws handlings of the kinds `DRAWN` with random strengths; evaluation tries those of
`FIXED`. Encoders are Pillow's own.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ifas.core.errors import unknown_key
from ifas.core.imaging import ImageLimits, decode
from ifas.faces.face import Face

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]

#: A handled image may be too small for the judge, but never has too many bytes or pixels: those are of this module.
STORED = ImageLimits(max_bytes=2**30, max_pixels=2**31 - 1)
_ANY_SIZE = STORED.model_copy(update={"min_side": 1})
#: Width over height of the widest crop that training draws; the narrowest is the reciprocal.
WIDEST = 16 / 9
#: The longest side of a WebP, by its format.
_WEBP_SIDE = 16_383


class Handling(Protocol):
    """One handling at one strength. The box follows the face."""

    def __call__(self, face: Face) -> Face:
        """The image as it arrives. The one given stays as it is."""
        ...


class Kind(Protocol):
    """A kind of handling, of which training draws strengths."""

    def drawn(self, rng: np.random.Generator) -> Handling:
        """One of a random strength."""
        ...


@dataclass(frozen=True)
class Jpeg:
    """Compressed as a JPEG of a quality, 1 to 95."""

    quality: int

    def __call__(self, face: Face) -> Face:
        return Face(_saved(face.picture, "JPEG", quality=self.quality), face.box)

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Jpeg:
        return cls(int(rng.integers(30, 96)))


@dataclass(frozen=True)
class WebP:
    """Compressed as a lossy WebP of a quality, 0 to 100. Longer than a WebP can be, an image stays as it is."""

    quality: int

    def __call__(self, face: Face) -> Face:
        if max(face.picture.shape[:2]) > _WEBP_SIDE:
            return face
        return Face(_saved(face.picture, "WEBP", quality=self.quality), face.box)

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> WebP:
        return cls(int(rng.integers(30, 96)))


@dataclass(frozen=True)
class Scaled:
    """Scaled down by a factor (new side over old), with antialiasing."""

    factor: float

    def __call__(self, face: Face) -> Face:
        import numpy as np
        from PIL import Image

        height, width = face.picture.shape[:2]
        size = (max(1, round(width * self.factor)), max(1, round(height * self.factor)))
        small = Image.fromarray(face.picture).resize(size, Image.Resampling.BICUBIC)
        across, down = size[0] / width, size[1] / height
        x, y, w, h = face.box
        return Face(np.asarray(small), (x * across, y * down, w * across, h * down))

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Scaled:
        return cls(rng.uniform(0.4, 0.9))


@dataclass(frozen=True)
class Cropped:
    """Cropped to another shape, as wide as `ratio` heights, but for the box of the face, which stays inside.

    Attributes:
        place: of the part that is left: 0 as far to the left, or up, as the face allows, 1 the other way.
    """

    ratio: float
    place: float = 0.5

    def __call__(self, face: Face) -> Face:
        import numpy as np

        height, width = face.picture.shape[:2]
        x, y, w, h = face.box
        left, right = _kept(x, x + w, self.ratio * height, width, self.place)
        top, bottom = _kept(y, y + h, width / self.ratio, height, self.place)
        return Face(np.ascontiguousarray(face.picture[top:bottom, left:right]), (x - left, y - top, w, h))

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Cropped:
        # From 9:16 to 16:9, upright as often as across.
        return cls(WIDEST ** rng.uniform(-1, 1), rng.uniform())


@dataclass(frozen=True)
class Bars:
    """Black bars above and below, or on both sides; each is a share of the image's height or width."""

    share: float
    beside: bool = False

    def __call__(self, face: Face) -> Face:
        height, width = face.picture.shape[:2]
        if self.beside:
            return _framed(face, across=round(self.share * width), down=0, level=0)
        return _framed(face, across=0, down=round(self.share * height), level=0)

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Bars:
        return cls(rng.uniform(0.05, 0.35), bool(rng.integers(2)))


@dataclass(frozen=True)
class Border:
    """A border of one grey (0 black, 255 white) all around, as wide as a share of the image's shorter side."""

    share: float
    level: int

    def __call__(self, face: Face) -> Face:
        wide = round(self.share * min(face.picture.shape[:2]))
        return _framed(face, across=wide, down=wide, level=self.level)

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Border:
        # As often black, white, or some grey.
        return cls(rng.uniform(0.02, 0.2), (0, 255, int(rng.integers(256)))[rng.integers(3)])


@dataclass(frozen=True)
class Blurred:
    """Slightly blurred: Gaussian, of a standard deviation that is a share of the image's shorter side."""

    share: float

    def __call__(self, face: Face) -> Face:
        import numpy as np
        from PIL import Image, ImageFilter

        radius = self.share * min(face.picture.shape[:2])
        return Face(np.asarray(Image.fromarray(face.picture).filter(ImageFilter.GaussianBlur(radius))), face.box)

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Blurred:
        return cls(rng.uniform(0.001, 0.006))


@dataclass(frozen=True)
class Toned:
    """R, G and B times a factor each: another white balance, or another brightness."""

    red: float
    green: float
    blue: float

    def __call__(self, face: Face) -> Face:
        import numpy as np

        factors = np.array((self.red, self.green, self.blue), np.float32)
        return Face(np.clip(face.picture * factors + 0.5, 0, 255).astype(np.uint8), face.box)


#: What training draws from, each kind as often. Tints and brightness it changes in every image, see `augment`.
DRAWN: tuple[Kind, ...] = (Jpeg, WebP, Scaled, Bars, Border, Blurred)

#: What evaluation can try, by the names that `evaluate.robustness.handlings` takes.
FIXED: dict[str, Handling] = {
    "jpeg75": Jpeg(75),
    "jpeg50": Jpeg(50),
    "webp80": WebP(80),
    "halved": Scaled(0.5),
    "upright": Cropped(3 / 4),
    "letterboxed": Bars(0.2),
    "pillarboxed": Bars(0.2, beside=True),
    "bordered": Border(0.1, level=255),
    "blurred": Blurred(0.004),
    "colour_cast": Toned(1.1, 1.0, 0.9),
    "darkened": Toned(0.7, 0.7, 0.7),
}


def handling(name: str) -> Handling:
    """The fixed handling of a name.

    Raises:
        ConfigError: there is none.
    """
    if name not in FIXED:
        raise unknown_key("handling", name, FIXED)
    return FIXED[name]


def stored(picture: Pixels) -> bytes:
    """A file with these very pixels; larger than a client would send, see `STORED`."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=0)
    return file.getvalue()


def _saved(picture: Pixels, format: str, **options: Any) -> Pixels:
    """The pixels that are left of an image after it was saved."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, format, **options)
    return decode(file.getvalue(), _ANY_SIZE)


def _kept(first: float, last: float, length: float, limit: int, place: float) -> tuple[int, int]:
    """Where a part of a side begins and ends that has a length and holds what is between `first` and `last`."""
    first, last = max(0.0, min(first, limit - 1.0)), min(float(limit), max(last, 1.0))
    long = min(float(limit), max(length, last - first))
    least, most = max(0.0, last - long), min(first, limit - long)
    start = round(least + place * (most - least))
    return start, min(limit, max(start + 1, round(start + long)))


def _framed(face: Face, *, across: int, down: int, level: int) -> Face:
    import numpy as np

    height, width = face.picture.shape[:2]
    framed = np.full((height + 2 * down, width + 2 * across, 3), level, np.uint8)
    framed[down : down + height, across : across + width] = face.picture
    x, y, w, h = face.box
    return Face(framed, (x + across, y + down, w, h))
