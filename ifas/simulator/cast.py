"""Who stands before the camera: rendered people, or the portraits that a user brings."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Protocol, TypeVar

import cv2
import numpy as np

from ifas.core.errors import DataError, ImageRefused
from ifas.core.imaging import ImageLimits, decode
from ifas.simulator.arrays import F32, U8, srgb_decode, srgb_encode
from ifas.simulator.backdrops import home, office, street
from ifas.simulator.camera import SENSOR, digital_photo
from ifas.simulator.domains import PHOTO_LIGHT
from ifas.simulator.figure import Box, Figure, draw, draw_layers, face_box
from ifas.simulator.framing import ABOVE_MIDDLE, Framing, draw_framing, view_of_head
from ifas.simulator.heads import Head, build_head
from ifas.simulator.light import Light, draw_light
from ifas.simulator.masks import draw_shell, rim_share, wear
from ifas.simulator.matte import cut_out
from ifas.simulator.plan import KINDS, MIN_SUBJECTS
from ifas.simulator.sheet import Photo
from ifas.simulator.visible import Scene

Pixels = TypeVar("Pixels", U8, F32)
SUFFIXES = (".jpg", ".jpeg", ".png")
#: Where a face is in a portrait, as shares of it: head and shoulders, looking at the camera.
PORTRAIT_FACE: Box = (0.24, 0.16, 0.52, 0.56)
PHOTO_SIDE = 384  # of a rendered person's photo; one and a half times what the camera resolves of it
PORTRAIT_SIDE = 1024  # larger portraits are scaled down to this
#: Share of the pictures, bona fide or to be printed or shown, in which a portrait keeps its own background. A studio
#: behind every bona fide face, and a room around every attack, would tell the classes apart.
OWN_BACKDROP = 0.4


class Cast(Protocol):
    """The subjects of a data set. Methods are pure: the same arguments give the same pixels."""

    kinds: tuple[str, ...]
    prefix: str
    licence: str
    rendered: bool

    def live(
        self, subject: int, framing: Framing, light: Light, backdrop: F32, rng: np.random.Generator
    ) -> tuple[F32, Box]:
        """Bona fide: radiance (SENSOR, SENSOR, 3) and the box of the face."""
        ...

    def photo(self, subject: int, rng: np.random.Generator) -> Photo:
        """A digital picture of the subject, to be printed or shown."""
        ...

    def masked(
        self, wearer: int, face: int, framing: Framing, light: Light, backdrop: F32, rng: np.random.Generator
    ) -> Scene:
        """A mask of `face` on `wearer`."""
        ...


class RenderedCast:
    """Synthetic people of the population `seed`."""

    kinds: tuple[str, ...] = KINDS
    prefix = "syn"
    licence = "CC0-1.0"
    rendered = True

    def __init__(self, seed: int) -> None:
        # A head takes 0.15 s to build and about 30 MB to keep; jobs come sorted by subject.
        self._head = lru_cache(maxsize=8)(lambda subject: build_head(seed, subject))

    def head(self, subject: int) -> Head:
        """The subject's head."""
        return self._head(subject)

    def live(
        self,
        subject: int,
        framing: Framing,
        light: Light,
        backdrop: F32,
        rng: np.random.Generator,  # noqa: ARG002  (framing and light say all)
    ) -> tuple[F32, Box]:
        """See `Cast`. The picture is as large as `backdrop`."""
        head, view = self.head(subject), view_of_head(framing, len(backdrop))
        return draw(Figure(head, head.mesh), view, light, backdrop), face_box(head, view)

    def photo(self, subject: int, rng: np.random.Generator) -> Photo:
        """See `Cast`. The photo has its own light, place and pose, and may be cropped to portrait format."""
        light = draw_light(rng, PHOTO_LIGHT)
        backdrop = _behind_a_portrait(rng, PHOTO_SIDE)
        framing = draw_framing(rng, share=(0.34, 0.60), yaw=0.25, pitch=(-0.08, 0.10))
        radiance, (x, y, w, h) = self.live(subject, framing, light, backdrop, rng)
        pixels = digital_photo(radiance, float(rng.uniform(-0.9, 0.1)), float(rng.uniform(0.2, 0.9)))
        keep = float(rng.uniform(0.8, 1.0))
        left = float(np.clip(x + w / 2 - keep / 2, 0, 1 - keep))
        a = int(left * PHOTO_SIDE)
        crop = pixels[:, a : a + int(keep * PHOTO_SIDE)]
        return Photo(np.ascontiguousarray(crop), ((x - left) / keep, y, w / keep, h))

    def masked(
        self, wearer: int, face: int, framing: Framing, light: Light, backdrop: F32, rng: np.random.Generator
    ) -> Scene:
        """See `Cast`."""
        shell = draw_shell(rng, self.head(face))
        view = view_of_head(framing, SENSOR)
        drawn = draw_layers(wear(self.head(wearer), shell), view, light, backdrop)
        rim = rim_share(self.head(wearer), shell, view)
        box = face_box(shell.face, view)
        return Scene(drawn.radiance, box, drawn.shell, drawn.specular, rim=rim, truth=shell.truth())


def _behind_a_portrait(rng: np.random.Generator, side: int) -> F32:
    """A backdrop of a photo that will be printed or shown: (side, side, 3)."""
    backdrop = (office, street, home)[int(rng.integers(3))](rng, side)
    # Portraits are often taken with a wide aperture; all that a sheet shows is in the camera's focus.
    backdrop = np.asarray(cv2.GaussianBlur(backdrop, (0, 0), float(rng.uniform(0.5, 5))), dtype=np.float32)
    # A portrait is lit for the face; with brighter backgrounds prints would be paler than any bona fide picture.
    return backdrop * np.float32(rng.uniform(0.4, 1.0))


def _before(person: F32, radiance: F32, backdrop: F32) -> F32:
    """A cut-out person (H, W) of a picture (H, W, 3) before a backdrop (H, W, 3)."""
    share = np.clip(person, 0, 1)[..., None]
    return np.asarray(share * radiance + (1 - share) * backdrop, dtype=np.float32)


def _window(image: Pixels, left: float, top: float, side: float) -> Pixels:
    """A square window of `image` at the sensor's resolution; beyond the sides the picture is mirrored."""
    pad = int(side)
    wide = cv2.copyMakeBorder(image, 0, 0, pad, pad, cv2.BORDER_REFLECT_101)
    a, b, n = round(top), round(left) + pad, int(side)
    method = cv2.INTER_AREA if n > SENSOR else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(wide[a : a + n, b : b + n], (SENSOR, SENSOR), interpolation=method), image.dtype)


class PortraitCast:
    """Real portraits as subjects. There is no geometry behind a flat picture, so it has no mask attacks."""

    kinds: tuple[str, ...] = ("live", "print", "replay")
    prefix = "user"
    licence = "user-supplied"
    rendered = False

    def __init__(self, portraits: list[U8]) -> None:
        self._portraits = portraits
        self._person = lru_cache(maxsize=8)(lambda subject: cut_out(portraits[subject], PORTRAIT_FACE))

    def __len__(self) -> int:
        return len(self._portraits)

    def live(
        self,
        subject: int,
        framing: Framing,
        light: Light,
        backdrop: F32,
        rng: np.random.Generator,
    ) -> tuple[F32, Box]:
        """See `Cast`. The portrait is cropped to the framing where it is large enough, and lit by the place."""
        image = self._portraits[subject]
        rows, columns = image.shape[:2]
        x, y, w, h = PORTRAIT_FACE
        side = min(h * rows / framing.share, rows, 1.12 * columns)
        aim_x = (x + w / 2) * columns + framing.shift[0] * h * rows
        aim_y = (y + h / 2) * rows + (ABOVE_MIDDLE - framing.shift[1]) * h * rows
        spare = max(0.0, (side - columns) / 2)
        left = float(np.clip(aim_x - side / 2, -spare, columns - side + spare))
        top = float(np.clip(aim_y - side / 2, 0, rows - side))
        pixels = _window(image, left, top, side)
        across = np.linspace(-1, 1, SENSOR, dtype=np.float32)[None, :, None]
        tint = light.sky + 0.4 * light.key
        shading = (tint / tint.mean()) * (1 + 0.5 * light.lean * across)
        box = (
            float((x * columns - left) / side),
            float((y * rows - top) / side),
            float(w * columns / side),
            float(h * rows / side),
        )
        radiance = srgb_decode(pixels.astype(np.float32) / 255) * shading
        if rng.random() >= OWN_BACKDROP:
            soft = np.asarray(cv2.GaussianBlur(backdrop, (0, 0), float(rng.uniform(0.3, 2))), dtype=np.float32)
            radiance = _before(_window(self._person(subject), left, top, side), radiance, soft)
        return np.asarray(radiance, dtype=np.float32), box

    def photo(self, subject: int, rng: np.random.Generator) -> Photo:
        """See `Cast`."""
        portrait = self._portraits[subject]
        if rng.random() >= OWN_BACKDROP:
            rows, columns = portrait.shape[:2]
            backdrop = _behind_a_portrait(rng, max(rows, columns))[:rows, :columns]
            linear = _before(self._person(subject), srgb_decode(portrait.astype(np.float32) / 255), backdrop)
            portrait = np.asarray(srgb_encode(linear) * 255 + 0.5, dtype=np.uint8)
        return Photo(portrait, PORTRAIT_FACE)

    def masked(self, *_: object) -> Scene:
        """Not possible: see the class."""
        raise DataError("a mask can't be made from a flat portrait", "use the rendered people for mask attacks")


def portrait_files(folder: Path) -> list[Path]:
    """Image files of a folder, sorted by name. Raises DataError if there is no such folder or no picture in it."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder", "name a folder of portraits, one person per JPEG or PNG file")
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    if not files:
        raise DataError(f"{folder} holds no {', '.join(SUFFIXES)} file", "put one portrait per person into it")
    return files


def load_portraits(folder: Path, at_most: int | None) -> tuple[PortraitCast, list[tuple[str, str]]]:
    """The first `at_most` readable portraits (None: all), and (file, reason) of those that could not be read.

    Raises:
        DataError: no such folder, or too few readable portraits to fill three splits.
    """
    portraits: list[U8] = []
    skipped: list[tuple[str, str]] = []
    limits = ImageLimits()
    for file in portrait_files(folder):
        if len(portraits) == at_most:
            break
        try:
            if file.stat().st_size > limits.max_bytes:
                raise ImageRefused(f"image has {file.stat().st_size} bytes, the limit is {limits.max_bytes}")
            image = decode(file.read_bytes(), limits)
        except (ImageRefused, OSError) as error:
            skipped.append((file.name, error.what if isinstance(error, ImageRefused) else str(error)))
            continue
        scale = PORTRAIT_SIDE / max(image.shape)
        if scale < 1:
            size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
        portraits.append(image)
    if len(portraits) < MIN_SUBJECTS:
        raise DataError(
            f"{folder} holds {len(portraits)} readable portraits, {len(skipped)} can't be read",
            f"bring at least {MIN_SUBJECTS} portraits, one person per file",
        )
    return PortraitCast(portraits), skipped
