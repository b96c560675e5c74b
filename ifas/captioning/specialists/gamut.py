"""Pale colours and no real black: printed ink shows fewer colours than real skin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ifas.captioning.ramp import ramp
from ifas.captioning.specialists import Measurement

if TYPE_CHECKING:
    from ifas.captioning.measure import Measured


class Gamut:
    """Spread of the colour differences; haze narrows it, too."""

    name = "gamut"
    clause = "the colours are pale and black looks grey"
    words = ("pale", "washed out", "nothing in it is black")
    supports = frozenset({"print"})
    refutes = frozenset[str]()

    def measure(self, seen: Measured) -> Measurement:
        """Pale colours and a raised black level, both."""
        pale, black = ramp(seen.values["gamut"], 0.095, 0.06), ramp(seen.values["black_level"], 0.28, 0.42)
        return Measurement(seen.values["gamut"], min(pale, black))


SPECIALIST = Gamut()
