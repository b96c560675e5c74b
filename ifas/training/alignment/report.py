"""Explanations and verdicts before and after, on the same development images; whether the second stage is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ifas.core.claims import Cues, contradicts, invented_cues, invented_media
from ifas.core.taxonomy import media_named
from ifas.training.alignment.answers import Answer
from ifas.training.alignment.examples import Example

Floats = npt.NDArray[np.float64]

#: Whether one answer is a hit; None where the measure does not apply to it.
Measure = Callable[[Answer, Example, Cues], bool | None]


def _right_attack(answer: Answer, example: Example, _cues: Cues) -> bool | None:
    if example.known.live or answer.live:
        return None
    return media_named(answer.text)[:1] == [example.known.spoof_type]


#: Measures of answers by name, each a share. The model's own words are read, not the attack that the judge would choose
#: by likelihood: what is to be unlearnt must be seen. To add one, add a line.
MEASURES: Mapping[str, Measure] = {
    # Texts that name a medium exactly when the image is rejected.
    "agreement": lambda answer, _example, _cues: bool(media_named(answer.text)) != answer.live,
    # Of the attacks that are rejected: whose first named medium is the true one.
    "right_attack": _right_attack,
    # Texts that name a medium which the image does not show.
    "invented_medium": lambda answer, example, _cues: bool(invented_media(answer.text, example.known)),
    # Texts that claim a cue which no specialist supports.
    "invented_cue": lambda answer, example, cues: (
        bool(invented_cues(answer.text, example.known, cues)) if example.known.sure else None
    ),
    "contradiction": lambda answer, _example, cues: contradicts(answer.live, answer.text, cues),
    "verdict_accuracy": lambda answer, example, _cues: answer.live == example.known.live,
}


def compare(
    examples: Sequence[Example],
    before: Sequence[Answer],
    after: Sequence[Answer],
    cues: Cues,
    *,
    resamples: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """By measure: `before`, `after` (value, hits, n), `difference` and its 95 % `interval`.

    The bootstrap is paired and draws whole subjects, since images of one person are not independent; percentiles.
    Where there can be no interval it is null.
    """
    subjects = [example.subject for example in examples]
    compared = {}
    for name, measure in MEASURES.items():
        sides = [
            [measure(answer, example, cues) for answer, example in zip(answers, examples, strict=True)]
            for answers in (before, after)
        ]
        shares = [_share(side) for side in sides]
        known = all(share["n"] for share in shares)
        compared[name] = {
            "before": shares[0],
            "after": shares[1],
            "difference": round(shares[1]["value"] - shares[0]["value"], 4) if known else None,
            "interval": paired_interval(sides[0], sides[1], subjects, resamples=resamples, seed=seed),
        }
    return compared


def reference(examples: Sequence[Example], cues: Cues) -> dict[str, dict[str, Any]]:
    """The measures on the right verdict and the caption that the model is to learn: the best it could reach."""
    answers = [Answer(example.known.live, example.caption) for example in examples]
    return {
        name: _share([measure(answer, example, cues) for answer, example in zip(answers, examples, strict=True)])
        for name, measure in MEASURES.items()
    }


def paired_interval(
    before: Sequence[bool | None], after: Sequence[bool | None], subjects: Sequence[str], *, resamples: int, seed: int
) -> list[float] | None:
    """95 % percentile interval of share(after) - share(before) when subjects are drawn with replacement.

    None entries are not counted. Returns None with fewer than two subjects, or where most resamples count nothing.
    """
    names, subject_N = np.unique(np.asarray(subjects, dtype=str), return_inverse=True)
    if len(names) < 2 or resamples < 1:
        return None
    times_BS = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    shares = []
    for side in (before, after):
        hits_S = np.bincount(subject_N, [float(bool(value)) for value in side], len(names))
        counted_S = np.bincount(subject_N, [float(value is not None) for value in side], len(names))
        with np.errstate(invalid="ignore"):
            shares.append((times_BS @ hits_S) / (times_BS @ counted_S))
    difference_B = shares[1] - shares[0]
    difference_B = difference_B[np.isfinite(difference_B)]
    if len(difference_B) < resamples / 2:
        return None
    low, high = np.percentile(difference_B, [2.5, 97.5])
    return [round(float(low), 4), round(float(high), 4)]


def keep(compared: Mapping[str, Mapping[str, Any]], margin: float) -> tuple[bool, str]:
    """Whether the second stage is kept, and why: the verdicts must not be worse by more than `margin` (non-inferiority:
    the lower end of the paired interval is above -margin)."""
    interval = compared["verdict_accuracy"]["interval"]
    if interval is None:
        return False, "verdict accuracy has no interval: too few development subjects"
    verdict = f"verdict accuracy changed by {interval[0]:+.3f} to {interval[1]:+.3f}"
    if interval[0] < -margin:
        return False, f"{verdict}: a loss of more than {margin:g} (align.margin) is not ruled out"
    return True, f"{verdict}: no loss of more than {margin:g}"


def _share(side: Sequence[bool | None]) -> dict[str, Any]:
    counted = [value for value in side if value is not None]
    return {
        "value": round(sum(counted) / len(counted), 4) if counted else None,
        "hits": sum(counted),
        "n": len(counted),
    }
