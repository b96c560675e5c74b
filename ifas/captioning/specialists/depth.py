"""A sharp face before a soft background: a real person or object stands before it. A mask looks the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ifas.captioning.ramp import ramp
from ifas.captioning.specialists import Measurement

if TYPE_CHECKING:
    from ifas.captioning.measure import Measured


class Depth:
    """Sharpness of the face above that of its surround, log10 of the Laplacian's variance."""

    name = "depth"
    clause = "the background lies out of focus behind the head"
    words = ("out of focus", "soft background")
    supports = frozenset({"live", "mask", "mannequin"})
    refutes = frozenset[str]()

    def measure(self, seen: Measured) -> Measurement:
        """Nothing is said where a straight border runs beside the head: a photo on a sheet may itself show depth."""
        step = seen.values["face_sharpness"] - seen.values["surround_sharpness"]
        flat = max(seen.values["bright_border"], seen.values["dark_border"])
        return Measurement(step, ramp(step, 0.15, 0.45) * (1 - ramp(flat, 0.4, 0.6)))


SPECIALIST = Depth()
