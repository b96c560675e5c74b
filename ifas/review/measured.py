"""What was measured of a model, ready for the templates: the review page and a run's report show the same parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from markupsafe import Markup

from ifas.core.measures import MEASURES
from ifas.core.release_status import released
from ifas.evaluation.exposure import exposure_against_error
from ifas.review import baselines, charts, figures, shown, sweep

if TYPE_CHECKING:
    import pandas as pd

#: Kinds of slices that are drawn; handlings have a chart of their own.
DRAWN = ("target", "source_test", "domain:", "spoof_type:", "device:", "illumination:", "batch:")
#: Lines of one chart; a table has all of them.
MOST_LINES = 40
#: Figures of an image that was handled.
HANDLED = ("flips", "flips_to_live", "flips_to_spoof", "handled_non_response")
SIDES = ("target", "source_test")


@dataclass(frozen=True)
class Evaluated:
    """A model's figures, and its predictions where they are at hand."""

    metrics: Mapping[str, Any]
    predictions: pd.DataFrame | None = None

    @property
    def threshold(self) -> float | None:
        """The frozen one."""
        value = self.metrics.get("threshold", {}).get("value")
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    @cached_property
    def rows(self) -> pd.DataFrame | None:
        """The released test images of the protocol that have a score."""
        if self.predictions is None or self.threshold is None:
            return None
        protocol, rows = self.metrics.get("protocol", {}), self.predictions
        domains = [*protocol.get("source_domains", []), *protocol.get("target_domains", [])]
        rows = released(rows[(rows["split"] == "test") & rows["domain"].isin(domains)])
        return rows[rows["score"].notna()]

    def side(self, name: Literal["source", "target"]) -> pd.DataFrame | None:
        """Those of `rows` that are of one side of the protocol."""
        if self.rows is None:
            return None
        return self.rows[self.rows["domain"].isin(self.metrics.get("protocol", {}).get(f"{name}_domains", []))]

    def series(self, name: Literal["source", "target"]) -> charts.Series | None:
        """Scores of one side; None where it lacks bona fide or attacks."""
        rows = self.side(name)
        if rows is None or self.threshold is None:
            return None
        live = (rows["label"] == "live").to_numpy(dtype=bool)
        if live.all() or not live.any():
            return None
        return charts.Series(rows["score"].to_numpy(dtype="float64"), live, self.threshold)


@dataclass(frozen=True)
class Slice:
    """A slice of the table: how many images it has, and its headline figures."""

    name: str
    n_live: int
    n_spoof: int
    figures: Sequence[figures.Figure]


@dataclass(frozen=True)
class Named:
    """What answers say that was shown, on one side: true spoof type -> said spoof type -> images."""

    side: str
    said: Mapping[str, Mapping[str, int]]
    right: Mapping[str, figures.Figure]


def of(metrics: Mapping[str, Any], champion: Mapping[str, Any] | None, drawn: Mapping[str, Markup]) -> dict[str, Any]:
    """All parts that rest on figures alone, by the name that templates know them by.

    Args:
        champion: its figures.
        drawn: charts, as `drawings` made them.
    """
    slices = metrics.get("slices", {})
    names = figures.slice_names(metrics)

    def several(name: str, chosen: Sequence[str]) -> list[figures.Figure]:
        return [figures.figure(metrics, champion, name, metric) for metric in chosen]

    return {
        "m": metrics,
        "charts": drawn,
        "rival": champion is not None,
        "headlines": {name: several(name, figures.HEADLINES) for name in SIDES if name in slices},
        "every": [
            Slice(name, slices[name].get("n_live", 0), slices[name].get("n_spoof", 0), several(name, figures.HEADLINES))
            for name in names
            if not name.startswith("handling:")
        ],
        "undrawn": max(sum(map(_drawn, names)) - MOST_LINES, 0),
        "all_figures": {one: [figures.figure(metrics, champion, side, one) for side in SIDES] for one in MEASURES},
        "baselines": baselines.baselines(metrics),
        "baseline_figures": baselines.FIGURES,
        "asked": _asked(metrics),
        "species": figures.by_kind(metrics, champion, "apcer", SIDES),
        "handled": {name.partition(":")[2]: several(name, HANDLED) for name in names if name.startswith("handling:")},
        "named": [_named(metrics, name) for name in SIDES if name in slices],
        "cues": slices.get("target", {}).get("cues", {}),
        "paired": {
            side: [one for one in several(side, tuple(MEASURES)) if one.difference != shown.DASH] for side in SIDES
        },
    }


def _named(metrics: Mapping[str, Any], side: str) -> Named:
    one = metrics["slices"][side]
    right = figures.by_kind(metrics, None, "explanation_medium_by_type", (side,))
    return Named(side, one.get("attacks_named", {}), {kind: found[0] for kind, found in right.items()})


def exposed(metrics: Mapping[str, Any], validation: object) -> dict[str, Any]:
    """Exposure against error on the target; no rows where validation left no counts.

    Args:
        validation: facts of the step `validate`.
    """
    seen = validation.get("exposure") if isinstance(validation, Mapping) else None
    species = seen.get("species") if isinstance(seen, Mapping) else None
    apcer = shown.entry(metrics, "target", "apcer")
    return exposure_against_error(species, apcer) if species and apcer else {"rows": [], "spearman": None}


def _asked(metrics: Mapping[str, Any]) -> dict[str, dict[str, figures.Figure]]:
    """The figures of images asked in other ways, by side."""
    names = metrics.get("modes", {}).get("figures", [])
    return {side: {one: figures.figure(metrics, None, side, one) for one in names} for side in SIDES}


def drawings(
    draw: charts.Draw,
    metrics: Mapping[str, Any],
    champion: Mapping[str, Any] | None,
    series: Mapping[str, charts.Series],
) -> dict[str, Markup]:
    """The charts of slices, and where there are scores of the first one of `series` also curves."""
    names = figures.slice_names(metrics)
    wanted: list[tuple[str, str, list[charts.Row]]] = []
    for metric in figures.HEADLINES:
        lines = [_row(metrics, champion, shown.slice_name(name), name, metric) for name in names if _drawn(name)]
        wanted.append((metric, f"{shown.title(metric)} on every slice", lines))
    handled = [name for name in names if name.startswith("handling:")]
    lines = [_row(metrics, champion, name.partition(":")[2], name, "flips") for name in handled]
    wanted.append(("handled", "Share of verdicts that change after each handling", lines))
    for metric, title in (
        ("apcer", "APCER of each species, target domains"),
        ("explanation_medium_by_type", "Attacks whose medium is named rightly, by type, target domains"),
    ):
        ours, theirs = (shown.entry(one, "target", metric) for one in (metrics, champion))
        wanted.append((metric, title, [(name, ours[name], theirs.get(name, {})) for name in ours]))
    made = {}
    for name, title, lines in wanted:
        if any(one.get("value") is not None for _, one, _ in lines):
            who = "candidate and champion" if champion else "each"
            made[name] = draw(
                name,
                f"{title}, {who}, with 95 % intervals",
                lambda lines=lines, name=name: charts.dots(lines[:MOST_LINES], plain=name in shown.PLAIN),  # type: ignore[misc]
            )
    return made | _curves(draw, series)


def _curves(draw: charts.Draw, series: Mapping[str, charts.Series]) -> dict[str, Markup]:
    if not series:
        return {}
    points = {name: one.point for name, one in series.items()}
    told = "; ".join(
        f"{name}: {100 * far:.1f} % of attacks accepted, {100 * frr:.1f} % of bona fide rejected"
        for name, (far, frr) in points.items()
    )
    first = next(iter(series.values()))
    # Whose curves they are is part of the name: a champion's file may be away today and back tomorrow.
    whose = "-".join(series)
    return {
        name: draw(f"{name}-{whose}", f"{title}. At the frozen threshold, {told}", make)
        for name, title, make in (
            ("roc", "ROC curve", lambda: charts.roc(series)),
            ("det", "DET curve", lambda: charts.det(series)),
            ("reliability", "Reliability diagram", lambda: charts.reliability(series)),
            ("scores", "Histogram of scores", lambda: charts.scores(first)),
        )
    }


def swept(draw: charts.Draw, ours: Evaluated, at: int | None = None) -> dict[str, Any] | None:
    """Errors on the target where the threshold is another one; None where no image of it has a score.

    Args:
        at: step of the sweep; None: the frozen threshold.
    """
    rows, frozen = ours.side("target"), ours.threshold
    if rows is None or frozen is None or rows.empty:
        return None
    low, high = sweep.span(rows, frozen)
    last = sweep.POINTS - 1
    own = round((frozen - low) / (high - low) * last)
    step = own if at is None else min(max(at, 0), last)
    chosen = frozen if step == own else low + step / last * (high - low)
    title = f"APCER of the worst species and BPCER over the threshold; frozen at {frozen:.4f}, chosen {chosen:.4f}"
    return {
        "chart": draw(f"sweep-{step}", title, lambda: charts.sweep(sweep.curve(rows, low, high), frozen, chosen)),
        "at": step,
        "last": last,
        "frozen": frozen,
        "chosen": chosen,
        "rows": rows,
    }


def _drawn(name: str) -> bool:
    return name.startswith(DRAWN)


def _row(ours: Mapping[str, Any], theirs: Mapping[str, Any] | None, label: str, name: str, metric: str) -> charts.Row:
    return label, shown.entry(ours, name, metric), shown.entry(theirs, name, metric)
