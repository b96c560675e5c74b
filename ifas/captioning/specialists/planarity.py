"""Face and surroundings are equally sharp, as on a flat sheet. With a small lens a real scene looks the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ifas.captioning.ramp import ramp
from ifas.captioning.specialists import Measurement

if TYPE_CHECKING:
    from ifas.captioning.measure import Measured


#: Sharpness of a region without any detail.
BLANK = -5.5


class Planarity:
    """Sharpness of the face above that of its surround, log10 of the Laplacian's variance; 0 means equally sharp."""

    name = "planarity"
    clause = "face and background lie in one flat plane of focus"
    words = ("one flat plane", "one plane", "flat as")
    supports = frozenset({"print", "replay"})
    refutes = frozenset[str]()

    def measure(self, seen: Measured) -> Measurement:
        """Said where the two differ by less than 0.55 (log10), and neither is blank."""
        face, surround = seen.values["face_sharpness"], seen.values["surround_sharpness"]
        return Measurement(
            face - surround, ramp(abs(face - surround), 1.0, 0.1) if min(face, surround) > BLANK else 0.0
        )


SPECIALIST = Planarity()
