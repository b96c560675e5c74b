"""Intervals cover what they claim to cover."""

from __future__ import annotations

import time
from functools import partial

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from ifas.evaluation import metrics
from ifas.evaluation.intervals import rate_entry, subject_bootstrap, wilson
from ifas.evaluation.metrics import Rate


@pytest.mark.parametrize(("errors", "n"), [(0, 30), (1, 30), (7, 12), (30, 30), (250, 1000)])
def test_wilson_is_scipys(errors: int, n: int) -> None:
    theirs = binomtest(errors, n).proportion_ci(0.95, method="wilson")
    assert wilson(errors, n) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_zero_errors_are_not_certainty() -> None:
    low, high = wilson(0, 30)
    assert low == 0
    assert 3 / 30 < high < 0.13  # the rule of three says 0.1
    assert wilson(0, 0) == (0.0, 1.0)
    assert rate_entry(Rate(0, 0))["value"] is None


def test_bootstrap_covers_the_true_auc() -> None:
    """200 datasets of 40 subjects whose pictures go together: the true AUC is inside in about 95 % of them."""
    rng = np.random.default_rng(1)
    shift, person, picture = 1.2, 0.8, 0.6
    truth = norm.cdf(shift / np.sqrt(2 * (person**2 + picture**2)))
    live = np.tile([True, True, False, False], 40)
    subjects = np.repeat(np.arange(40), 4)
    inside = 0
    for _ in range(200):
        # Bona fide and attack pictures of a person share nothing here, so the AUC above is exact.
        of_person = rng.normal(0, person, (40, 2))[:, [0, 0, 1, 1]].ravel()
        scores = of_person + rng.normal(0, picture, 160) + shift * live
        spread = subject_bootstrap({"auc": metrics.auc_of}, scores, live, subjects, resamples=200, seed=0)["auc"]
        assert isinstance(spread, tuple)
        inside += spread[0] <= truth <= spread[1]
    assert 178 <= inside <= 199


def test_pictures_of_one_subject_are_not_independent() -> None:
    """Ten copies of every picture add no information: the interval over subjects does not shrink."""
    rng = np.random.default_rng(2)
    live = np.arange(60) % 2 == 0
    scores = rng.normal(0.6 * live, 1)
    kwargs = {"resamples": 400, "seed": 3}
    once = subject_bootstrap({"auc": metrics.auc_of}, scores, live, range(60), **kwargs)["auc"]
    copied = [np.repeat(a, 10) for a in (scores, live, np.arange(60))]
    ten = subject_bootstrap({"auc": metrics.auc_of}, *copied, **kwargs)["auc"]
    assert ten == pytest.approx(once)


def test_bootstrap_says_why_there_is_no_interval() -> None:
    scores, live = np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, False, True, True])
    one = subject_bootstrap({"auc": metrics.auc_of}, scores, live, ["a"] * 4, resamples=50, seed=0)["auc"]
    assert "two" in one
    same = subject_bootstrap({"auc": metrics.auc_of}, scores, live, ["a", "b", "a", "b"], resamples=50, seed=0)["auc"]
    assert "same value" in same
    off = subject_bootstrap({"auc": metrics.auc_of}, scores, live, ["a", "b", "a", "b"], resamples=0, seed=0)["auc"]
    assert "switched off" in off


def test_resamples_without_bona_fide_or_attacks_are_left_out() -> None:
    scores, live = np.array([0.9, 0.3, 0.25, 0.8, 0.5]), np.array([True, False, True, False, False])
    spread = subject_bootstrap({"auc": metrics.auc_of}, scores, live, list("abcde"), resamples=200, seed=0)
    assert spread["auc"] == (0.0, 1.0)


def test_bootstrap_is_seeded_and_fast() -> None:
    rng = np.random.default_rng(0)
    scores, live = rng.random(400), rng.random(400) < 0.4
    species = np.where(live, "live", rng.choice(["print", "replay", "mask"], 400)).astype(object)
    statistics = {
        "auc": metrics.auc_of,
        "eer": metrics.eer_of,
        "hter": partial(metrics.hter_of, threshold=0.5),
        "oracle": metrics.hter_oracle_of,
        "bpcer": partial(metrics.bpcer_at_apcer_of, species_N=species, apcer=0.1),
    }
    subjects = rng.integers(0, 60, 400)
    start = time.perf_counter()
    first = subject_bootstrap(statistics, scores, live, subjects, resamples=1000, seed=7)
    assert time.perf_counter() - start < 2
    assert first == subject_bootstrap(statistics, scores, live, subjects, resamples=1000, seed=7)
    assert first != subject_bootstrap(statistics, scores, live, subjects, resamples=1000, seed=8)
