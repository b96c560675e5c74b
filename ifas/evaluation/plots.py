"""Curves as inline SVG, drawn by hand: no script, no font, no image is loaded from anywhere.

Source and target are told apart by line style and marker as well as by colour (Okabe-Ito blue and vermillion).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from statistics import NormalDist

import numpy as np

from ifas.evaluation.metrics import Bools, Floats, error_rates, roc

WIDTH, HEIGHT = 440, 400
LEFT, RIGHT, TOP, BOTTOM = 62, 24, 14, 56
INK, GRID = "#1a1a1a", "#d9d9d9"
STYLES = (("#0072B2", ""), ("#D55E00", "7 4"))

Axis = Callable[[float], float]


@dataclass(frozen=True)
class Series:
    """Scores of one slice, with the name it has in the legend."""

    name: str
    scores: Floats
    live: Bools


def _text(x: float, y: float, text: str, anchor: str = "middle", extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {extra}>{escape(text)}</text>'


def _frame(ident: str, title: str, about: str, body: Sequence[str], height: int = HEIGHT) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="{ident}-t {ident}-d" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="{INK}">'
        f'<title id="{ident}-t">{escape(title)}</title><desc id="{ident}-d">{escape(about)}</desc>'
        + "".join(body)
        + "</svg>"
    )


def _grid(axis_x: Axis, axis_y: Axis, ticks: Sequence[float], label_x: str, label_y: str) -> list[str]:
    parts = []
    for tick in ticks:
        x, y, text = axis_x(tick), axis_y(tick), f"{100 * tick:g} %"
        parts.append(
            f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{GRID}" fill="none"/>'
        )
        parts.append(_text(x, HEIGHT - BOTTOM + 16, text))
        parts.append(_text(LEFT - 6, y + 4, text, "end"))
    parts.append(
        f'<rect x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM}" fill="none" '
        f'stroke="{INK}"/>'
    )
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, label_x))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(_text(15, middle, label_y, "middle", f'transform="rotate(-90 15 {middle:.0f})"'))
    return parts


def _path(points: Sequence[tuple[float, float]]) -> str:
    """A polyline, without the points that would fall on the same tenth of a pixel or between two in line."""
    kept: list[tuple[float, float]] = []
    for x, y in ((round(x, 1), round(y, 1)) for x, y in points):
        if kept and kept[-1] == (x, y):
            continue
        if len(kept) > 1 and (kept[-2][0] == kept[-1][0] == x or kept[-2][1] == kept[-1][1] == y):
            kept[-1] = (x, y)
        else:
            kept.append((x, y))
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in kept)


def _marker(index: int, x: float, y: float) -> str:
    colour = STYLES[index % 2][0]
    if index % 2 == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5.5" fill="{colour}" stroke="#fff" stroke-width="1.5"/>'
    return f'<path d="M{x:.1f} {y - 7:.1f}l7 7l-7 7l-7 -7z" fill="{colour}" stroke="#fff" stroke-width="1.5"/>'


def _legend(names: Sequence[str], x: float, y: float) -> list[str]:
    widest = max(len(n) for n in names) * 6.4 + 58
    parts = [f'<rect x="{x}" y="{y}" width="{widest:.0f}" height="{8 + 18 * len(names)}" fill="#fff" stroke="{GRID}"/>']
    for i, name in enumerate(names):
        colour, dash = STYLES[i % 2]
        row = y + 15 + 18 * i
        parts.append(
            f'<path d="M{x + 8} {row - 4}h36" stroke="{colour}" stroke-width="2.2" stroke-dasharray="{dash}"/>'
        )
        parts.append(_marker(i, x + 26, row - 4))
        parts.append(_text(x + 52, row, name, "start"))
    return parts


def _curves(
    series: Sequence[Series], threshold: float, axis_x: Axis, axis_y: Axis, second: Callable[[Floats], Floats]
) -> list[str]:
    parts = []
    for i, one in enumerate(series):
        curve = roc(one.scores, one.live)
        points: list[tuple[float, float]] = []
        for far, y in zip(curve.far, second(curve.tpr), strict=True):
            if points:
                points.append((axis_x(float(far)), points[-1][1]))
            points.append((axis_x(float(far)), axis_y(float(y))))
        colour, dash = STYLES[i % 2]
        parts.append(
            f'<path d="{_path(points)}" fill="none" stroke="{colour}" stroke-width="2.2" stroke-dasharray="{dash}"/>'
        )
    for i, one in enumerate(series):
        far, frr = error_rates(one.scores, one.live, threshold)
        parts.append(_marker(i, axis_x(far), axis_y(float(second(np.array([1 - frr]))[0]))))
    return parts


def roc_svg(series: Sequence[Series], threshold: float) -> str:
    """ROC: attacks accepted against bona fide accepted, with the frozen operating point of each series."""

    def x(v: float) -> float:
        return LEFT + v * (WIDTH - LEFT - RIGHT)

    def y(v: float) -> float:
        return HEIGHT - BOTTOM - v * (HEIGHT - TOP - BOTTOM)

    ticks = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    body = _grid(x, y, ticks, "attacks accepted (FAR)", "bona fide accepted (1 - BPCER)")
    body.append(f'<path d="M{x(0):.0f} {y(0):.0f}L{x(1):.0f} {y(1):.0f}" stroke="#8c8c8c" stroke-dasharray="2 3"/>')
    body += _curves(series, threshold, x, y, lambda tpr: tpr)
    body += _legend([s.name for s in series], 200, HEIGHT - BOTTOM - 56)
    return _frame("roc", "ROC curve", _about(series, threshold, "Up and left is better."), body)


def det_svg(series: Sequence[Series], threshold: float) -> str:
    """DET: attacks accepted against bona fide rejected on normal-deviate axes from 0.5 to 95 %."""
    low, high = NormalDist().inv_cdf(0.005), NormalDist().inv_cdf(0.95)

    def unit(v: float) -> float:
        return (NormalDist().inv_cdf(min(max(v, 0.005), 0.95)) - low) / (high - low)

    def x(v: float) -> float:
        return LEFT + unit(v) * (WIDTH - LEFT - RIGHT)

    def y(v: float) -> float:
        return HEIGHT - BOTTOM - unit(v) * (HEIGHT - TOP - BOTTOM)

    ticks = (0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9)
    body = _grid(x, y, ticks, "attacks accepted (FAR)", "bona fide rejected (BPCER)")
    body += _curves(series, threshold, x, y, lambda tpr: 1 - tpr)
    body += _legend([s.name for s in series], 200, TOP + 8)
    about = "Down and left is better. Rates below 0.5 % or above 95 % lie on the edge."
    return _frame("det", "DET curve", _about(series, threshold, about), body)


def _about(series: Sequence[Series], threshold: float, hint: str) -> str:
    points = []
    for one in series:
        far, frr = error_rates(one.scores, one.live, threshold)
        points.append(f"{one.name}: {100 * far:.1f} % of attacks accepted, {100 * frr:.1f} % of bona fide rejected")
    return f"{hint} At the frozen threshold {threshold:.4f}: {'; '.join(points)}."


def histogram_svg(ident: str, series: Series, threshold: float, bins: int = 25) -> str:
    """Scores of bona fide (bars up) and of attacks (bars down, hatched), each as a share of its class."""
    height, middle = 260, 116
    edges = np.linspace(0, 1, bins + 1)
    up = np.histogram(series.scores[series.live], edges)[0] / max(int(series.live.sum()), 1)
    down = np.histogram(series.scores[~series.live], edges)[0] / max(int((~series.live).sum()), 1)
    scale = 88 / max(float(up.max()), float(down.max()), 1e-9)
    step = (WIDTH - LEFT - RIGHT) / bins
    body = [
        f'<defs><pattern id="{ident}-h" width="6" height="6" patternUnits="userSpaceOnUse" '
        f'patternTransform="rotate(45)"><rect width="6" height="6" fill="#f3c6a8"/>'
        f'<path d="M0 0V6" stroke="#D55E00" stroke-width="3"/></pattern></defs>'
    ]
    for i in range(bins):
        x = LEFT + i * step
        if up[i]:
            h = scale * float(up[i])
            body.append(
                f'<rect x="{x:.1f}" y="{middle - h:.1f}" width="{step - 1:.1f}" height="{h:.1f}" fill="#0072B2"/>'
            )
        if down[i]:
            h = scale * float(down[i])
            body.append(
                f'<rect x="{x:.1f}" y="{middle}" width="{step - 1:.1f}" height="{h:.1f}" fill="url(#{ident}-h)" '
                f'stroke="#D55E00" stroke-width="0.7"/>'
            )
    body.append(f'<path d="M{LEFT} {middle}H{WIDTH - RIGHT}" stroke="{INK}"/>')
    ticks = (0.0, 0.25, 0.5, 0.75, 1.0)
    body += [_text(LEFT + tick * (WIDTH - LEFT - RIGHT), 226, f"{tick:g}") for tick in ticks]
    body.append(_text((LEFT + WIDTH - RIGHT) / 2, 248, "score: p(bona fide)"))
    body.append(_text(8, 62, "bona", "start"))
    body.append(_text(8, 77, "fide", "start"))
    body.append(_text(8, 166, "attacks", "start"))
    line = LEFT + min(max(threshold, 0.0), 1.0) * (WIDTH - LEFT - RIGHT)
    anchor = "end" if line > WIDTH / 2 else "start"
    body.append(f'<path d="M{line:.1f} 16V210" stroke="{INK}" stroke-width="1.6" stroke-dasharray="5 3"/>')
    body.append(
        _text(line + (-5 if anchor == "end" else 5), 24, f"threshold {threshold:.3f}: accepted to the right", anchor)
    )
    about = (
        f"{int(series.live.sum())} bona fide and {int((~series.live).sum())} attack images; "
        f"those at or above {threshold:.4f} are accepted."
    )
    return _frame(ident, f"Scores, {series.name}", about, body, height)
