"""Small sharp highlights on the face: moulded plastic, latex or a glossy sheet. An oily forehead has them, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ifas.captioning.ramp import ramp
from ifas.captioning.specialists import Measurement

if TYPE_CHECKING:
    from ifas.captioning.measure import Measured


class Specular:
    """Share of highlights in the face's tones."""

    name = "specular"
    clause = "small sharp highlights lie on the face"
    words = ("highlights", "shines")
    supports = frozenset({"mask", "mannequin"})
    refutes = frozenset[str]()

    def measure(self, seen: Measured) -> Measurement:
        """Said from 0.10 on. Oily foreheads reach it as well, so it refutes nothing."""
        return Measurement(seen.values["gloss"], ramp(seen.values["gloss"], 0.06, 0.14))


SPECIALIST = Specular()
