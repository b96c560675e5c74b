"""Presentation attack detection metrics (ISO/IEC 30107-3:2023) as plain numpy functions.

Conventions, everywhere in ifas:

- A score is p(bona fide). An image is accepted as live when `score >= threshold`.
- FAR is the share of attacks accepted (APCER with all species pooled), FRR the share of bona fide rejected (BPCER).
- Rates change only at scores that occur, so a threshold that is *chosen* is put half-way between the two scores around
  it; "accept nobody" is the point just above the highest score.

Shapes: N images, B weightings of them (1, or the resamples of a bootstrap), K distinct scores. A resample is a row of
weights; each metric is computed for all B rows at once, from integer counts, so ties are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ifas.core.errors import DataError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

#: Thresholds of the public cross-domain code (FLIP, SSDG, InstructFLIP): 0, 0.0001, …, 1.
PUBLIC_GRID = np.arange(10_001) / 10_000
#: Bins of the expected calibration error (Guo et al. 2017 show their tables with 15).
ECE_BINS = 15
#: Largest APCER of a species at which BPCER is told, by the figure's name.
APCER_LIMITS = {f"bpcer_at_apcer_{percent}": percent / 100 for percent in (10, 5, 1)}
#: Figures whose interval is a bootstrap's, in the order in which `resampling` fills them.
BOOTSTRAPPED = ("auc", "eer", "hter_oracle_eer", "tpr_at_fpr_1", "hter", "ece", *APCER_LIMITS)
#: Largest share of attacks accepted at which `tpr_at_fpr_1` is told.
FPR_LIMIT = 0.01


class Sweep:
    """Counts of accepted images at every threshold that makes a difference.

    Point k < K accepts scores >= `scores_K[k]` (ascending); point K accepts nothing.

    Args:
        scores_N: p(bona fide), finite.
        weights_BN: how often each image counts; ones when left out.
    """

    def __init__(self, scores_N: npt.ArrayLike, weights_BN: Ints | None = None) -> None:
        scores = np.asarray(scores_N, dtype=np.float64)
        if scores.size and not np.isfinite(scores).all():
            raise DataError("a score is not a finite number", "look at the model: it wrote NaN or infinity")
        self.scores_N = scores
        self.weights_BN = np.ones((1, scores.size), dtype=np.int64) if weights_BN is None else weights_BN
        self._order = np.argsort(scores, kind="stable")
        self.scores_K, self._starts = np.unique(scores[self._order], return_index=True)

    def accepted(self, mask_N: Bools) -> Ints:
        """Weighted number of images of `mask_N` accepted at each point: (B, K + 1)."""
        weights = (self.weights_BN * mask_N)[:, self._order]
        groups = np.add.reduceat(weights, self._starts, axis=1)
        counts = np.zeros((groups.shape[0], groups.shape[1] + 1), dtype=np.int64)
        counts[:, :-1] = groups[:, ::-1].cumsum(axis=1)[:, ::-1]
        return counts

    def total(self, mask_N: Bools) -> Ints:
        """Weighted number of images of `mask_N`: (B,)."""
        return self.weights_BN @ mask_N.astype(np.int64)

    def threshold(self, k: int) -> float:
        """A threshold with the rates of point k, half-way to the next lower score."""
        if k == len(self.scores_K):
            return float(np.nextafter(self.scores_K[-1], np.inf))
        if k == 0:
            return float(self.scores_K[0])
        low, high = float(self.scores_K[k - 1]), float(self.scores_K[k])
        middle = (low + high) / 2
        return middle if low < middle else high


def auc_of(sweep: Sweep, live_N: Bools) -> Floats:
    """Area under the ROC of the live score (B,): P(live > attack) + P(live = attack) / 2."""
    live, spoof = sweep.accepted(live_N), sweep.accepted(~live_N)
    at_live = live[:, :-1] - live[:, 1:]
    below_or_at = 2 * (spoof[:, :1] - spoof[:, :-1]) + (spoof[:, :-1] - spoof[:, 1:])
    twice = (at_live * below_or_at).sum(axis=1)
    return np.asarray(twice / (2.0 * live[:, 0] * spoof[:, 0]))


def eer_point_of(sweep: Sweep, live_N: Bools, *, prefer_low_error: bool = True) -> Ints:
    """Index of the point where |FAR - FRR| is smallest (B,).

    Two points can tie, one on either side of FAR = FRR: the one with the lower FAR + FRR is taken, then the higher
    threshold. The public code takes the higher threshold at once (`prefer_low_error=False`).
    """
    live, spoof = sweep.accepted(live_N), sweep.accepted(~live_N)
    n_live, n_spoof = live[:, :1], spoof[:, :1]
    far, frr = spoof * n_live, (n_live - live) * n_spoof  # both times n_live * n_spoof: integers, so ties are exact
    apart = np.abs(far - frr)
    key = np.where(
        apart == apart.min(axis=1, keepdims=True), far + frr if prefer_low_error else 0, np.iinfo(np.int64).max
    )
    return np.asarray(key.shape[1] - 1 - np.argmin(key[:, ::-1], axis=1))


def _half_total(sweep: Sweep, live_N: Bools, k_B: Ints) -> Floats:
    live, spoof = sweep.accepted(live_N), sweep.accepted(~live_N)
    rows = np.arange(len(k_B))
    far = spoof[rows, k_B] / spoof[:, 0]
    frr = 1 - live[rows, k_B] / live[:, 0]
    return np.asarray((far + frr) / 2)


def eer_of(sweep: Sweep, live_N: Bools) -> Floats:
    """Equal error rate (B,): the mean of FAR and FRR at the EER point."""
    return _half_total(sweep, live_N, eer_point_of(sweep, live_N))


def hter_oracle_of(sweep: Sweep, live_N: Bools) -> Floats:
    """The literature's "HTER" (B,): the best of 10,001 thresholds *on the tested data itself*, as public code does."""
    steps = np.searchsorted(PUBLIC_GRID, sweep.scores_N, side="right") - 1
    public = Sweep(steps, sweep.weights_BN)
    return _half_total(public, live_N, eer_point_of(public, live_N, prefer_low_error=False))


def hter_of(sweep: Sweep, live_N: Bools, threshold: float) -> Floats:
    """Half total error rate at a given threshold (B,)."""
    accept_N = sweep.scores_N >= threshold
    far = sweep.total(~live_N & accept_N) / sweep.total(~live_N)
    frr = sweep.total(live_N & ~accept_N) / sweep.total(live_N)
    return np.asarray((far + frr) / 2)


def tpr_at_fpr_of(sweep: Sweep, live_N: Bools, fpr: float) -> Floats:
    """Largest share of bona fide accepted while the share of attacks accepted is <= `fpr` (B,)."""
    live, spoof = sweep.accepted(live_N), sweep.accepted(~live_N)
    allowed = spoof <= fpr * spoof[:, :1] + 1e-9
    return np.asarray(np.where(allowed, live, 0).max(axis=1) / live[:, 0])


def max_apcer_of(sweep: Sweep, live_N: Bools, species_N: npt.NDArray[np.object_]) -> Floats:
    """Largest APCER over the PAI species at each point (B, K + 1); a species without weight is left out."""
    worst = np.zeros((len(sweep.weights_BN), len(sweep.scores_K) + 1))
    for species in sorted(set(species_N[~live_N])):
        counts = sweep.accepted(~live_N & (species_N == species))
        worst = np.maximum(worst, counts / np.maximum(counts[:, :1], 1))
    return worst


def bpcer_at_apcer_of(sweep: Sweep, live_N: Bools, species_N: npt.NDArray[np.object_], apcer: float) -> Floats:
    """Smallest BPCER while no species' APCER is above `apcer` (B,)."""
    live = sweep.accepted(live_N)
    allowed = max_apcer_of(sweep, live_N, species_N) <= apcer + 1e-12
    return np.asarray(1 - np.where(allowed, live, 0).max(axis=1) / live[:, 0])


def ece_of(sweep: Sweep, live_N: Bools) -> Floats:
    """Expected calibration error (B,) of the scores, bona fide and attacks weighing the same.

    Guo et al. 2017 (arXiv 1706.04599), equation 3, over `ECE_BINS` bins of equal width, ((m - 1) / M, m / M]: the mean
    over the bins, by their weight, of |share of bona fide - mean score|. As in their section on binary models, a bin is
    one of p(bona fide). The equal weight of the classes is our choice: shares of two slices can then be compared.
    """
    weights_BN = sweep.weights_BN.astype(np.float64)
    for mask_N in (live_N, ~live_N):
        weights_BN[:, mask_N] /= 2 * weights_BN[:, mask_N].sum(axis=1, keepdims=True)
    bins_N = np.clip(np.ceil(sweep.scores_N * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)
    gaps_NM = (live_N - sweep.scores_N)[:, None] * (bins_N[:, None] == np.arange(ECE_BINS))
    return np.asarray(np.abs(weights_BN @ gaps_NM).sum(axis=1))


@dataclass(frozen=True)
class Roc:
    """Operating points from the strictest (accept nobody) to the most lenient (accept everybody), each (K + 1,)."""

    thresholds: Floats
    far: Floats
    tpr: Floats


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and the error rates it has on the data it was chosen on."""

    threshold: float
    far: float
    frr: float

    @property
    def value(self) -> float:
        """(FAR + FRR) / 2: the EER where the point is the EER point."""
        return (self.far + self.frr) / 2


def _checked(scores: npt.ArrayLike, live: npt.ArrayLike) -> tuple[Sweep, Bools]:
    sweep, live_N = Sweep(scores), np.asarray(live, dtype=np.bool_)
    if live_N.all() or not live_N.any():
        raise DataError("needs at least one bona fide and one attack")
    return sweep, live_N


def roc(scores: npt.ArrayLike, live: npt.ArrayLike) -> Roc:
    """ROC of the live score: FAR against the share of bona fide accepted. Raises DataError when a class is empty."""
    sweep, live_N = _checked(scores, live)
    accepted_live, accepted_spoof = sweep.accepted(live_N)[0, ::-1], sweep.accepted(~live_N)[0, ::-1]
    thresholds = np.append(sweep.scores_K, np.nextafter(sweep.scores_K[-1], np.inf))[::-1]
    return Roc(thresholds, accepted_spoof / accepted_spoof[-1], accepted_live / accepted_live[-1])


def auc(scores: npt.ArrayLike, live: npt.ArrayLike) -> float:
    """Area under the ROC; a tie counts one half. Raises DataError when a class is empty."""
    return float(auc_of(*_checked(scores, live))[0])


def ece(scores: npt.ArrayLike, live: npt.ArrayLike) -> float:
    """Expected calibration error, see `ece_of`. Raises DataError when a class is empty."""
    return float(ece_of(*_checked(scores, live))[0])


def nll(scores: npt.ArrayLike, live: npt.ArrayLike) -> float:
    """Mean negative log-likelihood of the truth in nats, bona fide and attacks weighing the same: the mean over both
    classes of the class's mean. A probability of 0 counts as the smallest one above 0 that 1 - p can tell (1e-16).
    Raises DataError when a class is empty.
    """
    sweep, live_N = _checked(scores, live)
    p_N = np.where(live_N, sweep.scores_N, 1 - sweep.scores_N)
    nll_N = -np.log(p_N.clip(1e-16))
    return float((nll_N[live_N].mean() + nll_N[~live_N].mean()) / 2)


def eer(scores: npt.ArrayLike, live: npt.ArrayLike) -> OperatingPoint:
    """The operating point where FAR and FRR are closest. Raises DataError when a class is empty."""
    sweep, live_N = _checked(scores, live)
    threshold = sweep.threshold(int(eer_point_of(sweep, live_N)[0]))
    return OperatingPoint(threshold, *error_rates(scores, live, threshold))


def apcer_point(scores: npt.ArrayLike, live: npt.ArrayLike, species: Sequence[str], apcer: float) -> OperatingPoint:
    """The lowest threshold at which no species has an APCER above `apcer`. Raises DataError when a class is empty."""
    sweep, live_N = _checked(scores, live)
    worst = max_apcer_of(sweep, live_N, np.asarray(species, dtype=object))[0]
    threshold = sweep.threshold(int(np.argmax(worst <= apcer + 1e-12)))
    return OperatingPoint(threshold, *error_rates(scores, live, threshold))


def error_rates(scores: npt.ArrayLike, live: npt.ArrayLike, threshold: float) -> tuple[float, float]:
    """(FAR, FRR) at a threshold. Raises DataError when a class is empty."""
    sweep, live_N = _checked(scores, live)
    accept_N = sweep.scores_N >= threshold
    return float(accept_N[~live_N].mean()), float(1 - accept_N[live_N].mean())
