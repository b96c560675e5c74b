"""The one face of an image, for training, evaluation and serving, or the reason why the image can't be judged.

The largest face counts. Where no face is sure, the search is repeated on the image with its local contrast raised:
faces in backlight, under glare, or of dark skin in poor light are found then. docs/faces.md has the figures.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ifas.core.config import FacesConfig
from ifas.core.errors import FACE_REASONS, FaceRefused
from ifas.faces.boxes import Box, iou
from ifas.faces.detector import SEARCHED_SIDE, Detection, Mtcnn
from ifas.faces.face import Face
from ifas.faces.views import without_bars

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Picture = npt.NDArray[np.uint8]

#: In the second search: limit of the contrast, and tiles along each side (CLAHE).
CONTRAST, TILES = 6.0, 4
#: Smallest face, as a share of the shorter side, in the search that tells a face that is too small from none.
TINY_FACE = 0.04
#: Detail: side to which a face is scaled, and sigma in pixels of the blur whose remainder is the detail.
DETAIL_SIDE, DETAIL_SIGMA = 64, 2.0
#: A box of the dataset means the detection that overlaps it by at least this much: such boxes may be loose.
SAME_FACE = 0.2
#: Overlap from which both searches found the same face.
SAME_BOX = 0.5


class Finder:
    """Finds the face of an image. Several threads may use one.

    Args:
        config: what is refused.
        weights: folder of the detector's networks; None takes those of the installed package.
    """

    def __init__(self, config: FacesConfig, weights: Path | None = None) -> None:
        self.config = config
        self.weights = weights

    def find(self, picture: Picture, known: Box | None = None) -> Face:
        """The face of an RGB image (H, W, 3).

        Bars and borders of one colour are left out of the search, so that they do not change what is found.

        Args:
            known: box of the face that the dataset gives, if any. It chooses among several faces, and stands in where
                none is found.

        Raises:
            FaceRefused: there is no face that can be judged; `reason` says why.
        """
        if self.config.finder == "none":
            return Face.whole(picture)
        bare, left, top = without_bars(picture)
        moved = None if known is None else (known[0] - left, known[1] - top, known[2], known[3])
        x, y, w, h = self._find(bare, moved)
        return Face(picture, (x + left, y + top, w, h))

    def _find(self, picture: Picture, known: Box | None) -> Box:
        """The box of the face in an image without bars; `known` and errors as in `find`."""
        small, scale = _searched(picture)
        found = self._detections(small)
        if known is not None:
            found = [d for d in found if iou(_scaled(d.box, 1 / scale), known) >= SAME_FACE][:1]
        best = max(found, key=_side, default=None)
        if best is not None:
            box = _inside(_scaled(best.box, 1 / scale), picture)
        elif known is not None:
            box = known
        else:
            raise self._unseen(small, scale)
        self._check_others(found, best)
        self._check(picture, box, best)
        return box

    def _detections(self, small: Picture) -> list[Detection]:
        """The sure faces of the first search, or else of the second, the surest first."""
        mtcnn, least = Mtcnn(self.weights), self.config.least_score
        first = mtcnn.detect(small)
        if first and first[0].score >= least:
            return [d for d in first if d.score >= least]
        second = mtcnn.detect(_contrasted(small))
        return [d for d in second if d.score >= least or any(iou(d.box, e.box) >= SAME_BOX for e in first)]

    def _unseen(self, small: Picture, scale: float) -> FaceRefused:
        """Why no face was found."""
        tiny = [d for d in Mtcnn(self.weights, TINY_FACE).detect(small) if d.score >= self.config.least_score]
        if tiny:
            return self._too_small(_side(tiny[0]) / scale)
        return FaceRefused("no_face")

    def _too_small(self, side: float) -> FaceRefused:
        return FaceRefused("face_too_small", f"{FACE_REASONS['face_too_small']}: it is {side:.0f} pixels wide")

    def _check_others(self, found: list[Detection], best: Detection | None) -> None:
        comparable = [
            d for d in found if best is not None and d is not best and _side(d) >= self.config.second_size * _side(best)
        ]
        if comparable:
            raise FaceRefused("several_faces")

    def _check(self, picture: Picture, box: Box, seen: Detection | None) -> None:
        if min(box[2:]) < self.config.least_pixels:
            raise self._too_small(min(box[2:]))
        if seen is not None and turned(seen) > self.config.most_turned:
            raise FaceRefused("turned_away")
        if detail(picture, box) < self.config.least_detail:
            raise FaceRefused("blurred")


def turned(seen: Detection) -> float:
    """Distance of the nose from the middle of the eyes, along the line of the eyes, in distances of the eyes.

    0 from the front, about 0.5 at 45 degrees; 0 where the detector gives no landmarks.
    """
    if not seen.landmarks:
        return 0.0
    (left_x, left_y), (right_x, right_y), (nose_x, nose_y), *_ = seen.landmarks
    across, down = right_x - left_x, right_y - left_y
    square = across * across + down * down
    if not square:
        return float("inf")
    offset = (nose_x - (left_x + right_x) / 2) * across + (nose_y - (left_y + right_y) / 2) * down
    return abs(offset) / square


def detail(picture: Picture, box: Box) -> float:
    """Share of a face's contrast in its fine details, 0 to 1; small where the face is blurred.

    The face's luma is scaled to a square of 64 pixels. The figure is the standard deviation of what a blur of 2 pixels
    takes away, divided by the whole one: neither light nor resolution counts, only sharpness.
    """
    import cv2
    import numpy as np

    height, width = picture.shape[:2]
    left, top = (min(max(0, round(v)), limit - 1) for v, limit in zip(box[:2], (width, height), strict=True))
    right, bottom = max(left + 1, round(box[0] + box[2])), max(top + 1, round(box[1] + box[3]))
    crop = np.ascontiguousarray(picture[top:bottom, left:right])
    shrunk = min(crop.shape[:2]) > DETAIL_SIDE
    face = cv2.resize(crop, (DETAIL_SIDE,) * 2, interpolation=cv2.INTER_AREA if shrunk else cv2.INTER_LINEAR)
    grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY).astype(np.float32)
    rest = grey - cv2.GaussianBlur(grey, (0, 0), DETAIL_SIGMA)
    spread = float(grey.std())
    return min(1.0, float(rest.std()) / spread) if spread else 0.0


def _side(seen: Detection) -> float:
    return min(seen.box[2:])


def _scaled(box: Box, factor: float) -> Box:
    x, y, w, h = box
    return (x * factor, y * factor, w * factor, h * factor)


def _inside(box: Box, picture: Picture) -> Box:
    """The part of a box inside the image."""
    height, width = picture.shape[:2]
    left, top = max(0.0, box[0]), max(0.0, box[1])
    right, bottom = min(float(width), box[0] + box[2]), min(float(height), box[1] + box[3])
    return (left, top, max(0.0, right - left), max(0.0, bottom - top))


def _searched(picture: Picture) -> tuple[Picture, float]:
    """The image as it is searched, and the factor: never larger than SEARCHED_SIDE, whatever is sent."""
    import cv2
    import numpy as np

    height, width = picture.shape[:2]
    scale = min(1.0, SEARCHED_SIDE / max(height, width))
    if scale == 1:
        return picture, scale
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8), scale


def _contrasted(picture: Picture) -> Picture:
    """The image with its local contrast raised."""
    import cv2
    import numpy as np

    lab = cv2.cvtColor(picture, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(CONTRAST, (TILES, TILES)).apply(lab[..., 0])
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), np.uint8)
