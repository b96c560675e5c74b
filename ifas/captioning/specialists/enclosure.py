"""Straight edges on several sides of the face: it lies inside a rectangle, as on a sheet or a screen (2-D)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ifas.captioning.ramp import ramp
from ifas.captioning.specialists import Measurement

if TYPE_CHECKING:
    from ifas.captioning.measure import Measured


class Enclosure:
    """Sides of the face with the edge of a medium beside them: how face and medium lie to each other."""

    name = "enclosure"
    clause = "straight edges enclose the face"
    words = ("enclose",)
    supports = frozenset({"print", "replay"})
    refutes = frozenset({"live", "mask", "mannequin"})

    def measure(self, seen: Measured) -> Measurement:
        """Sum over the four sides of the best chance there; said from 1.3 on, sure from 2.5 on."""
        best: dict[str, float] = {}
        for edge in seen.edges:
            best[edge.side] = max(best.get(edge.side, 0.0), edge.chance)
        total = sum(best.values())
        return Measurement(total, ramp(total, 0.1, 2.5))


SPECIALIST = Enclosure()
