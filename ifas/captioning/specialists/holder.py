"""A hand at the edge of the picture, beside head and shoulders: somebody holds what is before the camera."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ifas.captioning.cues import ramp
from ifas.captioning.holding import skin_at_rim
from ifas.captioning.specialists import Measurement

if TYPE_CHECKING:
    from ifas.captioning.measure import Measured


class Holder:
    """Share of the picture that the largest skin-like patch reaching in from the rim covers."""

    name = "holder"
    clause = "a hand reaches in at the edge of the picture"
    words = ("hand", "finger")
    #: Nothing is said yet: walls and wood have the colour of skin, so three of ten readings are hands.
    supports = frozenset[str]()
    refutes = frozenset[str]()

    def measure(self, seen: Measured) -> Measurement:
        """Sure from 2 % on. A raised hand before a living face looks the same, which is why it refutes nothing."""
        share = skin_at_rim(seen.view)
        return Measurement(share, ramp(share, 0.005, 0.02))


SPECIALIST = Holder()
