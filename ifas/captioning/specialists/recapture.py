"""A fine repeating pattern: moire of a screen, dots of a halftone print (Fourier peaks of small tiles)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ifas.captioning.cues import ramp
from ifas.captioning.specialists import Measurement

if TYPE_CHECKING:
    from ifas.captioning.measure import Measured


class Recapture:
    """Peak over floor of the tiles' spectra, the stronger of two rings relative to where its clause begins."""

    name = "recapture"
    clause = "a fine regular pattern covers the picture"
    words = ("wave patterns", "rippling", "regular grid", "tiny dots")
    supports = frozenset({"print", "replay"})
    refutes = frozenset({"live", "mask", "mannequin"})

    def measure(self, seen: Measured) -> Measurement:
        """Noise alone gives 4 to 6; clothes and walls reach 24 in the waves and 11 in the dots, hence what is sure."""
        waves, dots = seen.values["wave_peak"], seen.values["dot_peak"]
        return Measurement(max(waves, dots), max(ramp(waves, 13.0, 26.0), ramp(dots, 7.5, 12.0)))


SPECIALIST = Recapture()
