"""95 % intervals of figures that are not a simple share: a bootstrap that draws whole subjects, as the images of one
person are not independent. Rates have `clustered.rate_interval`.

The resamples give the standard error, and the interval is Student's t on the logit scale, as all these figures lie
between 0 and 1: near an end percentiles are too narrow. With 10 subjects and an AUC of 0.98 they cover 80 % instead of
95, and the percentiles of Hesterberg (2015), widened for few subjects, 89 %; see `python -m benchmarks.intervals`. The
AUC of classes that are apart, which is 1 in every resample, has the interval of the same scores with one error.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from ifas.core.measures import TAIL
from ifas.evaluation.metrics import BOOTSTRAPPED, Bools, Floats

#: Weights of subjects held at a time: 32 MB.
CHUNK = 4_000_000


def subject_bootstrap(
    scores: Floats,
    live: Bools,
    species: npt.NDArray[np.object_],
    subjects: npt.ArrayLike,
    *,
    threshold: float,
    resamples: int,
    seed: int,
    threads: int | None = None,
) -> dict[str, tuple[float, float] | str]:
    """95 % interval of each of `metrics.BOOTSTRAPPED` when subjects are drawn with replacement.

    Resamples that hold no bona fide or no attack are left out. Where there can be no interval, the value is the reason.

    Args:
        species: PAI species; counts for attacks only.
        threshold: that of HTER.
        threads: at most; the processors of this process when left out. The result does not depend on it.
    """
    import pandas as pd

    from ifas.evaluation.resampling import Sorted

    person_N, names = pd.factorize(np.asarray(subjects, dtype=object), sort=True)
    fewest = min(len(np.unique(person_N[live])), len(np.unique(person_N[~live])))
    if len(names) < 2 or fewest < 2:
        return dict.fromkeys(BOOTSTRAPPED, "bona fide or attacks of one subject: a bootstrap over subjects needs two")
    if resamples < 1:
        return dict.fromkeys(BOOTSTRAPPED, "the bootstrap is switched off (evaluate.bootstrap)")
    images = Sorted.of(scores, live, species, person_N, threshold=threshold)
    rng = np.random.default_rng(seed)
    chunk = max(1, CHUNK // len(names))
    drawn = []
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        times_BS = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=size)
        drawn.append(images.figures(times_BS, threads=threads))
    drawn_BF = np.concatenate(drawn)
    drawn_BF = drawn_BF[~np.isnan(drawn_BF[:, 0])]
    if len(drawn_BF) < resamples / 2:
        return dict.fromkeys(BOOTSTRAPPED, "most resamples lack bona fide or attacks: too few subjects")
    value_F = images.figures(np.ones((1, len(names)), dtype=np.int64), threads=1)[0]
    wide = widening(fewest)
    found = {
        name: _interval(float(value), drawn_B, wide)
        for name, value, drawn_B in zip(BOOTSTRAPPED, value_F, drawn_BF.T, strict=True)
    }
    if isinstance(found["auc"], str) and scores[live].min() > scores[~live].max():
        again = partial(subject_bootstrap, threshold=threshold, resamples=resamples, seed=seed, threads=threads)
        near = [again(one, live, species, subjects) for one in _with_one_error(scores, live)]
        lows = [float(one["auc"][0]) for one in near if not isinstance(one["auc"], str)]
        if lows:
            found["auc"] = (max(lows), 1.0)
    return found


def _with_one_error(scores: Floats, live: Bools) -> tuple[Floats, Floats]:
    """Scores (N,) of classes that are apart, with the smallest error: the lowest bona fide one is just below the
    highest attack, or that one just above the other.

    No ranking with an error is better than these, so one without is never read as worse than one with errors.
    """
    last, first = np.flatnonzero(live)[scores[live].argmin()], np.flatnonzero(~live)[scores[~live].argmax()]
    missed, passed = scores.copy(), scores.copy()
    missed[last] = np.nextafter(scores[first], -np.inf)
    passed[first] = np.nextafter(scores[last], np.inf)
    return missed, passed


def widening(subjects: int) -> float:
    """Standard errors from the value to an end: Student's t, and a resample's variance is (n - 1) / n of a sample's.

    Args:
        subjects: n, those of the smaller of both classes: its part of the variance is known least.
    """
    from scipy.stats import t

    return float(-t.ppf(TAIL, subjects - 1) * np.sqrt(subjects / (subjects - 1)))


def _interval(value: float, drawn_B: Floats, wide: float) -> tuple[float, float] | str:
    from scipy.special import expit, logit

    if drawn_B.min() == drawn_B.max():
        return "every resample gives the same value, so a bootstrap has no interval; see those of APCER and BPCER"
    if not 0 < value < 1:  # no logit: all that the resamples show
        return float(min(value, drawn_B.min())), float(max(value, drawn_B.max()))
    half = wide * drawn_B.std() / (value * (1 - value))
    return float(expit(logit(value) - half)), float(expit(logit(value) + half))
