"""A fine repeating pattern: moire of a screen, dots of a halftone print (Fourier peaks of small tiles)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ifas.captioning.cues import ramp
from ifas.captioning.specialists import Measurement

if TYPE_CHECKING:
    from ifas.captioning.measure import Measured


class Recapture:
    """Log of the peak among the finest frequencies over the mean of coarser ones, medians over small tiles."""

    name = "recapture"
    clause = "a fine regular pattern covers the picture"
    words = ("wave patterns", "rippling", "regular grid", "tiny dots")
    supports = frozenset({"print", "replay"})
    refutes = frozenset({"live", "mask", "mannequin"})

    def measure(self, seen: Measured) -> Measurement:
        """Fine dots that stand above noise (4 to 6) and above coarser texture, or waves beyond those of any cloth."""
        waves, dots, fine = (seen.values[name] for name in ("wave_peak", "dot_peak", "fine_over_coarse"))
        grid = min(ramp(fine, -0.15, 0.9), ramp(dots, 5.0, 7.0))
        return Measurement(fine, max(grid, ramp(waves, 18.0, 32.0)))


SPECIALIST = Recapture()
