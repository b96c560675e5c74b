"""The figures of a page, out of the ledger's records: rules with margins, headlines, what changed, all slices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ifas.core.measures import MEASURES
from ifas.review import shown

if TYPE_CHECKING:
    from ifas.promotion.candidate import Candidate

#: The figures that a reviewer looks at first.
HEADLINES = ("apcer_max", "bpcer", "hter", "auc")
KINDS = {"max": "at most", "min": "at least", "max_increase": "may rise by", "max_drop": "may fall by"}


@dataclass(frozen=True)
class Figure:
    """One figure of candidate and champion, written out.

    `better`: whether the candidate moved the right way; `clear`: whether the interval of the difference is without 0.
    """

    metric: str
    slice: str
    value: str
    interval: str
    no_interval: str
    n: str
    why_not: str
    champion: str
    champion_interval: str
    difference: str
    difference_interval: str
    better: bool | None
    clear: bool
    species: str


@dataclass(frozen=True)
class Rule:
    """One rule of the gate. `room`: the part of the way to the limit that is left, 0 to 1, for the bar.
    `reason` is empty where a rule applies to several slices and was given before. `against`: the baseline that stands
    in the champion's place.
    """

    id: str
    figure: Figure
    limit: str
    margin: str
    room: float
    passed: bool
    why: str
    reason: str
    against: str


def figure(metrics: Mapping[str, Any], champion: Mapping[str, Any] | None, name: str, metric: str) -> Figure:
    """A figure as it is written; a dash stands for what nobody measured.

    The champion's figure is that on the candidate's images, where evaluation measured it, else that of its own
    evaluation.
    """
    ours, theirs = shown.entry(metrics, name, metric), shown.entry(champion, name, metric)
    return _figure(metric, name, ours, theirs, _paired(metrics, name, metric) if champion else {})


def by_kind(
    metrics: Mapping[str, Any], champion: Mapping[str, Any] | None, metric: str, sides: Sequence[str]
) -> dict[str, list[Figure]]:
    """A figure that each slice has of several kinds, such as APCER of PAI species: kind -> that of each side."""
    parts = [
        (side, shown.entry(metrics, side, metric), shown.entry(champion, side, metric), _paired(metrics, side, metric))
        for side in sides
    ]
    kinds = sorted({kind for _, ours, _, _ in parts for kind in ours})
    return {
        kind: [
            _figure(metric, side, ours.get(kind, {}), theirs.get(kind, {}), paired.get(kind, {}))
            for side, ours, theirs, paired in parts
        ]
        for kind in kinds
    }


def compared(candidate: Candidate, champion: Candidate | None) -> Mapping[str, Any]:
    """A candidate's figures; without its paired differences where evaluation paired it with another champion than the
    gate compared it with, as where another one was approved in between."""
    against = candidate.metrics.get("against_champion")
    paired_with = against.get("candidate") if isinstance(against, Mapping) else None
    if champion is not None and paired_with == champion.id:
        return candidate.metrics
    return {name: tree for name, tree in candidate.metrics.items() if name != "against_champion"}


def champion_of(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """The champion's figures on the candidate's own images, as evaluation measured them; None where there is none."""
    found = metrics.get("against_champion")
    if not found:
        return None

    def theirs(entry: Mapping[str, Any]) -> dict[str, Any]:
        if "champion" in entry:
            return {"value": entry["champion"]}
        return {name: theirs(one) for name, one in entry.items() if isinstance(one, Mapping)}

    return {"slices": {name: theirs(one) for name, one in found["slices"].items()}}


def beside(metrics: Mapping[str, Any], champion: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The champion's figures to draw beside a candidate's: on the same images where they were judged, else its own.

    Args:
        metrics: the candidate's, as `compared`.
    """
    same = champion_of(metrics)
    if champion is None or same is None:
        return champion
    slices = dict(champion.get("slices", {}))
    for name, found in same["slices"].items():
        own = slices.get(name, {})
        # A tree of species keeps those that were not compared.
        trees = {one: {**own.get(one, {}), **tree} for one, tree in found.items() if "value" not in tree}
        slices[name] = {**own, **found, **trees}
    return {**champion, "slices": slices}


def _figure(
    metric: str, name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any], paired: Mapping[str, Any]
) -> Figure:
    now, before, moved = ours.get("value"), theirs.get("value"), paired.get("value")
    if moved is not None:  # on the same images; the champion's own evaluation may have been on others
        theirs = {"value": paired.get("champion")}
        before = theirs["value"]
    elif now is not None and before is not None:
        moved = now - before
    better = (moved < 0) == (MEASURES[metric].better == "lower") if moved and metric in MEASURES else None
    ends = paired.get("interval")
    counted = ours.get("errors", ours.get("hits"))
    return Figure(
        metric=metric,
        slice=name,
        value=shown.value(now, metric),
        interval=shown.interval(ours.get("interval"), metric),
        no_interval=str(ours.get("no_interval", "")),
        n=f"{counted} of {ours['n']}"
        if counted is not None and "n" in ours
        else f"n = {ours['n']}"
        if "n" in ours
        else "",
        why_not=str(ours.get("reason", "")) if now is None else "",
        champion=shown.value(before, metric),
        champion_interval=shown.interval(theirs.get("interval"), metric),
        difference=shown.change(paired.get("value"), metric),
        difference_interval=shown.interval(paired.get("interval"), metric, signed=True),
        better=better,
        clear=bool(ends and (ends[0] > 0 or ends[1] < 0)),
        species=str(ours.get("species", "")),
    )


def rules(candidate: Candidate, champion: Candidate | None) -> list[Rule]:
    """The gate's rules, the failed and the narrowest first."""
    theirs, ours = champion.metrics if champion else None, compared(candidate, champion)
    found = candidate.decision.get("rules", [])
    # A rule without a margin fails since something is missing, or passes since there is nothing to compare with.
    first, last = -math.inf, math.inf
    ordered = sorted(
        found,
        key=lambda one: (
            one["passed"],
            one["margin"] if one["margin"] is not None else last if one["passed"] else first,
        ),
    )
    told: set[str] = set()
    return [_rule(one, ours, theirs, told) for one in ordered]


def _rule(
    one: Mapping[str, Any], metrics: Mapping[str, Any], champion: Mapping[str, Any] | None, told: set[str]
) -> Rule:
    again = one["id"] in told
    told.add(one["id"])
    metric, limit, margin = one["metric"], one["limit"], one["margin"]
    relative = one["kind"] in ("max_increase", "max_drop")
    written = shown.change(limit, metric).lstrip("+") if relative else shown.value(limit, metric)
    most = max(limit if one["kind"] != "min" else 1 - limit, 0.05) if not relative else max(2 * limit, 0.05)
    return Rule(
        id=one["id"],
        figure=_of_rule(one, metrics, champion),
        limit=f"{KINDS[one['kind']]} {written}" + (" points" if relative and metric not in shown.PLAIN else ""),
        margin=shown.change(margin, metric),
        room=min(max((margin or 0) / most, 0), 1) if one["passed"] else min(max(-(margin or -most) / most, 0.04), 1),
        passed=one["passed"],
        why=one["why"],
        reason="" if again else one["reason"],
        against=one.get("against") or "",
    )


def _of_rule(one: Mapping[str, Any], metrics: Mapping[str, Any], champion: Mapping[str, Any] | None) -> Figure:
    metric = one["metric"]
    if not one.get("against"):
        return figure(metrics, champion, one["slice"], metric)
    return replace(
        figure(metrics, None, one["slice"], metric),
        champion=shown.value(one["champion"], metric),
        difference=shown.change(one["difference"], metric),
        difference_interval=shown.interval(one["interval"], metric, signed=True),
    )


def changed(candidate: Candidate, champion: Candidate | None) -> list[str]:
    """What is another than at the champion, in words, from the hashes of the evidence."""
    if champion is None:
        return ["first of its product"]
    ours, theirs = candidate.evidence, champion.evidence
    said = {
        "dataset": f"data {champion.dataset_revision[:7]} → {candidate.dataset_revision[:7]}",
        "captions": "captions",
        "model": "weights",
        "steps": "settings or code",
        "policy": "policy",
    }
    found = [words for name, words in said.items() if ours.get(name) != theirs.get(name)]
    now, before = (one.metrics.get("threshold", {}).get("value") for one in (candidate, champion))
    if _number(now) and _number(before) and now != before:
        found.append(f"threshold {before:.3f} → {now:.3f}")
    return found or ["nothing that was recorded"]


def slice_names(metrics: Mapping[str, Any]) -> Sequence[str]:
    """The slices that were measured: the fixed ones, then the others by name."""
    slices = metrics.get("slices", {})
    fixed = [name for name in ("target", "source_test") if name in slices]
    return [*fixed, *sorted(name for name in slices if name not in fixed)]


def _paired(metrics: Mapping[str, Any], name: str, metric: str) -> Mapping[str, Any]:
    """The paired difference to the champion, where evaluation has left one."""
    found: Any = metrics.get("against_champion")
    for key in ("slices", name, metric):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
