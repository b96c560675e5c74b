"""Face and neck of different colour: something lies over the face, in front of the head (a relation in depth)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ifas.captioning.ramp import ramp
from ifas.captioning.specialists import Measurement

if TYPE_CHECKING:
    from ifas.captioning.measure import Measured


class Layering:
    """Step of colour from the face to the strip below its box, brightness taken out; neither colour is kept."""

    name = "layering"
    clause = "the face lies in front of the head as a layer of its own"
    words = ("face and the neck differ", "rim of the face", "layer")
    supports = frozenset({"mask"})
    refutes = frozenset[str]()

    def measure(self, seen: Measured) -> Measurement:
        """Said from 0.015 on. Collars and beards make steps as well, so it refutes nothing."""
        step = seen.values["neck_step"]
        return Measurement(step, ramp(step, 0.005, 0.025))


SPECIALIST = Layering()
