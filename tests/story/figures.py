"""The figures of the story in words, for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

FIGURES = {"apcer_max": "APCER", "bpcer": "BPCER", "auc": "AUC"}
#: Slice -> the figures that are told of it.
SLICES = {
    "spoof_type:mask": ("apcer_max",),
    "spoof_type:print": ("apcer_max",),
    "spoof_type:replay": ("apcer_max",),
    "target": ("bpcer", "auc"),
    "source_test": ("bpcer", "auc"),
}


def lines(act: str, told: Mapping[str, Any]) -> list[str]:
    """What an act told, in a few lines; none where its title says all."""
    return LINES[act](told) if act in LINES else []


def _measured(told: Mapping[str, Any]) -> list[str]:
    slices = told["slices"]
    known = [(name, one) for name, of in SLICES.items() if name in slices for one in of]
    return [f"{name}: {FIGURES[one]} {with_interval(slices[name][one])}" for name, one in known]


def _accepted(told: Mapping[str, Any]) -> list[str]:
    return [f"{name}: {with_interval(one)} of {one['n']} masks accepted" for name, one in told["accepted"].items()]


def _judged(told: Mapping[str, Any]) -> list[str]:
    failed = [rule for rule in told["rules"] if not rule["passed"]]
    state = f"candidate {told['candidate']} is {told['state']}"
    return [*(" | ".join(row) for row in differences(told)), state, *reasons(failed)]


def _asked(told: Mapping[str, Any]) -> list[str]:
    return [f"{one['truth']} ({one['why']}): {answer(one['answer'])}" for one in told["asked"]]


LINES = {
    "champion": _measured,
    "quarantine": _accepted,
    "retrain": _judged,
    "answers": _asked,
    "poisoned": _judged,
}


def differences(judged: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str, str, str]]:
    """Of each slice and figure: champion, candidate, their paired difference in points, pictures (people)."""
    for name, figures in SLICES.items():
        for figure in figures:
            one, now = judged["paired"][name][figure], judged["slices"][name][figure]["value"]
            low, high = one["interval"]
            moved = f"{100 * one['value']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
            pictures = f"{one['n']} ({one['n_subjects']})"
            yield f"`{name}`", FIGURES[figure], share(one["champion"]), share(now), moved, pictures


def reasons(rules: Iterable[Mapping[str, Any]]) -> list[str]:
    """Why rules say what they say."""
    return [f"`{one['id']}`, {one['metric']} of `{one['slice']}`: {one['why']}" for one in rules]


def with_interval(one: Mapping[str, Any]) -> str:
    """A share and its 95 % interval, where it has one."""
    if not one.get("interval"):
        return share(one["value"])
    low, high = one["interval"]
    return f"{share(one['value'])} ({share(low)} to {share(high)})"


def answer(given: Mapping[str, Any]) -> str:
    """What the served model answered."""
    if given["verdict"] == "live":
        return f"live, score {given['score']:.2f}"
    return f"{given['spoof_type']}, score {given['score']:.2f}: {given['explanation']}"


def share(value: float) -> str:
    """In percent."""
    return f"{100 * value:.1f} %"
