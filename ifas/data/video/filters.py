"""Quality filters in stages: what a frame or clip must be to become an image, and what is only noted.

Recaptured faces are blurrier, dimmer and stiller than bona fide ones, so a filter for pretty pictures throws away
attacks first. Only filters of validity reject; filters of quality tag. Stages and intervals follow the curation of
OpenHumanVid (arXiv 2412.00115), duration apart, since the clips of face data are shorter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ifas.data.video.display import Frame
    from ifas.faces.boxes import Box


@dataclass(frozen=True, kw_only=True)
class Filter:
    """One stage. A value in [low, high] passes.

    Attributes:
        measure: key of the measurements.
        mode: `reject`, or `tag`: the image stays and carries `tag_<name>` in its quality.
    """

    name: str
    measure: str
    low: float
    high: float
    unit: str
    mode: Literal["reject", "tag"]

    def passes(self, values: Mapping[str, float]) -> bool:
        """Whether the measured value is inside the interval, ends included."""
        return self.low <= values[self.measure] <= self.high


INFINITE = float("inf")

#: In this order; the first that rejects is named as the reason.
FILTERS: tuple[Filter, ...] = (
    Filter(name="duration", measure="seconds", low=0.3, high=120.0, unit="s", mode="reject"),
    Filter(name="face", measure="faces", low=1, high=INFINITE, unit="faces", mode="reject"),
    Filter(name="face size", measure="face_pixels", low=40, high=INFINITE, unit="px", mode="reject"),
    Filter(name="luminance", measure="luminance", low=10, high=210, unit="of 255", mode="reject"),
    Filter(name="sharpness", measure="sharpness", low=20, high=INFINITE, unit="variance", mode="tag"),
    Filter(name="motion", measure="motion", low=0.0005, high=0.2, unit="face widths a frame", mode="tag"),
)


def judge(values: Mapping[str, float], filters: Sequence[Filter] = FILTERS) -> tuple[Filter | None, dict[str, float]]:
    """The first filter that rejects, or None, and the tags of the others."""
    for one in filters:
        if one.mode == "reject" and not one.passes(values):
            return one, {}
    return None, {f"tag_{f.name}": 1.0 for f in filters if f.mode == "tag" and not f.passes(values)}


def measured(frame: Frame, box: Box | None) -> dict[str, float]:
    """Luminance (mean grey of the face), sharpness (variance of its Laplacian at 128 px) and face size (px).

    Without a box the whole frame stands for the face.
    """
    import cv2

    x, y, w, h = (0, 0, frame.shape[1], frame.shape[0]) if box is None else (round(v) for v in box)
    left, top = max(0, x), max(0, y)
    face = frame[top : max(top + 1, y + h), left : max(left + 1, x + w)]
    if face.size == 0:
        face = frame
    grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (128, 128), interpolation=cv2.INTER_AREA)
    return {
        "luminance": float(grey.mean()),
        "sharpness": float(cv2.Laplacian(small, cv2.CV_64F).var()),
        "face_pixels": float(min(face.shape[:2])),
    }


def motion(boxes: Sequence[Box]) -> float:
    """Median movement of the box's centre from frame to frame, in face widths; 0 for fewer than two boxes."""
    import numpy as np

    if len(boxes) < 2:
        return 0.0
    centres = np.array([(x + w / 2, y + h / 2) for x, y, w, h in boxes])
    widths = np.array([w for _, _, w, _ in boxes])[1:]
    return float(np.median(np.linalg.norm(np.diff(centres, axis=0), axis=1) / np.maximum(widths, 1)))
