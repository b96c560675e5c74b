"""A bright, straight border beside the head: the margin of a sheet of paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ifas.captioning.ramp import ramp
from ifas.captioning.specialists import Measurement

if TYPE_CHECKING:
    from ifas.captioning.measure import Measured


class PaperMargin:
    """Chance of the likeliest edge with a nearly white side."""

    name = "paper margin"
    clause = "a straight bright edge runs beside the head"
    words = ("bright edge", "bright straight")
    supports = frozenset({"print"})
    refutes = frozenset[str]()

    def measure(self, seen: Measured) -> Measurement:
        """Said from 0.6 on, where no dark edge is much likelier."""
        dark, bright = seen.values["dark_border"], seen.values["bright_border"]
        return Measurement(bright, ramp(bright, 0.36, 0.84) if bright >= 0.8 * dark else 0.0)


SPECIALIST = PaperMargin()
