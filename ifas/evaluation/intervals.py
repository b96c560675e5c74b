"""95 % intervals of figures that are not a simple share: a bootstrap that draws whole subjects, as the images of one
person are not independent. Rates have `clustered.rate_interval`.

The percentiles taken are wider than 2.5 and 97.5 %, by what a t-interval is wider than a normal one with the variance
of a sample: percentiles of few subjects are too narrow in just these two ways (Hesterberg 2015, "What teachers should
know about the bootstrap": expanded percentiles).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ifas.evaluation.clustered import TAIL
from ifas.evaluation.metrics import Bools, Floats

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
    """95 % interval of each of `resampling.FIGURES` when subjects are drawn with replacement.

    Resamples that hold no bona fide or no attack are left out. Where there can be no interval, the value is the reason.

    Args:
        species: PAI species; counts for attacks only.
        threshold: that of HTER.
        threads: at most; the processors of this process when left out. The result does not depend on it.
    """
    from ifas.evaluation.resampling import FIGURES, Sorted

    names, person_N = np.unique(np.asarray(subjects, dtype=str), return_inverse=True)
    fewest = min(len(np.unique(person_N[live])), len(np.unique(person_N[~live])))
    if len(names) < 2 or fewest < 2:
        return dict.fromkeys(FIGURES, "bona fide or attacks of one subject: a bootstrap over subjects needs two")
    if resamples < 1:
        return dict.fromkeys(FIGURES, "the bootstrap is switched off (evaluate.bootstrap)")
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
        return dict.fromkeys(FIGURES, "most resamples lack bona fide or attacks: too few subjects")
    tail = expanded_tail(fewest)
    low_F, high_F = np.quantile(drawn_BF, [tail, 1 - tail], axis=0)
    same = "every resample gives the same value, so a bootstrap has no interval; see those of APCER and BPCER"
    return {
        name: (float(low), float(high)) if low < high else same
        for name, low, high in zip(FIGURES, low_F, high_F, strict=True)
    }


def expanded_tail(subjects: int) -> float:
    """Share of resamples to leave out on either side, with so many subjects in the smaller of both classes."""
    from scipy.stats import norm, t

    return float(norm.cdf(t.ppf(TAIL, subjects - 1) * np.sqrt(subjects / (subjects - 1))))
