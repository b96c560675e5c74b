"""A face without fine detail: a picture of a picture is soft. So is a picture taken with a poor lens."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ifas.captioning.ramp import ramp
from ifas.captioning.specialists import Measurement

if TYPE_CHECKING:
    from ifas.captioning.measure import Measured


class Sharpness:
    """Log10 variance of the Laplacian inside the face box, over the squared contrast of the picture."""

    name = "sharpness"
    clause = "the face is soft and without fine detail"
    words = ("soft and without", "out of focus and", "blurred face")
    supports = frozenset({"print", "replay"})
    refutes = frozenset[str]()

    def measure(self, seen: Measured) -> Measurement:
        """Said below -2.53, which is a blur of some 0.7 pixels of 256; noise keeps dim pictures above it."""
        value = seen.values["face_sharpness"] - 2 * math.log10(max(seen.values["contrast"], 0.05))
        return Measurement(value, ramp(value, -2.43, -2.63))


SPECIALIST = Sharpness()
