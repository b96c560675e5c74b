"""A face followed through a video: found by the detector every few frames, tracked between by OpenCV's trackers.

A tracker that says it lost the face is believed: the detector looks at once. Where a new detection and the tracked box
disagree, the detection wins. See the survey arXiv 2412.09991 for the families of trackers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ifas.core.errors import unknown_key
from ifas.faces.boxes import Box, iou

if TYPE_CHECKING:
    from ifas.data.video.display import Frame
    from ifas.faces.detector import Detection, Detector

#: Longer side at which trackers work.
TRACKED_SIDE = 360
#: A tracked box that overlaps a new detection by less is wrong.
AGREEMENT = 0.5
#: Overlap from which a face that was found again is the one that was lost.
SAME_FACE = 0.3
#: Frames to wait after the detector looked in vain.
LOOK_AGAIN = 5


class Tracker(Protocol):
    """One of OpenCV's trackers."""

    def init(self, image: Frame, box: tuple[int, int, int, int]) -> object:
        """Starts on a face."""
        ...

    def update(self, image: Frame) -> tuple[bool, Any]:
        """Whether the face was followed, and its box."""
        ...


def _medianflow() -> Tracker:
    import cv2

    made: Tracker = cv2.legacy.TrackerMedianFlow.create()
    return made


def _mosse() -> Tracker:
    import cv2

    made: Tracker = cv2.legacy.TrackerMOSSE.create()
    return made


def _kcf() -> Tracker:
    import cv2

    made: Tracker = cv2.TrackerKCF.create()
    return made


def _csrt() -> Tracker:
    import cv2

    made: Tracker = cv2.TrackerCSRT.create()
    return made


TRACKERS: dict[str, Callable[[], Tracker]] = {
    "medianflow": _medianflow,
    "mosse": _mosse,
    "kcf": _kcf,
    "csrt": _csrt,
}


@dataclass(frozen=True)
class Seen:
    """The face in one frame: box x, y, w, h in pixels of the frame; `score` is the last detection's."""

    frame: int
    box: Box
    track: int
    detected: bool
    score: float


@dataclass
class FaceTracker:
    """Follows the main face. `step` is called with every frame in order.

    Attributes:
        every: frames between two looks of the detector.
        calls, lost, disagreed: how often the detector looked, a tracker gave up, and a tracked box was overruled.
    """

    detector: Detector
    tracker: str = "medianflow"
    every: int = 10
    calls: int = 0
    lost: int = 0
    disagreed: int = 0
    _frame: int = field(default=-1, init=False)
    _track: int = field(default=-1, init=False)
    _last: Box | None = field(default=None, init=False)
    _follower: Tracker | None = field(default=None, init=False)
    _score: float = field(default=0.0, init=False)
    _waiting: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.tracker not in TRACKERS:
            raise unknown_key("tracker", self.tracker, TRACKERS)

    def step(self, frame: Frame) -> Seen | None:
        """The face in this frame, or None where there is none."""
        self._frame += 1
        small, scale = _scaled(frame)
        followed = self._followed(small, scale)
        look = self._frame % self.every == 0 or (followed is None and self._waiting <= 0)
        self._waiting -= 1
        if not look:
            return self._said(followed, detected=False) if followed else None
        best = self._look(frame, followed)
        if best is None:
            # Nothing there: the detector need not look again at each of the next frames.
            self._waiting = min(LOOK_AGAIN, max(1, self.every // 2))
            if followed is None:
                self._follower = None
                return None
            return self._said(followed, detected=False)
        if followed is not None and iou(followed, best.box) < AGREEMENT:
            self.disagreed += 1
        known = followed or self._last
        if known is None or iou(known, best.box) < SAME_FACE:
            self._track += 1
        self._score = best.score
        self._start(small, scale, best.box)
        return self._said(best.box, detected=True)

    def _followed(self, small: Frame, scale: float) -> Box | None:
        if self._follower is None:
            return None
        ok, box = self._follower.update(small)
        x, y, w, h = (float(v) / scale for v in box)
        height, width = small.shape[0] / scale, small.shape[1] / scale
        if ok and w > 1 and h > 1 and 0 <= x + w / 2 <= width and 0 <= y + h / 2 <= height:
            return (x, y, w, h)
        self.lost += 1
        self._follower = None
        return None

    def _look(self, frame: Frame, followed: Box | None) -> Detection | None:
        """The detection that continues the track, or else the largest face."""
        self.calls += 1
        found = self.detector.detect(frame)
        known = followed or self._last
        near = [d for d in found if known is not None and iou(d.box, known) >= SAME_FACE]
        return max(near or found, key=lambda d: d.box[2] * d.box[3], default=None)

    def _start(self, small: Frame, scale: float, box: Box) -> None:
        x, y, w, h = (round(v * scale) for v in box)
        left, top = max(0, x), max(0, y)
        right, bottom = min(small.shape[1], x + w), min(small.shape[0], y + h)
        if right - left < 8 or bottom - top < 8:
            self._follower = None
            return
        self._follower = TRACKERS[self.tracker]()
        self._follower.init(small, (left, top, right - left, bottom - top))

    def _said(self, box: Box, *, detected: bool) -> Seen:
        self._last = box
        return Seen(self._frame, box, max(self._track, 0), detected, self._score)


def _scaled(frame: Frame) -> tuple[Frame, float]:
    """The frame as the trackers see it, and the factor."""
    import cv2
    import numpy as np

    scale = min(1.0, TRACKED_SIDE / max(frame.shape[:2]))
    small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else frame
    return np.ascontiguousarray(small[..., ::-1]), scale
