"""Captioning finds the faces: boxes, reasons, and no bad image ends the run."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from ifas.captioning.embedded import EmbeddedCaptioner
from ifas.captioning.parts import Part, Wanted, caption_shard, load, part_file, save
from ifas.core.config import CaptionConfig, FacesConfig
from ifas.faces.boxes import Box, iou
from ifas.faces.finder import Finder

FACE = astronaut()[:300, 70:370].copy()
BOX: Box = (108.0, 63.0, 87.0, 108.0)
LOOSE: Box = (90.0, 40.0, 120.0, 150.0)
NOISE = np.random.default_rng(0).integers(0, 256, (120, 120, 3), dtype=np.uint8)
TWO = np.hstack([FACE, FACE[:, ::-1]])

#: Name -> image, the dataset's box, whether it is a frame of a clip.
ROWS: dict[str, tuple[np.ndarray | None, Box | None, bool]] = {
    "face": (FACE, None, False),
    "face with a loose box": (FACE, LOOSE, False),
    "noise": (NOISE, None, False),
    "noise with a box": (NOISE, (20.0, 20.0, 60.0, 70.0), False),
    "not an image": (None, None, False),
    "two faces": (TWO, None, False),
    "two faces and a box": (TWO, (400.0, 60.0, 95.0, 110.0), False),
    "frame of a clip": (FACE, LOOSE, True),
}
WANTED = [Wanted(name, "s", i, box, clip) for i, (name, (_, box, clip)) in enumerate(ROWS.items())]


class Images:
    def read(self, shard: str, row: int) -> bytes:
        picture = list(ROWS.values())[row][0]
        if picture is None:
            return b"no picture"
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        return file.getvalue()


@pytest.fixture(scope="module")
def part() -> Part:
    return caption_shard(WANTED, Images(), EmbeddedCaptioner(), CaptionConfig(), Finder(FacesConfig()))


def test_box_and_reason_of_each_row(part: Part) -> None:
    boxes = dict(zip(ROWS, part.boxes, strict=True))
    reasons = {name: why for name, why in zip(ROWS, part.unjudged, strict=True) if why}
    assert reasons == {"noise": "no_face", "two faces": "several_faces"}
    for name in ("face", "face with a loose box"):
        assert boxes[name] is not None
        assert iou(boxes[name], BOX) > 0.75, "the finder's box, not the dataset's"
    assert boxes["noise"] is None
    assert boxes["noise with a box"] == (20, 20, 60, 70)
    assert boxes["two faces and a box"] is not None
    assert boxes["two faces and a box"][0] > 300
    assert boxes["frame of a clip"] == LOOSE


def test_every_readable_image_has_a_caption(part: Part) -> None:
    silent = [name for name, caption in zip(ROWS, part.captions, strict=True) if caption is None]
    assert silent == ["not an image"]


def test_a_part_keeps_boxes_and_reasons_and_is_found_by_the_finders_settings(part: Part, tmp_path: Path) -> None:
    config, finder = CaptionConfig(), Finder(FacesConfig())
    file = part_file(tmp_path, WANTED, config, finder)
    save(part, file)
    back = load(file, len(WANTED))
    assert back is not None
    assert (back.boxes, back.unjudged) == (part.boxes, part.unjudged)
    assert part_file(tmp_path, WANTED, config, Finder(FacesConfig(least_pixels=40))) != file
    assert part_file(tmp_path, WANTED, config) != file


def test_without_a_finder_the_datasets_boxes_stay() -> None:
    kept = caption_shard(WANTED, Images(), EmbeddedCaptioner(), CaptionConfig())
    assert kept.boxes == tuple(row.box for row in WANTED)
    assert set(kept.unjudged) == {""}
