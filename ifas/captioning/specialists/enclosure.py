"""Straight edges on several sides of the face: it lies inside a rectangle, as on a sheet or a screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ifas.captioning.borders import sides
from ifas.captioning.cues import ramp
from ifas.captioning.specialists import Measurement

if TYPE_CHECKING:
    from ifas.captioning.measure import Measured


class Enclosure:
    """Sides of the face with a straight edge beside them: how face and medium lie to each other in the picture."""

    name = "enclosure"
    clause = "straight edges enclose the face"
    words = ("enclose",)
    supports = frozenset({"print", "replay"})
    refutes = frozenset[str]()

    def measure(self, seen: Measured) -> Measurement:
        """Sure from three sides on, of which one is plainly a rim; rooms have edges on one or two."""
        count = sides(seen.view)
        rim = max(seen.values["dark_border"], seen.values["bright_border"])
        return Measurement(float(count), min(ramp(count, 1.0, 3.0), ramp(rim, 0.3, 0.7)))


SPECIALIST = Enclosure()
