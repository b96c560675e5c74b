"""Intervals cover what they claim to cover, and the quick bootstrap is the plain one."""

from __future__ import annotations

import time
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from ifas.evaluation import metrics
from ifas.evaluation.intervals import subject_bootstrap
from ifas.evaluation.metrics import APCER_LIMITS, BOOTSTRAPPED, Sweep
from ifas.evaluation.resampling import Sorted

PLAIN = {
    "auc": metrics.auc_of,
    "eer": metrics.eer_of,
    "hter_oracle_eer": metrics.hter_oracle_of,
    "tpr_at_fpr_1": partial(metrics.tpr_at_fpr_of, fpr=0.01),
    "hter": partial(metrics.hter_of, threshold=0.5),
    "ece": metrics.ece_of,
}


def of(name: str, scores, live, subjects, **options):
    species = np.where(live, "live", "print").astype(object)
    given = {"threshold": 0.5, "resamples": 200, "seed": 0} | options
    return subject_bootstrap(np.asarray(scores), np.asarray(live), species, subjects, **given)[name]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(6, 120), st.integers(2, 20), st.integers(1, 6))
def test_the_quick_figures_are_the_plain_ones(seed: int, n: int, subjects: int, digits: int) -> None:
    """Bit by bit, many ties included; but for the calibration error, whose sum runs in another order."""
    rng = np.random.default_rng(seed)
    live = np.arange(n) % 3 == 0
    scores = np.round(rng.random(n) * 0.9 + 0.1 * live, digits)
    species = rng.choice(["print", "replay", "mask"], n).astype(object)
    person_N = np.append(subjects - 1, rng.integers(0, subjects, n - 1))
    times_BS = rng.multinomial(subjects, np.full(subjects, 1 / subjects), size=20)
    images = Sorted.of(scores, live, species, person_N, threshold=0.5)
    quick_BF = images.figures(times_BS, threads=1)
    assert np.array_equal(quick_BF, images.figures(times_BS, threads=3), equal_nan=True)
    weights_BN = times_BS[:, person_N]
    both = (weights_BN[:, live].sum(axis=1) > 0) & (weights_BN[:, ~live].sum(axis=1) > 0)
    assert np.array_equal(both, ~np.isnan(quick_BF).any(axis=1))
    if not both.any():
        return
    sweep = Sweep(scores, weights_BN[both])
    limits = {k: partial(metrics.bpcer_at_apcer_of, species_N=species, apcer=v) for k, v in APCER_LIMITS.items()}
    plain = PLAIN | limits
    assert set(plain) == set(BOOTSTRAPPED)
    for f, name in enumerate(BOOTSTRAPPED):
        expected = plain[name](sweep, live)
        if name == "ece":
            np.testing.assert_allclose(quick_BF[both, f], expected, rtol=0, atol=1e-12)
        else:
            assert np.array_equal(quick_BF[both, f], expected), name


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
        spread = of("auc", scores, live, subjects)
        assert isinstance(spread, tuple)
        inside += spread[0] <= truth <= spread[1]
    assert 178 <= inside <= 199


def test_few_subjects_have_wider_intervals() -> None:
    """The same spread of the resamples, known of fewer people."""
    rng = np.random.default_rng(3)
    live, subjects = np.arange(200) % 2 == 0, np.arange(200) // 2
    scores = rng.normal(0.6 * live, 1)
    low, high = of("auc", scores, live, subjects)
    few_low, few_high = of("auc", scores[:20], live[:20], subjects[:20])
    assert few_high - few_low > 2.5 * (high - low)  # sqrt(10) by the number, the rest by chance


def test_pictures_of_one_subject_are_not_independent() -> None:
    """Ten copies of every picture add no information: the interval over subjects does not shrink."""
    rng = np.random.default_rng(2)
    live = np.arange(60) % 2 == 0
    scores = rng.normal(0.6 * live, 1)
    once = of("auc", scores, live, np.arange(60), resamples=400, seed=3)
    ten = of("auc", *(np.repeat(a, 10) for a in (scores, live, np.arange(60))), resamples=400, seed=3)
    assert ten == pytest.approx(once)


def test_bootstrap_says_why_there_is_no_interval() -> None:
    scores, live = np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, False, True, True])
    assert "two" in of("auc", scores, live, ["a"] * 4)
    assert "two" in of("auc", scores, live, ["a", "a", "a", "b"])  # the attacks are of one subject
    assert "same value" in of("tpr_at_fpr_1", 1 - scores, live, ["a", "b", "a", "b"])
    assert "switched off" in of("auc", scores, live, ["a", "b", "a", "b"], resamples=0)


@pytest.mark.parametrize("people", [4, 20, 60])
def test_a_ranking_without_an_error_is_never_read_as_worse_than_one_with_one(people: int) -> None:
    """Else the better of two models could fail a rule that binds the interval."""
    rng = np.random.default_rng(people)
    names = np.repeat([f"p{i}" for i in range(people)], 4)
    live = np.tile([True, True, False, False], people)
    scores = np.where(live, rng.uniform(0.6, 0.9, len(live)), rng.uniform(0.1, 0.4, len(live)))
    low, high = of("auc", scores, live, names)
    assert 0.5 < low < high == 1
    for wrong in rng.choice(len(live), 4, replace=False):
        worse = scores.copy()
        worse[wrong] = 0.5 + 0.45 * (-1 if live[wrong] else 1)  # beyond every image of the other class
        assert of("auc", worse, live, names)[0] < low


def test_resamples_without_bona_fide_or_attacks_are_left_out() -> None:
    scores, live = np.array([0.9, 0.3, 0.25, 0.8, 0.5]), np.array([True, False, True, False, False])
    assert of("auc", scores, live, list("abcde")) == pytest.approx((0, 1), abs=1e-6)


def test_bootstrap_is_seeded_and_fast() -> None:
    rng = np.random.default_rng(0)
    scores, live = rng.random(400), rng.random(400) < 0.4
    subjects = rng.integers(0, 60, 400)
    first = of("eer", scores, live, subjects, resamples=1000, seed=7)  # compiles
    start = time.perf_counter()
    assert first == of("eer", scores, live, subjects, resamples=1000, seed=7, threads=1)
    assert time.perf_counter() - start < 2
    assert first != of("eer", scores, live, subjects, resamples=1000, seed=8)
