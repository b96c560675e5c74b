"""A hand at the edge of the picture, beside head and shoulders: somebody may be holding a sheet, device or mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ifas.captioning.ramp import ramp
from ifas.captioning.specialists import Measurement

if TYPE_CHECKING:
    from ifas.captioning.measure import Measured
    from ifas.captioning.view import View


#: Distance of chromaticities (colour differences over grey) below which a pixel looks like skin of this picture.
ALIKE = 0.12
#: Largest share of the picture that is a hand and no wall.
LARGEST = 0.15


class Holder:
    """Share of the picture that the largest skin-like patch reaching in from the rim covers."""

    name = "holder"
    clause = "a hand reaches in at the edge of the picture"
    words = ("hand", "finger")
    #: No caption says it yet: walls and wood have the colour of skin, so only three of ten readings are hands.
    supports = frozenset[str]()
    refutes = frozenset[str]()

    def measure(self, seen: Measured) -> Measurement:
        """Sure from 2 % on. A raised hand before a living face looks the same, which is why it refutes nothing."""
        share = _skin_at_rim(seen.view)
        return Measurement(share, ramp(share, 0.005, 0.02))


def _skin_at_rim(view: View) -> float:
    """Share of the picture that the largest patch of the face's chromaticity covers which touches the left, right or
    lower rim, outside the column of the head; 0 without a face box. Only the share is kept, never a colour."""
    import cv2
    import numpy as np

    if not view.boxed:
        return 0.0
    x0, y0, x1, y1 = view.face
    colour = view.opponent / np.maximum(view.grey, 0.05)[..., None]
    third = (x1 - x0) // 3
    skin = np.median(colour[y0 + (y1 - y0) // 3 : y1, x0 + third : x1 - third].reshape(-1, 2), axis=0)
    alike = (np.hypot(*(colour - skin).transpose(2, 0, 1)) < ALIKE) & (view.grey > 0.1)
    alike[:, max(0, x0 - third) : x1 + third] = False
    _, labels, stats, _ = cv2.connectedComponentsWithStats(alike.astype(np.uint8))
    rim = (set(labels[:, 0].tolist()) | set(labels[:, -1].tolist()) | set(labels[-1].tolist())) - {0}
    shares = [float(stats[i, cv2.CC_STAT_AREA]) / alike.size for i in rim]
    return max((s for s in shares if s < LARGEST), default=0.0)


SPECIALIST = Holder()
