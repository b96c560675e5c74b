"""What a rule reads of a metrics tree: a figure with its interval, and how many pictures and people it rests on.

A figure that is the worst of several (APCER over PAI species) has no interval of its own that could be trusted: the
species with the worst rate need not be the one with the worst upper end. So an interval bound looks at every species.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ifas.core.measures import MEASURES, unseen

Metrics = Mapping[str, Any]
Interval = tuple[float, float]

#: A figure that is the worst of several -> the tree of these, each with its own interval and n.
PARTS: dict[str, str] = {
    "apcer_max": "apcer",
    "apnrr_max": "apnrr",
    "explanation_medium_least": "explanation_medium_by_type",
}


@dataclass(frozen=True, kw_only=True)
class Support:
    """What a figure rests on: pictures, subjects, and the species where it is the figure of one.

    Where nobody counted the subjects of the figure itself, they are all of its slice, and `of_slice` is true.
    """

    n: int | None
    n_subjects: int | None
    species: str | None
    of_slice: bool


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure as a rule reads it. `missing` says why there is no value, or no interval where one is bound."""

    value: float | None
    interval: Interval | None
    support: Support
    #: Of all species that the figure is the worst of, the fewest pictures and the fewest subjects.
    fewest: tuple[Support, Support]
    missing: str = ""


@dataclass(frozen=True, kw_only=True)
class Change:
    """Candidate minus champion, or minus a baseline, whose figure is then `champion`. `paired`: both were scored on the
    same pictures."""

    value: float
    interval: Interval | None
    champion: float | None
    paired: bool
    support: Support | None = None


def figure(metrics: Metrics, name: str, metric: str, bound: Literal["value", "interval"]) -> Figure:
    """A figure of the slice `name`.

    Args:
        bound: with `interval`, interval and support are those of the species whose pessimistic end is the worst.
    """
    entry = entry_of(metrics, name, metric)
    value = number(entry.get("value"))
    parts = parts_of(metrics, name, metric)
    subjects = count(slice_of(metrics, name).get("n_subjects"))
    supports = [_support(part, subjects, species) for species, part in parts.items()] or [_support(entry, subjects)]
    # An unknown number is fewer than any other.
    fewest = (min(supports, key=lambda s: s.n or 0), min(supports, key=lambda s: s.n_subjects or 0))
    own = Figure(
        value=value, interval=interval_of(entry), support=_support(entry, subjects), fewest=fewest, missing=_why(entry)
    )
    if value is None or bound == "value":
        return own
    if metric not in PARTS:
        return own
    if not parts:
        return _without_interval(own, f"the figures behind it ({PARTS[metric]}) are not in the metrics")
    for species, part in parts.items():
        if interval_of(part) is None:
            return _without_interval(own, f"{species} has none: {_why(part)}")
    higher = MEASURES[metric].better == "higher"

    def badness(species: str) -> tuple[float, int]:
        low, high = interval_of(parts[species]) or (0.0, 1.0)
        return (-low if higher else high), -(count(parts[species].get("n")) or 0)

    worst = max(parts, key=badness)
    return Figure(
        value=value,
        interval=interval_of(parts[worst]),
        support=_support(parts[worst], subjects, worst),
        fewest=fewest,
    )


def change(metrics: Metrics, champion: Metrics, champion_id: str | None, name: str, metric: str) -> Change | None:
    """How far a figure is from the champion's; None where one of the two was not measured.

    The paired difference counts where the evaluation holds one against this very champion. Else it is the difference
    to the figure of the champion's own evaluation, which has no interval.
    """
    if found := _change(metrics, name, paired(metrics, champion_id, name, metric), "champion"):
        return found
    now = number(entry_of(metrics, name, metric).get("value"))
    before = number(entry_of(champion, name, metric).get("value"))
    if now is None or before is None:
        return None
    return Change(value=now - before, interval=None, champion=before, paired=False)


def change_against(metrics: Metrics, baseline: str, name: str, metric: str) -> Change | None:
    """How far a figure is from a baseline's on the same pictures; None where evaluation did not compare them."""
    return _change(metrics, name, of_baseline(metrics, baseline, name, metric), "baseline")


def _change(metrics: Metrics, name: str, pair: Mapping[str, Any], rival: str) -> Change | None:
    difference = number(pair.get("value"))
    if difference is None:
        return None
    return Change(
        value=difference,
        interval=interval_of(pair),
        champion=number(pair.get(rival)),
        paired=True,
        support=_support(pair, count(slice_of(metrics, name).get("n_subjects"))),
    )


def of_baseline(metrics: Metrics, baseline: str, name: str, metric: str) -> Mapping[str, Any]:
    """The entry of a paired difference against a baseline; empty where evaluation had none of that name."""
    every = metrics.get("baselines")
    found = every.get(baseline) if isinstance(every, Mapping) else None
    return entry_of(found, name, metric) if isinstance(found, Mapping) else {}


def paired(metrics: Metrics, champion_id: str | None, name: str, metric: str) -> Mapping[str, Any]:
    """The entry of a paired difference against this champion; empty where the evaluation compared with another."""
    against = metrics.get("against_champion")
    if not champion_id or not isinstance(against, Mapping) or against.get("candidate") != champion_id:
        return {}
    return entry_of(against, name, metric)


def slice_of(metrics: Metrics, name: str) -> Mapping[str, Any]:
    """Everything that is known of a slice."""
    slices = metrics.get("slices")
    found = slices.get(name) if isinstance(slices, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def entry_of(metrics: Metrics, name: str, metric: str) -> Mapping[str, Any]:
    """One figure of a slice; empty where it is not there."""
    found = slice_of(metrics, name).get(metric)
    return found if isinstance(found, Mapping) else {}


def parts_of(metrics: Metrics, name: str, metric: str) -> dict[str, Mapping[str, Any]]:
    """The figures that one is the worst of, by species or spoof type; empty for any other."""
    tree = entry_of(metrics, name, PARTS[metric]) if metric in PARTS else {}
    return {str(part): found if isinstance(found, Mapping) else {} for part, found in sorted(tree.items())}


def number(value: object) -> float | None:
    """A finite number, or None: every comparison with NaN is false."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def count(value: object) -> int | None:
    """A whole number that is not negative, or None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def interval_of(entry: Mapping[str, Any]) -> Interval | None:
    """Both ends as a rule reads them, or None where they are missing or the wrong way round.

    Of a rate, they are never closer than without any error among as many people: one error more would else turn a fail
    into a pass, as it may show that errors do not go by person.
    """
    found = entry.get("interval")
    if not isinstance(found, (list, tuple)) or len(found) != 2:
        return None
    low, high = number(found[0]), number(found[1])
    if low is None or high is None or low > high:
        return None
    subjects = count(entry.get("n_subjects"))
    if subjects and ("errors" in entry or "hits" in entry):
        return min(low, 1 - unseen(subjects)), max(high, unseen(subjects))
    return low, high


def _support(entry: Mapping[str, Any], subjects: int | None, species: str | None = None) -> Support:
    named = species or entry.get("species") or entry.get("spoof_type")
    own = count(entry.get("n_subjects"))
    return Support(
        n=count(entry.get("n")),
        n_subjects=subjects if own is None else own,
        species=named if isinstance(named, str) else None,
        of_slice=own is None,
    )


def _why(entry: Mapping[str, Any]) -> str:
    return str(entry.get("reason") or entry.get("no_interval") or "it is not in the metrics")


def _without_interval(own: Figure, missing: str) -> Figure:
    return Figure(value=own.value, interval=None, support=own.support, fewest=own.fewest, missing=missing)
