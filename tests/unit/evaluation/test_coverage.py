"""Intervals of rates hold the truth about 95 times in 100 when the pictures of a person go together."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta, binomtest

from benchmarks.intervals import cells, errors, holds, ours, wilson
from ifas.evaluation import clustered
from ifas.evaluation.clustered import rate_interval
from ifas.evaluation.rates import Rate, people, with_people

#: Samples of a cell, by the number of people: noise of half a per cent; of one, where covered best.
SAMPLES = {10: 2000, 20: 2000, 100: 400}
#: Cells that lie above 98 % (98.1 to 98.6). In 45, 10 and 21 % of their samples nobody has an error; those all hold the
#: true rate, so misses above it hardly happen, and even an interval that misses 2.5 % below, as it should, has 97.5 %.
ABOVE = {(10, 0.3, 0.01), (10, 0.3, 0.03), (20, 0.3, 0.01)}


@pytest.mark.slow
def test_every_cell_is_covered() -> None:
    """10, 20 and 100 people with 50 pictures each, correlation 0 and .3, rates .01 to .3: 92 to 98 %."""
    rng = np.random.default_rng(3)
    for subjects, icc, rate in cells():
        counts = np.full(subjects, 50)
        drawn = errors(rng, SAMPLES[subjects], counts, rate, icc)
        high = 0.99 if (subjects, icc, rate) in ABOVE else 0.98
        assert 0.92 <= holds(ours(drawn, counts), rate) <= high, (subjects, icc, rate)


def test_a_cell_is_covered_that_wilsons_interval_misses() -> None:
    counts = np.full(20, 50)
    drawn = errors(np.random.default_rng(0), 1000, counts, 0.1, 0.3)
    assert 0.92 <= holds(ours(drawn, counts), 0.1) <= 0.98
    assert holds(wilson(drawn, counts), 0.1) < 0.5


def test_the_zero_rule_counts_subjects() -> None:
    zeros = np.zeros(20, dtype=int)
    for counts in (np.full(20, 1), np.full(20, 50), np.arange(1, 21)):
        low, high = rate_interval(zeros, counts)
        assert (low, high) == (0, pytest.approx(binomtest(0, 20).proportion_ci(method="exact").high))
        assert rate_interval(counts, counts) == (pytest.approx(1 - high), 1)
    assert rate_interval(zeros[:0], zeros[:0]) == (0, 1)


@pytest.mark.parametrize(("wrong", "n"), [(1, 30), (7, 12), (250, 1000)])
def test_one_picture_of_each_person_is_jeffreys_interval(wrong: int, n: int) -> None:
    """Close to Wilson's, too; from 50 people on it may be wider by Student's t."""
    low, high = rate_interval((np.arange(n) < wrong).astype(int), np.ones(n, dtype=int))
    jeffreys = beta.ppf([0.025, 0.975], wrong + 0.5, n - wrong + 0.5)
    assert (low, high) == pytest.approx(tuple(jeffreys), rel=2e-3 if n >= clustered.MANY else 1e-6)
    theirs = binomtest(wrong, n).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.03)


def test_pictures_that_only_repeat_add_nothing() -> None:
    """Each person all right or all wrong: 50 pictures of each tell hardly more than one does."""
    wrong = (np.arange(40) < 6).astype(int)
    one = rate_interval(wrong, np.ones(40, dtype=int))
    fifty = rate_interval(wrong * 50, np.full(40, 50))
    assert fifty == pytest.approx(one, abs=0.02)
    apart = rate_interval(np.full(40, 7), np.full(40, 47))  # the same share, spread evenly over all
    assert apart[1] - apart[0] < (one[1] - one[0]) / 3


def test_one_person_tells_of_one() -> None:
    low, high = rate_interval(np.array([20]), np.array([50]))
    assert low < 0.05
    assert high > 0.85


def test_an_interval_holds_the_value_and_does_not_depend_on_the_order() -> None:
    rng = np.random.default_rng(4)
    for subjects in (2, 5, 30, 80, 400):
        counts = rng.integers(1, 300, subjects)
        wrong = rng.binomial(counts, rng.beta(0.3, 2, subjects))
        low, high = rate_interval(wrong, counts)
        assert low <= wrong.sum() / counts.sum() <= high
        order = rng.permutation(subjects)
        assert rate_interval(wrong[order], counts[order]) == pytest.approx((low, high), rel=1e-9)


def test_errors_of_a_few_people_are_seen_whatever_their_spread() -> None:
    """One person in 20 fails half of the time, the others hardly ever: no beta-binomial, yet 92 % with 1000 people."""
    rng, inside = np.random.default_rng(5), 0
    counts, truth = np.full(1000, 50), 0.05 * 0.5 + 0.95 * 0.005
    for _ in range(100):
        wrong = rng.binomial(counts, np.where(rng.random(1000) < 0.05, 0.5, 0.005))
        low, high = rate_interval(wrong, counts)
        inside += low <= truth <= high
    assert inside >= 92


def test_finer_nodes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    samples = [(rng.binomial(50, rng.beta(0.3, 3, k)), np.full(k, 50)) for k in (5, 10, 20, 40)]
    coarse = [rate_interval(*sample) for sample in samples]
    monkeypatch.setattr(clustered, "CORRELATIONS", 2 * clustered.CORRELATIONS)
    monkeypatch.setattr(clustered, "RATES", 2 * clustered.RATES)
    for sample, ends in zip(samples, coarse, strict=True):
        assert rate_interval(*sample) == pytest.approx(ends, rel=0.01)


def test_people_are_told_apart_by_dataset_and_without_an_id_count_as_one() -> None:
    rows = pd.DataFrame({"dataset": list("aabbb"), "subject_id": ["x", "y", "x", None, None]})
    assert len(set(people(rows))) == 4
    rate = Rate.of([True, False, True, True, False], people(with_people(rows)))
    assert (rate.errors, rate.n, rate.n_subjects) == (3, 5, 4)
    none = Rate.of([], [])
    assert none.entry() == {"value": None, "reason": "no such images in this slice", "n": 0}
    turned = Rate.of([False, True, True, False, True][::-1], people(rows)[::-1])
    assert turned.entry()["interval"] == Rate.of([False, True, True, False, True], people(rows)).entry()["interval"]
