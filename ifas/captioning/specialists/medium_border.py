"""A straight edge beside the head that is as sharp as the head: the rim of a sheet, a device or what it shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ifas.captioning.ramp import ramp
from ifas.captioning.specialists import Measurement

if TYPE_CHECKING:
    from ifas.captioning.measure import Measured


class MediumBorder:
    """Chance of the likeliest edge of a medium (`edges`)."""

    name = "medium border"
    clause = "the straight edge of something flat runs beside the head"
    words = ("dark frame", "dark straight", "bright edge", "bright straight", "straight edge")
    supports = frozenset({"print", "replay"})
    refutes = frozenset[str]()

    def measure(self, seen: Measured) -> Measurement:
        """Said from a chance of 0.56 on; one room in five has such an edge, so it refutes nothing."""
        return Measurement(seen.values["border"], ramp(seen.values["border"], 0.36, 0.76))


SPECIALIST = MediumBorder()
