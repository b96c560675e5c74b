"""What another threshold would do. It changes nothing: the frozen one is what is judged and shipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ifas.evaluation import rates
from ifas.evaluation.metrics import Floats

if TYPE_CHECKING:
    import pandas as pd

#: Points of the curve.
POINTS = 161


@dataclass(frozen=True)
class Moved:
    """Errors of one kind of image at the frozen and at the chosen threshold."""

    name: str
    n: int
    frozen: int
    chosen: int

    @property
    def by(self) -> int:
        """How many more errors."""
        return self.chosen - self.frozen


def span(rows: pd.DataFrame, frozen: float) -> tuple[float, float]:
    """The thresholds between which verdicts move: from the lowest to just above the highest score."""
    if rows.empty:
        return max(frozen - 0.1, 0.0), min(frozen + 0.1, 1.0)
    low, high = min(float(rows["score"].min()), frozen), max(float(rows["score"].max()), frozen)
    room = max((high - low) * 0.04, 1e-4)
    return max(low - room, 0.0), min(high + room, 1.0)


def curve(rows: pd.DataFrame, low: float, high: float) -> list[dict[str, Any]]:
    """APCER of the worst species and BPCER over the threshold."""
    thresholds = np.linspace(low, high, POINTS)
    attacks = rows[rows["label"] == "spoof"].groupby("pai_species")["score"]
    found = {
        "APCER, worst species": [1 - _below(scores, thresholds) for _, scores in attacks],
        "BPCER": [_below(rows.loc[rows["label"] == "live", "score"], thresholds)],
    }
    return [
        {"threshold": float(threshold), "rate": float(rate), "figure": figure}
        for figure, shares in found.items()
        if shares and len(shares[0])
        for threshold, rate in zip(thresholds, np.max(shares, axis=0), strict=True)
    ]


def _below(scores: pd.Series, thresholds: Floats) -> Floats:
    """The share of scores below each threshold; empty where there are no scores."""
    ordered = np.sort(scores.to_numpy(dtype="float64"))
    return np.searchsorted(ordered, thresholds, side="left") / len(ordered) if len(ordered) else np.empty(0)


def moved(rows: pd.DataFrame, frozen: float, chosen: float) -> list[Moved]:
    """Errors of bona fide and of each species at both thresholds."""
    before, after = (rates.bpcer(rows, one) for one in (frozen, chosen))
    then, now = (rates.apcer(rows, one) for one in (frozen, chosen))
    found = [Moved("bona fide rejected", before.n, before.errors, after.errors)]
    return found + [Moved(f"{name} accepted", then[name].n, then[name].errors, now[name].errors) for name in then]
