"""A fine repeating pattern: moire of a screen, dots of a halftone print (Fourier peaks of small tiles)."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifas.captioning.ramp import ramp
from ifas.captioning.specialists import Measurement

if TYPE_CHECKING:
    from ifas.captioning.measure import Measured

TABLE = Path(__file__).with_name("recapture_odds.json")


class Recapture:
    """Chance that a pixel grid, a halftone or their moire lies over the picture, given that it shows a medium."""

    name = "recapture"
    clause = "a fine regular pattern covers the picture"
    words = ("regular pattern", "wave patterns", "rippling", "regular grid", "tiny dots")
    supports = frozenset({"print", "replay"})
    refutes = frozenset({"live", "mask", "mannequin"})

    def measure(self, seen: Measured) -> Measurement:
        """Said from a chance of 0.85 on.

        The chance holds for pictures of media. Sure enough to doubt a label by itself are only fine dots that stand
        above noise (4 to 6) and above coarser texture, or waves beyond those of any cloth.
        """
        waves, dots, fine = (seen.values[name] for name in ("wave_peak", "dot_peak", "fine_over_coarse"))
        grid = min(ramp(fine, -0.15, 0.9), ramp(dots, 5.0, 7.0))
        alone = max(grid, ramp(waves, 18.0, 32.0))
        likely = chance(seen.values)
        return Measurement(likely, max(alone, min(0.99, ramp(likely, 0.7, 1.0))))


def chance(values: dict[str, float]) -> float:
    """Of a print or replay with these measurements to show its pixels or dots: a logistic function of them."""
    table = odds_table()
    odds = table["offset"] + sum(weight * values[name] for name, weight in table["weights"].items())
    return 1 / (1 + math.exp(-min(50.0, max(-50.0, odds))))


@cache
def odds_table() -> Any:
    """The table that `python -m benchmarks.recapture --fit` makes of the simulator's known patterns."""
    return json.loads(TABLE.read_text(encoding="utf-8"))


SPECIALIST = Recapture()
