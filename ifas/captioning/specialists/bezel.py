"""A dark, straight border beside the head: the bezel of a screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ifas.captioning.cues import ramp
from ifas.captioning.specialists import Measurement

if TYPE_CHECKING:
    from ifas.captioning.measure import Measured


class Bezel:
    """Longest dark border, as a share of the picture's shorter side."""

    name = "bezel"
    clause = "a straight dark frame runs beside the head"
    words = ("dark frame", "dark straight")
    supports = frozenset({"replay"})
    refutes = frozenset({"live", "mask", "mannequin"})

    def measure(self, seen: Measured) -> Measurement:
        """Sure from 0.75 of the side on, and only where no bright border is longer: door frames are shorter."""
        dark, bright = seen.values["dark_border"], seen.values["bright_border"]
        return Measurement(dark, ramp(dark, 0.25, 0.75) if dark > bright else 0.0)


SPECIALIST = Bezel()
