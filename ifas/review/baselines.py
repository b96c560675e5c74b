"""The baselines of a candidate, written out: their figures beside the candidate's, and the paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ifas.core.measures import MEASURES, OF_BASELINES
from ifas.review import shown

#: The figures that are shown; a rule may bind the others, too.
FIGURES = OF_BASELINES[:2]


@dataclass(frozen=True)
class Cell:
    """One figure. `better`: whether the whole interval of the difference is on the candidate's side, True, or on the
    baseline's, False; None: the images can't tell."""

    baseline: str
    candidate: str
    difference: str
    interval: str
    why_not: str
    better: bool | None


@dataclass(frozen=True)
class Baseline:
    """A baseline: what it rests on, in words, and its figures by slice."""

    name: str
    rests: str
    rows: Sequence[tuple[str, Sequence[Cell]]]


def baselines(metrics: Mapping[str, Any]) -> list[Baseline]:
    """All of an evaluation; none where it made none, or an older version did."""
    found = metrics.get("baselines")
    if not isinstance(found, Mapping):
        return []
    return [
        Baseline(
            name=name,
            rests=_rests(one),
            rows=[(slice_, [_cell(one, slice_, metric) for metric in FIGURES]) for slice_ in one["slices"]],
        )
        for name, one in found.items()
    ]


def _cell(one: Mapping[str, Any], slice_: str, metric: str) -> Cell:
    entry = shown.entry(one, slice_, metric)
    value, interval, better = entry.get("value"), entry.get("interval"), None
    if interval and (interval[0] > 0 or interval[1] < 0):
        better = (interval[1] < 0) == (MEASURES[metric].better == "lower")
    theirs = entry.get("baseline")
    return Cell(
        baseline=shown.value(theirs, metric),
        # On the images that both scored, so that the three numbers belong together.
        candidate=shown.value(theirs + value if theirs is not None and value is not None else None, metric),
        difference=shown.change(value, metric),
        interval=shown.interval(interval, metric, signed=True),
        why_not=str(entry.get("reason") or "not measured") if value is None else "",
        better=better,
    )


def _rests(one: Mapping[str, Any]) -> str:
    said = []
    if "c" in one:
        said.append(
            f"logistic regression on {one['features']} features of {one['training_rows']} images, C = {one['c']:g}"
        )
    if "sha256" in one:
        said.append(f"file {str(one['sha256'])[:12]}")
    limit = one["threshold"].get("value")
    said.append("no threshold" if limit is None else f"threshold {limit:.3f} from development data")
    for split, counts in one["coverage"].items():
        if counts["missing"]:
            said.append(f"{counts['missing']} of {counts['n']} {split} images without a score")
    return "; ".join(said)
