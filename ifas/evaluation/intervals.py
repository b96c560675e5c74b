"""95 % intervals: Wilson's for rates, a bootstrap over subjects for everything that is not a simple share.

Wilson's interval is right even at zero errors (0 of 30 gives 0 to 11 %, near the rule of three), but it assumes that
images are independent. Images of one person are not, so the bootstrap draws whole subjects.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from ifas.evaluation.metrics import Bools, Floats, Rate, Sweep

Z_95 = 1.959963984540054
#: Weights held at a time; bounds the memory of a bootstrap to a few hundred MB at any number of images.
CHUNK = 4_000_000

Statistic = Callable[[Sweep, Bools], Floats]


def wilson(errors: int, n: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson score interval of a share (Wilson 1927). Nothing counted: 0 to 1."""
    if n == 0:
        return 0.0, 1.0
    share = errors / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    return (0.0 if errors == 0 else middle - half), (1.0 if errors == n else middle + half)


def rate_entry(rate: Rate) -> dict[str, Any]:
    """A rate as it stands in metrics.json: value, errors, n and Wilson's interval."""
    if rate.n == 0:
        return {"value": None, "reason": "no such images in this slice", "n": 0}
    return {"value": rate.value, "interval": list(wilson(rate.errors, rate.n)), "errors": rate.errors, "n": rate.n}


def subject_bootstrap(
    statistics: dict[str, Statistic],
    scores: Floats,
    live: Bools,
    subjects: Sequence[Hashable],
    *,
    resamples: int,
    seed: int,
) -> dict[str, tuple[float, float] | str]:
    """Percentile 95 % interval of each statistic when subjects are drawn with replacement.

    Resamples that hold no bona fide or no attack are left out. Where there can be no interval, the value is the reason.
    """
    names, subject_N = np.unique(np.asarray(subjects, dtype=str), return_inverse=True)
    if len(names) < 2:
        return dict.fromkeys(statistics, "only one subject: a bootstrap over subjects needs two")
    if resamples < 1:
        return dict.fromkeys(statistics, "the bootstrap is switched off (evaluate.bootstrap)")
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[Floats]] = {name: [] for name in statistics}
    chunk = max(1, CHUNK // len(scores))
    for start in range(0, resamples, chunk):
        b = min(chunk, resamples - start)
        times_BS = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=b)
        weights_BN = times_BS[:, subject_N].astype(np.int64)
        both = (weights_BN[:, live].sum(axis=1) > 0) & (weights_BN[:, ~live].sum(axis=1) > 0)
        if not both.any():
            continue
        sweep = Sweep(scores, weights_BN[both])
        for name, statistic in statistics.items():
            drawn[name].append(statistic(sweep, live))
    return {name: _percentile(values, resamples) for name, values in drawn.items()}


def _percentile(chunks: list[Floats], resamples: int) -> tuple[float, float] | str:
    values = np.concatenate(chunks) if chunks else np.empty(0)
    if len(values) < resamples / 2:
        return "most resamples lack bona fide or attacks: too few subjects"
    low, high = (float(v) for v in np.percentile(values, [2.5, 97.5]))
    if low == high:
        return "every resample gives the same value, so a bootstrap has no interval; see those of APCER and BPCER"
    return low, high
