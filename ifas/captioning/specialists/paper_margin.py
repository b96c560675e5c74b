"""A bright, straight border beside the head: the margin of a sheet of paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ifas.captioning.cues import ramp
from ifas.captioning.specialists import Measurement

if TYPE_CHECKING:
    from ifas.captioning.measure import Measured


class PaperMargin:
    """Longest bright border, as a share of the picture's shorter side."""

    name = "paper margin"
    clause = "a straight bright edge runs beside the head"
    words = ("bright edge", "bright straight")
    supports = frozenset({"print"})
    refutes = frozenset[str]()

    def measure(self, seen: Measured) -> Measurement:
        """Sure from 1.0 of the side on, and only where no dark border is longer. Bright walls have such edges, too."""
        dark, bright = seen.values["dark_border"], seen.values["bright_border"]
        return Measurement(bright, ramp(bright, 0.35, 1.0) if bright >= dark else 0.0)


SPECIALIST = PaperMargin()
