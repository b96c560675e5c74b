"""`python -m benchmarks.intervals [--quick]`: do 95 % intervals hold the truth 95 times in 100, and how long they take.

Coverage of rates: samples of 10, 20 and 100 people with 50 pictures each, whose errors go together (beta-binomial, an
intra-class correlation of 0 or 0.3), at four error rates; the share of samples whose interval holds the true rate,
beside Wilson's interval over pictures and the plain percentile bootstrap over people. The bar is 92 to 98 %. Where many
samples have no error at all, they all have the true rate inside, so of 5 % misses only the 2.5 % below can happen, and
97.5 % is what a perfect interval has. Three such cells lie above 98 %. The last column has people with 5 to 150
pictures; it has no bar.

Coverage of AUC and HTER: normal scores with an effect of the person, on bona fide and attacks of its own; beside the
plain percentiles of the same resamples. The bar is 92 % with 20 people and more.

Time: every bootstrapped figure of 1,000,000 predictions of 20,000 people with 1,000 resamples, in 60 s on two cores;
and of a smaller set, beside the plain loop over `metrics`. `--quick` takes a tenth of the samples and resamples.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from functools import partial

import numpy as np
from scipy.stats import norm

from benchmarks.figure import figure
from ifas.evaluation import metrics
from ifas.evaluation.clustered import rate_interval
from ifas.evaluation.intervals import subject_bootstrap
from ifas.evaluation.metrics import APCER_LIMITS, FPR_LIMIT, Sweep
from ifas.evaluation.resampling import Sorted

SUBJECTS, CORRELATIONS, RATES, PICTURES = (10, 20, 100), (0.0, 0.3), (0.01, 0.03, 0.1, 0.3), 50
LOW, HIGH = 0.92, 0.98


def errors(rng: np.random.Generator, samples: int, counts_S: np.ndarray, rate: float, icc: float) -> np.ndarray:
    """Wrong pictures of each subject, (samples, S): beta-binomial with mean `rate`."""
    shape = (samples, len(counts_S))
    rate_XS = np.full(shape, rate)
    if icc > 0:
        rate_XS = rng.beta(rate * (1 - icc) / icc, (1 - rate) * (1 - icc) / icc, shape)
    return rng.binomial(counts_S, rate_XS)


def cells() -> Iterator[tuple[int, float, float]]:
    """Subjects, correlation and rate of every cell that the bar is for."""
    for subjects in SUBJECTS:
        for icc in CORRELATIONS:
            for rate in RATES:
                yield subjects, icc, rate


def ours(errors_XS: np.ndarray, counts_S: np.ndarray) -> np.ndarray:
    """Ends of the interval of each sample, (samples, 2). The order of subjects does not matter: same samples, once."""
    order = np.lexsort((counts_S,))
    known: dict[bytes, tuple[float, float]] = {}
    ends = []
    for sample_S in errors_XS[:, order]:
        pairs = np.stack([counts_S[order], sample_S])
        pairs = pairs[:, np.lexsort(pairs[::-1])]
        key = pairs.tobytes()
        if key not in known:
            known[key] = rate_interval(pairs[1], pairs[0])
        ends.append(known[key])
    return np.array(ends)


def wilson(errors_XS: np.ndarray, counts_S: np.ndarray) -> np.ndarray:
    """Wilson's interval (1927), which takes pictures as independent: what ifas had before."""
    n, z = counts_S.sum(), norm.ppf(0.975)
    share = errors_XS.sum(axis=1) / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.stack([np.where(share == 0, 0, middle - half), np.where(share == 1, 1, middle + half)], axis=1)


def percentiles(errors_XS: np.ndarray, counts_S: np.ndarray, resamples: int = 1000) -> np.ndarray:
    """The plain percentile bootstrap over subjects. The same resamples serve all samples."""
    people = len(counts_S)
    times = np.random.default_rng(0).multinomial(people, np.full(people, 1 / people), size=resamples)
    drawn = (errors_XS @ times.T) / (times @ counts_S)
    return np.percentile(drawn, [2.5, 97.5], axis=1).T


def holds(ends: np.ndarray, truth: float) -> float:
    """Share of the intervals that hold the truth."""
    return float(((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean())


def rates(samples: int) -> bool:
    """Coverage of rates; whether every bar is met."""
    rng, ok = np.random.default_rng(18), True
    print("| people | ICC | rate | without an error | ours | Wilson over pictures | percentile bootstrap | unequal |")
    print("|---|---|---|---|---|---|---|---|")
    for people, icc, rate in cells():
        equal = np.full(people, PICTURES)
        # A tenth to three times as many as all have on average.
        unequal = np.resize([5, 10, 20, 65, 150], people)
        drawn = errors(rng, samples, equal, rate, icc)
        covered = [holds(method(drawn, equal), rate) for method in (ours, wilson, percentiles)]
        other = holds(ours(errors(rng, samples, unequal, rate, icc), unequal), rate)
        without = float((drawn.sum(axis=1) == 0).mean())
        met = LOW <= covered[0] <= HIGH
        ok &= met
        words = " | ".join(f"{100 * share:.1f}" for share in (without, *covered, other))
        note = "" if met else " **missed**"
        print(f"| {people} | {icc:g} | {rate:g} | {words} |{note}", flush=True)
    return ok


def others(samples: int) -> bool:
    """Coverage of AUC and HTER; whether every bar is met."""
    rng, ok, pictures = np.random.default_rng(19), True, 20
    print("| people | ICC | true AUC | AUC: ours | percentiles | HTER: ours | percentiles |")
    print("|---|---|---|---|---|---|---|")
    for people in SUBJECTS:
        for icc in CORRELATIONS:
            for shift in (1.2, 3.0):
                person = np.repeat(np.arange(people), pictures)
                live = np.tile(np.arange(pictures) < pictures // 2, people)
                species = np.where(live, "live", "print").astype(object)
                truths = {"auc": norm.cdf(shift / np.sqrt(2)), "hter": norm.cdf(-shift / 2)}
                inside = np.zeros((2, 2))
                for _ in range(samples):
                    effect = rng.normal(0, np.sqrt(icc), (people, 2))
                    noise = rng.normal(0, np.sqrt(1 - icc), len(person))
                    scores = effect[person, live.astype(int)] + noise + shift * live
                    given = {"threshold": shift / 2, "resamples": 400, "seed": int(rng.integers(2**31))}
                    spread = subject_bootstrap(scores, live, species, person, threads=1, **given)
                    draws = np.random.default_rng(given["seed"])
                    times = draws.multinomial(people, np.full(people, 1 / people), size=400)
                    plain = Sorted.of(scores, live, species, person, threshold=shift / 2).figures(times, threads=1)
                    for i, (name, column) in enumerate((("auc", 0), ("hter", 4))):
                        for j, ends in enumerate((spread[name], np.percentile(plain[:, column], [2.5, 97.5]))):
                            inside[i, j] += not isinstance(ends, str) and ends[0] <= truths[name] <= ends[1]
                inside /= samples
                met = people < 20 or inside[:, 0].min() >= LOW
                ok &= bool(met)
                words = " | ".join(f"{100 * share:.1f}" for share in inside.ravel())
                print(
                    f"| {people} | {icc:g} | {truths['auc']:.3f} | {words} |{'' if met else ' **missed**'}", flush=True
                )
    return ok


def predictions(people: int, pictures: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores, bona fide or not, species and person of each image; half of them attacks of five species."""
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(people), pictures)
    live = np.tile(np.arange(pictures) % 2 == 0, people)
    names = np.array(["print", "replay", "mask", "mannequin", "cut"], dtype=object)
    species = np.where(live, "live", names[np.arange(len(person)) // 2 % 5])
    raw = rng.normal(0, 1, len(person)) + rng.normal(0, 1, people)[person] + 2 * live
    return 1 / (1 + np.exp(-raw)), live, species, person


def plain_loop(images: tuple[np.ndarray, ...], resamples: int) -> None:
    """What ifas did before: each figure by numpy, for all resamples at once."""
    scores, live, species, person = images
    people = int(person.max()) + 1
    times = np.random.default_rng(0).multinomial(people, np.full(people, 1 / people), size=resamples)
    sweep = Sweep(scores, times[:, person])
    for statistic in (metrics.auc_of, metrics.eer_of, metrics.hter_oracle_of, metrics.ece_of):
        statistic(sweep, live)
    metrics.hter_of(sweep, live, 0.5)
    metrics.tpr_at_fpr_of(sweep, live, FPR_LIMIT)
    for limit in APCER_LIMITS.values():
        metrics.bpcer_at_apcer_of(sweep, live, species, limit)


def seconds(what: partial[object]) -> float:
    """Wall clock of one call."""
    start = time.perf_counter()
    what()
    return time.perf_counter() - start


def main() -> int:
    """Prints tables and figures; 1 where a bar is missed."""
    quick = "--quick" in sys.argv[1:]
    ok = rates(200 if quick else 1500)
    ok &= others(40 if quick else 400)
    small = predictions(400, 50)
    options = {"threshold": 0.5, "seed": 0}
    subject_bootstrap(*small, resamples=2, **options)  # compiles
    each = seconds(partial(subject_bootstrap, *small, resamples=40, **options))
    before = seconds(partial(plain_loop, small, 40))
    ok &= figure("20,000 predictions x 40 resamples", each, "s", baseline=before, bar=1, bar_is="ratio <=")
    large, resamples = predictions(20_000, 50), 100 if quick else 1000
    used = time.process_time()
    took = seconds(partial(subject_bootstrap, *large, resamples=resamples, **options))
    # Wall clock of shared cores says little: what the threads worked tells how long two free ones take.
    figure("CPU seconds of the next", time.process_time() - used, "s")
    ok &= figure(f"1,000,000 predictions x {resamples:,} resamples", took, "s", bar=60)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
