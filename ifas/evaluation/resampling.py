"""Figures of one bootstrap after another, in one pass over the sorted scores each.

`metrics` says what each figure is, and does the same for a few images; tests hold both together, bit by bit. Here the
images are sorted once, a resample is a weight for each subject, and from the highest score down every figure that
depends on a threshold is found on the way. Threads share the resamples: each writes its own, so their number changes
nothing.

Shapes: N images by falling score, S subjects, B resamples, P kinds (bona fide and each
PAI species), A limits of APCER, M bins of calibration, F figures.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from ifas.evaluation.metrics import APCER_LIMITS, BOOTSTRAPPED, ECE_BINS, FPR_LIMIT, PUBLIC_GRID, Bools, Floats, Ints

#: Bits of `ends_N`: after this image comes another score; another step of `PUBLIC_GRID`.
NEXT_SCORE, NEXT_STEP = 1, 2


def _compiled(function: Callable[..., None]) -> Any:
    """`function` compiled on its first call, without the GIL, kept on disk where that can be written."""
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # nowhere to write: an installed package on a read-only disk, and no home
        return numba.njit(**options)(function)


@dataclass(frozen=True)
class Sorted:
    """The images of one slice, ready for any number of resamples."""

    person_N: npt.NDArray[np.int32]
    #: 0: bona fide; p + 1: attack of species p.
    kind_N: npt.NDArray[np.int32]
    ends_N: npt.NDArray[np.uint8]
    #: Images of each kind that a subject has.
    kinds_SP: Ints
    #: Bona fide below the threshold, attacks not below it, of each subject.
    wrong_S2: Ints
    #: Sum of (bona fide - score) over a subject's bona fide, then over its attacks, in each bin.
    gaps_S2M: Floats

    @classmethod
    def of(
        cls,
        scores: Floats,
        live: Bools,
        species: npt.NDArray[np.object_],
        person_N: Ints,
        *,
        threshold: float,
    ) -> Sorted:
        """Sorts images.

        Args:
            scores, live, species: (N,) in any order; `species` counts for attacks only.
            person_N: whose they are, 0 to S - 1.
            threshold: that of HTER.
        """
        subjects = int(person_N.max()) + 1
        kind_N = np.zeros(len(scores), dtype=np.int32)
        kind_N[~live] = 1 + np.unique(species[~live].astype(str), return_inverse=True)[1]
        kinds = int(kind_N.max()) + 1
        kinds_SP = np.bincount(person_N * kinds + kind_N, minlength=subjects * kinds).reshape(subjects, kinds)
        wrong_N = live == (scores < threshold)
        wrong_S2 = np.stack([np.bincount(person_N[wrong_N & c], minlength=subjects) for c in (live, ~live)], axis=1)
        bin_N = np.clip(np.ceil(scores * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)
        cell_N = (person_N * 2 + ~live) * ECE_BINS + bin_N
        gaps = np.bincount(cell_N, weights=live - scores, minlength=subjects * 2 * ECE_BINS).astype(np.float64)
        order = np.argsort(-scores, kind="stable")
        falling = scores[order]
        step = np.searchsorted(PUBLIC_GRID, falling, side="right")
        ends_N = np.full(len(scores), NEXT_SCORE | NEXT_STEP, dtype=np.uint8)
        ends_N[:-1] = NEXT_SCORE * (np.diff(falling) != 0) + NEXT_STEP * (np.diff(step) != 0)
        return cls(
            person_N[order].astype(np.int32),
            kind_N[order],
            ends_N,
            kinds_SP.astype(np.int64),
            wrong_S2.astype(np.int64),
            gaps.reshape(subjects, 2, ECE_BINS),
        )

    def figures(self, times_BS: Ints, *, threads: int | None = None) -> Floats:
        """`BOOTSTRAPPED` of each resample, (B, F); NaN in a resample that holds no bona fide or no attack.

        Args:
            times_BS: how often each subject was drawn.
            threads: at most; the processors of this process when left out.
        """
        totals_BP = times_BS @ self.kinds_SP
        out_BF = np.full((len(times_BS), len(BOOTSTRAPPED)), np.nan)
        both = np.flatnonzero((totals_BP[:, 0] > 0) & (totals_BP[:, 1:].sum(axis=1) > 0))
        times_BS = times_BS.astype(np.int32)
        apcers_A = np.array(list(APCER_LIMITS.values()))
        threads = threads or len(os.sched_getaffinity(0))

        def figure(part: Ints) -> None:
            for b in part:
                _sweep(self.person_N, self.kind_N, self.ends_N, times_BS[b], totals_BP[b], apcers_A, out_BF[b])
                _sums(times_BS[b], totals_BP[b], self.wrong_S2, self.gaps_S2M, out_BF[b])

        if threads == 1:
            figure(both)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(figure, np.array_split(both, threads)))
        return out_BF


@_compiled
def _sweep(person_N, kind_N, ends_N, times_S, totals_P, apcers_A, out) -> None:  # type: ignore[no-untyped-def]
    """The figures of one resample for which thresholds are tried.

    Args:
        person_N, kind_N, ends_N: of `Sorted`.
        times_S: how often each subject was drawn, int32.
        totals_P: images of each kind in this resample, int64.
        apcers_A: values of `APCER_LIMITS`.
        out: (F,), filled in but for HTER and calibration error.
    """
    n_live = totals_P[0]
    n_attack = totals_P.sum() - n_live
    n_kinds, n_limits = len(totals_P), len(apcers_A)
    counts_P = np.zeros(n_kinds, np.int64)
    most_fpr = FPR_LIMIT * n_attack + 1e-9
    # The most attacks of each species that a limit allows: the test of `bpcer_at_apcer_of`, done once.
    most_AP = np.zeros((n_limits, n_kinds), np.int64)
    for a in range(n_limits):
        for p in range(1, n_kinds):
            most = min(np.int64((apcers_A[a] + 1e-12) * totals_P[p]) + 1, totals_P[p])
            while most > 0 and most / max(totals_P[p], 1) > apcers_A[a] + 1e-12:
                most -= 1
            most_AP[a, p] = most
    strictest_A = np.argsort(apcers_A)
    reached_A = np.zeros(n_limits, np.int64)
    live = attack = live_before = attack_before = twice = 0
    passed = 0  # limits that some species is above already; they fall from the strictest on, and stay fallen
    at_fpr = -1
    # Accepting nobody is the first point: far 0, frr 1.
    apart_eer = apart_step = n_live * n_attack
    sum_eer = n_live * n_attack
    live_eer = attack_eer = live_step = attack_step = 0
    for i in range(len(person_N)):
        weight, kind = times_S[person_N[i]], kind_N[i]
        if kind == 0:
            live += weight
        else:
            attack += weight
            counts_P[kind] += weight
            # Bona fide accepted at the last point before: those at this score come with these attacks.
            while passed < n_limits and counts_P[kind] > most_AP[strictest_A[passed], kind]:
                reached_A[strictest_A[passed]] = live_before
                passed += 1
            if at_fpr < 0 and attack > most_fpr:
                at_fpr = live_before
        if ends_N[i] == 0:
            continue
        far, frr = attack * n_live, (n_live - live) * n_attack
        apart = abs(far - frr)
        if ends_N[i] & NEXT_SCORE:
            # Attacks below this score, twice, and those at it, once, for each bona fide at it.
            twice += (live - live_before) * (2 * (n_attack - attack) + attack - attack_before)
            live_before, attack_before = live, attack
            if apart < apart_eer or (apart == apart_eer and far + frr < sum_eer):
                apart_eer, sum_eer, live_eer, attack_eer = apart, far + frr, live, attack
        if ends_N[i] & NEXT_STEP and apart < apart_step:
            apart_step, live_step, attack_step = apart, live, attack
    for a in range(passed, n_limits):
        reached_A[strictest_A[a]] = live
    if at_fpr < 0:
        at_fpr = live
    out[0] = twice / (2.0 * n_live * n_attack)
    out[1] = (attack_eer / n_attack + (1 - live_eer / n_live)) / 2
    out[2] = (attack_step / n_attack + (1 - live_step / n_live)) / 2
    out[3] = at_fpr / n_live
    for a in range(n_limits):
        out[6 + a] = 1 - reached_A[a] / n_live


@_compiled
def _sums(times_S, totals_P, wrong_S2, gaps_S2M, out) -> None:  # type: ignore[no-untyped-def]
    """HTER and calibration error of one resample: sums over subjects, always in the same order."""
    n_c = (totals_P[0], totals_P[1:].sum())
    wrong_c = np.zeros(2, np.int64)
    gaps_cM = np.zeros(gaps_S2M.shape[1:])
    for s in range(len(times_S)):
        times = times_S[s]
        if times:
            for c in range(2):
                wrong_c[c] += times * wrong_S2[s, c]
                for m in range(gaps_cM.shape[1]):
                    gaps_cM[c, m] += times * gaps_S2M[s, c, m]
    out[4] = (wrong_c[1] / n_c[1] + wrong_c[0] / n_c[0]) / 2
    ece = 0.0
    for m in range(gaps_cM.shape[1]):
        ece += abs(gaps_cM[0, m] / (2 * n_c[0]) + gaps_cM[1, m] / (2 * n_c[1]))
    out[5] = ece
