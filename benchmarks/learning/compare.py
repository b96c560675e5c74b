"""From the results of single runs to the figures of the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000


@dataclass(frozen=True)
class Figure:
    """A figure of the table: its slice and name in metrics.json, and which direction is better."""

    title: str
    path: tuple[str, str]
    better: Literal["higher", "lower"]
    percent: bool = False


#: Figures of the table. Agreement and medium are those of evaluation; an arm without words has neither.
FIGURES: dict[str, Figure] = {
    "auc": Figure("AUC", ("target", "auc"), "higher"),
    "hter": Figure("HTER", ("target", "hter"), "lower", percent=True),
    "agreement": Figure("explanation agrees with verdict", ("target", "explanation_agreement"), "higher", percent=True),
    "medium": Figure("right attack named", ("target", "explanation_medium"), "higher", percent=True),
}


@dataclass(frozen=True)
class Difference:
    """Arm minus full model over the runs that both have, paired by world and target.

    Attributes:
        low, high: percentile 95 % interval of the mean difference.
        n: pairs.
    """

    value: float
    low: float
    high: float
    n: int

    def says(self, better: Literal["higher", "lower"]) -> Literal["worse", "better", "undecided"]:
        """What the interval says of the arm against the full model."""
        if self.low <= 0 <= self.high:
            return "undecided"
        return "better" if (self.value > 0) == (better == "higher") else "worse"


def values(results: Sequence[Mapping[str, Any]], arm: str, figure: Figure) -> dict[tuple[int, str], float]:
    """(seed, target) -> the figure, of the runs of an arm that have it."""
    slice_, name = figure.path
    of_arm = ((r["seed"], r["target"], r["slices"][slice_][name]) for r in results if r["arm"] == arm)
    return {(seed, target): float(value) for seed, target, value in of_arm if value is not None}


def mean(found: Mapping[tuple[int, str], float], target: str | None = None) -> float | None:
    """Mean over runs, of one target domain or of all; None where there are none."""
    chosen = [value for (_, domain), value in found.items() if target in (None, domain)]
    return float(np.mean(chosen)) if chosen else None


def difference(
    arm: Mapping[tuple[int, str], float], full: Mapping[tuple[int, str], float], *, seed: int = 0
) -> Difference | None:
    """Mean of arm minus full over their common runs, with a paired bootstrap; None with fewer than two pairs.

    A pair is drawn as a whole, so effects of a world and a target that are the same for both arms cancel.
    """
    pairs = sorted(arm.keys() & full.keys())
    if len(pairs) < 2:
        return None
    apart: npt.NDArray[np.float64] = np.array([arm[pair] - full[pair] for pair in pairs])
    draws = np.random.default_rng(seed).integers(len(apart), size=(RESAMPLES, len(apart)))
    low, high = np.percentile(apart[draws].mean(axis=1), [2.5, 97.5])
    return Difference(float(apart.mean()), float(low), float(high), len(pairs))
