"""Charts as SVG, drawn by Vega: no script, nothing loaded, and the page's own colours.

Colours are written as marks (`INK` and others) and replaced by the page's CSS variables, so that one drawing serves
light, dark and print. Two models, or two sides of a test, are told apart by shape and dashes as well as by colour.
"""

from __future__ import annotations

import json
import logging
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup, escape

from ifas.evaluation import metrics
from ifas.evaluation.metrics import Bools, Floats

if TYPE_CHECKING:
    import altair as alt

    Make = Callable[[], alt.Chart | alt.LayerChart]
    #: Draws a chart: its name, what is seen in it for who does not see it, and what makes it.
    Draw = Callable[[str, str, Make], Markup]

INK, GRID, MUTED, OURS, THEIRS, GOOD, BAD = (f"#0{i}0{i}0{i}" for i in range(1, 8))
VARIABLES = {INK: "ink", GRID: "line", MUTED: "muted", OURS: "ours", THEIRS: "theirs", GOOD: "good", BAD: "bad"}
WIDTH, HEIGHT = 290, 230
#: Drawings that are kept.
KEPT = 200
#: Whose figures a line of dots holds, in this order.
BOTH = ["candidate", "champion"]
#: Points of a curve; more can't be seen.
MOST_POINTS = 160

log = logging.getLogger("ifas.review")

FAILED = Markup('<p class="away">This chart could not be drawn; the log says why.</p>')

_kept: OrderedDict[tuple[str, str], Markup] = OrderedDict()
_lock = Lock()
_one_at_a_time = Lock()


@dataclass(frozen=True)
class Series:
    """Scores of bona fide and attacks, with the threshold at which they are judged. Neither class is empty."""

    scores: Floats
    live: Bools
    threshold: float

    @property
    def point(self) -> tuple[float, float]:
        """Share of attacks accepted and of bona fide rejected at the threshold."""
        return metrics.error_rates(self.scores, self.live, self.threshold)


def draw(name: str, title: str, make: Make) -> Markup:
    """A drawing, or words in its place where it can't be drawn.

    Args:
        name: no other drawing of the page has it.
        title: what is seen, for who does not see it.
    """
    try:
        with _one_at_a_time:
            return _svg(make(), title, name)
    except Exception:  # a drawing that fails must not take the decision away
        log.exception("chart %s could not be drawn", name)
        return FAILED


def kept(evidence: str) -> Draw:
    """Draws what rests on this evidence; each drawing is made when it is first asked for, and kept."""
    return partial(_once, evidence)


def _once(evidence: str, name: str, title: str, make: Make) -> Markup:
    with _lock:
        if (evidence, name) in _kept:
            _kept.move_to_end((evidence, name))
            return _kept[evidence, name]
    drawn = draw(name, title, make)
    with _lock:
        if drawn != FAILED:
            _kept[evidence, name] = drawn
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return drawn


def warm_up() -> None:
    """Loads what draws, so that the first reader does not wait for it."""
    point = {"threshold": 0.5, "rate": 0.5, "figure": "BPCER"}
    draw("warm-up", "", lambda: sweep([point], 0.5, None))


#: A line of a chart: what it is about, and the entries of candidate and champion.
Row = tuple[str, Mapping[str, Any], Mapping[str, Any]]


def dots(lines: Sequence[Row], *, plain: bool = False) -> Any:
    """One figure on every line as dot and interval, candidate above champion.

    Args:
        plain: the figure is no share of images.
    """
    import altair as alt

    rows = []
    for label, *entries in lines:
        for who, entry in zip(BOTH, entries, strict=True):
            if isinstance(entry.get("value"), int | float):
                low, high = entry.get("interval") or (entry["value"], entry["value"])
                rows.append({"who": who, "line": label, "value": entry["value"], "low": low, "high": high})
    order = [label for label, *_ in lines]
    there = [who for who in BOTH if any(row["who"] == who for row in rows)]
    base = alt.Chart(_data(alt, rows)).encode(
        y=alt.Y(
            "line:N",
            sort=order,
            title=None,
            axis=alt.Axis(labelLimit=118, minExtent=146, labelPadding=10, domain=False, ticks=False, grid=True),
        ),
        yOffset=alt.YOffset("who:N", sort=there),
        color=_colour(alt, "who", there),
    )
    axis = alt.Axis(format=".2~f" if plain else "%", values=[0, 0.25, 0.5, 0.75, 1])
    bar = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("low:Q", title=None, scale=alt.Scale(domain=[0, 1]), axis=axis), x2="high:Q"
    )
    dot = base.mark_point(size=46, filled=True, opacity=1).encode(x="value:Q", shape=_shape(alt, "who", there))
    return (bar + dot).properties(width=WIDTH - 90, height=alt.Step(11))


def roc(series: Mapping[str, Series]) -> Any:
    """ROC: attacks accepted against bona fide accepted, with the operating points."""
    return _curves(series, "bona fide accepted", lambda tpr: tpr, det=False)


def det(series: Mapping[str, Series]) -> Any:
    """DET: attacks accepted against bona fide rejected, on logarithmic axes."""
    return _curves(series, "bona fide rejected (BPCER)", lambda tpr: 1 - tpr, det=True)


def _curves(series: Mapping[str, Series], label: str, second: Callable[[Floats], Floats], det: bool) -> Any:
    import altair as alt

    floor = 0.005
    rows: list[dict[str, Any]] = []
    marks: list[dict[str, Any]] = []
    for name, one in series.items():
        found = metrics.roc(one.scores, one.live)
        x, y = found.far, second(found.tpr)
        rows += [{"of": name, "x": float(x[i]), "y": float(y[i]), "i": int(i)} for i in _some(len(x))]
        far, frr = one.point
        marks.append({"of": name, "x": far, "y": frr if det else 1 - frr})
    if det:
        for row in [*rows, *marks]:
            row["x"], row["y"] = max(row["x"], floor), max(row["y"], floor)
    scale = alt.Scale(type="log", domain=[floor, 1]) if det else alt.Scale(domain=[0, 1])
    axis = (
        alt.Axis(format="%", values=[0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1]) if det else alt.Axis(format="%", tickCount=5)
    )
    x_axis = alt.X("x:Q", title="attacks accepted (all species pooled)", scale=scale, axis=axis)
    y_axis = alt.Y("y:Q", title=label, scale=scale, axis=axis)
    names = list(series)
    colour, dash = _colour(alt, "of", names), _dash(alt, "of", names)
    line = (
        alt.Chart(_data(alt, rows))
        .mark_line(strokeWidth=1.8, interpolate="linear" if det else "step-after")
        .encode(x=x_axis, y=y_axis, color=colour, strokeDash=dash, order="i:Q")
    )
    mark = (
        alt.Chart(_data(alt, marks))
        .mark_point(size=70, filled=True, opacity=1)
        .encode(x=x_axis, y=y_axis, color=colour, shape=_shape(alt, "of", names))
    )
    layers = [line, mark]
    if not det:
        guess = alt.Chart(_data(alt, [{"x": 0, "y": 0}, {"x": 1, "y": 1}]))
        layers.insert(0, guess.mark_line(color=GRID, strokeDash=[2, 3]).encode(x="x:Q", y="y:Q"))
    return alt.layer(*layers).properties(width=WIDTH - 50, height=HEIGHT)


def reliability(series: Mapping[str, Series]) -> Any:
    """Share of bona fide against the score, by bins of equal width, both classes weighing the same."""
    import altair as alt

    rows, names = [], list(series)
    for name, one in series.items():
        weight = np.where(one.live, 0.5 / max(one.live.sum(), 1), 0.5 / max((~one.live).sum(), 1))
        bins = np.clip(np.ceil(one.scores * 10).astype(int) - 1, 0, 9)
        for i in range(10):
            here = bins == i
            if here.any():
                total = float(weight[here].sum())
                rows.append(
                    {
                        "of": name,
                        "score": float((weight * one.scores)[here].sum() / total),
                        "share": float((weight * one.live)[here].sum() / total),
                        "n": int(here.sum()),
                    }
                )
    guess = alt.Chart(_data(alt, [{"score": 0, "share": 0}, {"score": 1, "share": 1}]))
    ideal = guess.mark_line(color=GRID, strokeDash=[2, 3]).encode(x="score:Q", y="share:Q")
    base = alt.Chart(_data(alt, rows)).encode(
        x=alt.X("score:Q", title="score", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(tickCount=5)),
        y=alt.Y(
            "share:Q",
            title="share of bona fide",
            scale=alt.Scale(domain=[0, 1]),
            axis=alt.Axis(format="%", tickCount=5),
        ),
        color=_colour(alt, "of", names),
    )
    dots = base.mark_point(filled=True, opacity=1).encode(
        size=alt.Size("n:Q", legend=None, scale=alt.Scale(range=[40, 260], domainMin=1)), shape=_shape(alt, "of", names)
    )
    lines = base.mark_line(strokeWidth=1.4).encode(strokeDash=_dash(alt, "of", names))
    return alt.layer(ideal, lines, dots).properties(width=WIDTH - 50, height=HEIGHT)


def scores(one: Series) -> Any:
    """How scores of bona fide and of attacks are spread, with the threshold."""
    import altair as alt

    low, high = (end(float(one.scores.min()), float(one.scores.max()), one.threshold) for end in (min, max))
    edges = np.linspace(low, high if high > low else low + 1e-6, 25)
    rows = []
    for label, chosen, sign in (("bona fide", one.live, 1), ("attacks", ~one.live, -1)):
        counted = np.histogram(one.scores[chosen], edges)[0] / max(int(chosen.sum()), 1)
        rows += [
            {"what": label, "from": float(edges[i]), "to": float(edges[i + 1]), "share": sign * float(share), "zero": 0}
            for i, share in enumerate(counted)
            if share
        ]
    bars = (
        alt.Chart(_data(alt, rows))
        .mark_rect(strokeWidth=0)
        .encode(
            x=alt.X("from:Q", title="score", scale=alt.Scale(zero=False, nice=False), axis=alt.Axis(tickCount=3)),
            x2="to:Q",
            y=alt.Y(
                "share:Q",
                title="share of its class",
                axis=alt.Axis(tickCount=5, labelExpr="format(abs(datum.value), '.0%')"),
            ),
            y2="zero:Q",
            color=alt.Color(
                "what:N", title=None, scale=alt.Scale(domain=["bona fide", "attacks"], range=[OURS, THEIRS])
            ),
        )
    )
    line = alt.Chart(_data(alt, [{"t": one.threshold}])).mark_rule(color=INK, strokeDash=[4, 3]).encode(x="t:Q")
    return alt.layer(bars, line).properties(width=WIDTH - 50, height=HEIGHT)


def sweep(points: Sequence[Mapping[str, Any]], frozen: float, chosen: float | None) -> Any:
    """APCER and BPCER over the threshold, with the frozen and a chosen one."""
    import altair as alt

    names = ["APCER, worst species", "BPCER"]
    lines = (
        alt.Chart(_data(alt, points))
        .mark_line(strokeWidth=1.8, interpolate="step-before")
        .encode(
            x=alt.X(
                "threshold:Q", title="threshold", scale=alt.Scale(zero=False, nice=False), axis=alt.Axis(tickCount=6)
            ),
            y=alt.Y("rate:Q", title=None, scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%", tickCount=5)),
            color=alt.Color("figure:N", title=None, scale=alt.Scale(domain=names, range=[THEIRS, OURS])),
            strokeDash=alt.StrokeDash("figure:N", title=None, scale=alt.Scale(domain=names, range=[[1, 0], [6, 3]])),
        )
    )
    layers: list[Any] = [
        lines,
        alt.Chart(_data(alt, [{"t": frozen}])).mark_rule(color=INK, strokeDash=[4, 3]).encode(x="t:Q"),
    ]
    if chosen is not None and chosen != frozen:
        layers.append(alt.Chart(_data(alt, [{"t": chosen}])).mark_rule(color=BAD, strokeWidth=2).encode(x="t:Q"))
    return alt.layer(*layers).properties(width=2 * WIDTH - 60, height=HEIGHT - 40)


def _data(alt: Any, rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows as text: Altair copies what a chart is made of again and again, and text is not copied."""
    return alt.InlineData(json.dumps(rows), format=alt.JsonDataFormat(type="json"))


def _colour(alt: Any, field: str, names: Sequence[str]) -> Any:
    scale = alt.Scale(domain=names, range=[OURS, THEIRS])
    return alt.Color(f"{field}:N", title=None, scale=scale, **_legend(names))


def _shape(alt: Any, field: str, names: Sequence[str]) -> Any:
    scale = alt.Scale(domain=names, range=["circle", "diamond"])
    return alt.Shape(f"{field}:N", title=None, scale=scale, **_legend(names))


def _dash(alt: Any, field: str, names: Sequence[str]) -> Any:
    scale = alt.Scale(domain=names, range=[[1, 0], [6, 3]])
    return alt.StrokeDash(f"{field}:N", title=None, scale=scale, **_legend(names))


def _legend(names: Sequence[str]) -> dict[str, None]:
    """None where there is nothing to tell apart."""
    return {} if len(names) > 1 else {"legend": None}


def _some(n: int) -> Sequence[int]:
    """At most so many indices, the first and the last among them."""
    return sorted({round(i) for i in np.linspace(0, n - 1, min(n, MOST_POINTS))})


def _svg(chart: Any, title: str, name: str) -> Markup:
    import vl_convert

    dressed = chart.configure(
        background="transparent", font="sans-serif", padding={"left": 2, "right": 6, "top": 2, "bottom": 2}
    )
    dressed = dressed.configure_axis(
        gridColor=GRID, domainColor=GRID, tickColor=GRID, labelColor=MUTED, titleColor=MUTED,
        labelFontSize=11, titleFontSize=11, titleFontWeight="normal",
    )  # fmt: skip
    dressed = dressed.configure_legend(
        orient="top", labelColor=INK, labelFontSize=11, titleColor=INK, symbolSize=70, padding=0, offset=6
    )
    dressed = dressed.configure_view(stroke=None)
    svg: str = vl_convert.vegalite_to_svg(dressed.to_dict(validate=False), allowed_base_urls=[])
    for mark, variable in VARIABLES.items():
        svg = re.sub(re.escape(mark), f"var(--{variable})", svg, flags=re.IGNORECASE)
    # The figure as a whole has a name; its parts, without one each, would only be noise to a screen reader.
    # Within HTML an SVG needs no name of its language.
    svg = re.sub(r' (role|aria-[a-z]+|xmlns(:[a-z]+)?)="[^"]*"', "", svg)
    unique = re.sub(r"[^A-Za-z0-9]+", "-", name)
    svg = re.sub(r'(id="|url\(#)', rf"\g<1>{unique}-", svg)
    # Our own drawing; Vega escapes the texts in it.
    return Markup(f'<div class="chart" role="img" aria-label="{escape(title)}">{svg}</div>')  # noqa: S704
