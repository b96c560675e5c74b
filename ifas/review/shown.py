"""How numbers, times and states are written on the page."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ifas.core.measures import FIXED_SLICES, MEASURES

DASH = "—"
#: Figures between 0 and 1 that are no shares of images.
PLAIN = frozenset({"auc", "ece"})
#: Titles that are shorter here than in reports.
SHORT = {
    "hter": "HTER",
    "flips": "Verdict flips",
    "ece": "ECE",
    "explanation_medium": "Names the right medium",
}
#: State -> what a chip says.
STATES = {
    "pending": "waits for a decision",
    "refused": "refused by the gate",
    "approved": "approved",
    "rejected": "rejected",
    "superseded": "superseded",
    "expired": "expired",
    "revoked": "revoked",
}


def value(number: object, metric: str) -> str:
    """A figure, as a share in percent or plain."""
    if isinstance(number, bool) or not isinstance(number, int | float):
        return DASH
    return f"{number:.3f}" if metric in PLAIN else f"{100 * number:.1f} %"


def change(number: object, metric: str) -> str:
    """A difference, with its sign: in percentage points where the figure is a share."""
    if isinstance(number, bool) or not isinstance(number, int | float):
        return DASH
    text = f"{number:+.3f}" if metric in PLAIN else f"{100 * number:+.1f}"
    return text.replace("-", "−")


def interval(pair: object, metric: str, signed: bool = False) -> str:
    """The two ends of an interval; empty where there is none."""
    if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(one, int | float) for one in pair):
        return ""
    if signed:
        return " to ".join(change(one, metric) for one in pair)
    if metric in PLAIN:
        return " to ".join(f"{one:.3f}" for one in pair)
    return " to ".join(f"{100 * one:.1f}" for one in pair)


def title(metric: str) -> str:
    """A figure's name in words."""
    return SHORT.get(metric) or (MEASURES[metric].title if metric in MEASURES else metric)


def about(metric: str) -> str:
    """What a figure says."""
    return MEASURES[metric].about if metric in MEASURES else ""


def slice_name(name: str) -> str:
    """A slice in words: `source_test` is "source, test", `device:phone` is "device phone"."""
    if name in FIXED_SLICES:
        return {"source_test": "source domains", "target": "target domains"}[name]
    kind, _, what = name.partition(":")
    return f"{kind.replace('_', ' ')} {what}" if what else name


def age(at: str, now: datetime | None = None) -> str:
    """How long ago something was: "3 h", or "now" in the first minute."""
    try:
        then = datetime.fromisoformat(at)
    except ValueError:
        return DASH
    seconds = ((now or datetime.now(UTC)) - then.astimezone(UTC)).total_seconds()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return "now"


def moment(at: str) -> str:
    """A time in UTC, to the minute."""
    try:
        return datetime.fromisoformat(at).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return at


def duration(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def entry(metrics: Mapping[str, Any] | None, name: str, metric: str) -> Mapping[str, Any]:
    """A figure of a slice; empty where there is none."""
    slices = metrics.get("slices") if isinstance(metrics, Mapping) else None
    found = slices.get(name, {}).get(metric) if isinstance(slices, Mapping) else None
    return found if isinstance(found, Mapping) else {}
