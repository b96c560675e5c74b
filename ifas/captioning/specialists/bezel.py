"""A dark, straight border beside the head: the bezel of a screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ifas.captioning.ramp import ramp
from ifas.captioning.specialists import Measurement

if TYPE_CHECKING:
    from ifas.captioning.measure import Measured


class Bezel:
    """Chance of the likeliest edge with a nearly black side."""

    name = "bezel"
    clause = "a straight dark frame runs beside the head"
    words = ("dark frame", "dark straight")
    supports = frozenset({"replay"})
    refutes = frozenset({"live", "mask", "mannequin"})

    def measure(self, seen: Measured) -> Measurement:
        """Said from a chance of 0.57 on, sure from 0.97 on, and only where no bright edge is likelier."""
        dark, bright = seen.values["dark_border"], seen.values["bright_border"]
        return Measurement(dark, ramp(dark, 0.17, 0.97) if dark > bright else 0.0)


SPECIALIST = Bezel()
