"""PAD metrics against hand-computed cases, a plain reference, and scikit-learn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import roc_auc_score, roc_curve

from ifas.core.errors import DataError
from ifas.evaluation import metrics, rates
from ifas.evaluation.metrics import Sweep

# live: .9 .8 .4   print: .7 .3   replay: .6 .2 .1 .4 (ties with a live one)
SCORES = np.array([0.9, 0.8, 0.4, 0.7, 0.3, 0.6, 0.2, 0.1, 0.4])
LIVE = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0], dtype=bool)
SPECIES = ["live"] * 3 + ["print.a4"] * 2 + ["replay.phone"] * 4


def both_classes(levels: int) -> st.SearchStrategy[tuple[np.ndarray, np.ndarray]]:
    """Scores on a coarse grid, so that ties are frequent, and labels with both classes."""
    return st.integers(2, 40).flatmap(
        lambda n: st.tuples(
            hnp.arrays(np.int64, n, elements=st.integers(0, levels)).map(lambda a: a / levels),
            hnp.arrays(np.bool_, n).filter(lambda live: live.any() and not live.all()),
        )
    )


def test_rates_by_hand() -> None:
    # At 0.4 all live are in (score >= threshold accepts the tie), and of the attacks .7 .6 .4.
    rows = pd.DataFrame({"score": SCORES, "label": np.where(LIVE, "live", "spoof"), "pai_species": SPECIES})
    rows = rows.assign(dataset="d", subject_id=list("abcabcdef"))
    counted = {name: (rate.errors, rate.n, rate.n_subjects) for name, rate in rates.apcer(rows, 0.4).items()}
    assert counted == {"print.a4": (1, 2, 2), "replay.phone": (2, 4, 4)}
    assert (rates.apcer_pooled(rows, 0.4).errors, rates.apcer_pooled(rows, 0.4).n) == (3, 6)
    assert (rates.bpcer(rows, 0.4).errors, rates.bpcer(rows, 0.4).n) == (0, 3)
    assert metrics.error_rates(SCORES, LIVE, 0.4) == (0.5, 0.0)
    assert metrics.hter_of(Sweep(SCORES), LIVE, 0.4)[0] == 0.25
    # Just above, the tie is out on both sides.
    assert (rates.bpcer(rows, 0.41).errors, rates.bpcer(rows, 0.41).n) == (1, 3)
    assert metrics.hter_of(Sweep(SCORES), LIVE, 0.41)[0] == pytest.approx((2 / 6 + 1 / 3) / 2)


def test_eer_by_hand() -> None:
    # FAR/FRR at each point: .6 -> 2/6, 1/3: equal. The threshold lies half-way between .4 and .6.
    point = metrics.eer(SCORES, LIVE)
    assert point.value == pytest.approx(1 / 3)
    assert point.threshold == pytest.approx(0.5)
    # Separable: no error, and the threshold in the middle of the gap.
    separable = metrics.eer([0.9, 0.75, 0.25], [True, True, False])
    assert separable == metrics.OperatingPoint(0.5, 0.0, 0.0)
    # All the same: nothing to choose, half of the errors.
    assert metrics.eer([0.5, 0.5], [True, False]).value == 0.5


def test_operating_points_by_hand() -> None:
    # No attack is at or above .8: two of three live stay.
    assert metrics.tpr_at_fpr_of(Sweep(SCORES), LIVE, 0.01)[0] == pytest.approx(2 / 3)
    species = np.array(SPECIES, dtype=object)
    # One of four replays, but no print, may be in: the threshold must stay above .7 all the same.
    assert metrics.bpcer_at_apcer_of(Sweep(SCORES), LIVE, species, 0.25)[0] == pytest.approx(1 / 3)
    # Half of each species may be in: .4 takes every live one.
    assert metrics.bpcer_at_apcer_of(Sweep(SCORES), LIVE, species, 0.5)[0] == 0.0
    point = metrics.apcer_point(SCORES, LIVE, SPECIES, 0.25)
    assert point.threshold == pytest.approx(0.75)
    assert (point.far, point.frr) == (0.0, pytest.approx(1 / 3))


def test_accept_nobody_is_reachable() -> None:
    """The best-scored picture is an attack: APCER 0 needs a threshold above every score."""
    point = metrics.apcer_point([0.9, 0.5], [False, True], ["print", "live"], 0.0)
    assert point.threshold > 0.9
    assert (point.far, point.frr) == (0.0, 1.0)


@settings(max_examples=40)
@given(both_classes(6))
def test_auc_and_roc_are_those_of_scikit_learn(data: tuple[np.ndarray, np.ndarray]) -> None:
    scores, live = data
    assert metrics.auc(scores, live) == pytest.approx(roc_auc_score(live, scores), abs=1e-12)
    far, tpr, _ = roc_curve(live, scores, drop_intermediate=False)
    ours = metrics.roc(scores, live)
    np.testing.assert_allclose(ours.far, far, atol=1e-12)
    np.testing.assert_allclose(ours.tpr, tpr, atol=1e-12)


@settings(max_examples=40)
@given(both_classes(6))
def test_eer_is_the_best_of_all_thresholds(data: tuple[np.ndarray, np.ndarray]) -> None:
    """Against a plain loop over every threshold that makes a difference."""
    scores, live = data
    rates = [metrics.error_rates(scores, live, t) for t in [*np.unique(scores), 2.0]]
    apart = min(abs(far - frr) for far, frr in rates)
    best = min((far + frr) / 2 for far, frr in rates if abs(far - frr) <= apart + 1e-12)
    point = metrics.eer(scores, live)
    assert point.value == pytest.approx(best)
    assert metrics.hter_of(Sweep(scores), live, point.threshold)[0] == pytest.approx(best)
    assert metrics.eer_of(Sweep(scores), live)[0] == pytest.approx(best)


@settings(max_examples=30)
@given(
    st.integers(2, 25).flatmap(
        lambda n: st.tuples(
            hnp.arrays(np.float64, n, elements=st.floats(0, 1)),
            hnp.arrays(np.bool_, n).filter(lambda live: live.any() and not live.all()),
        )
    )
)
def test_oracle_hter_is_the_public_sweep(data: tuple[np.ndarray, np.ndarray]) -> None:
    """10,001 thresholds, the last one with the smallest |FRR - FAR| wins, on the tested data itself."""
    scores, live = data
    grid = np.append(np.arange(10_001) / 10_000, 1.1)
    accept = scores[None] >= grid[:, None]
    far_count, frr_count = accept[:, ~live].sum(1), (~accept)[:, live].sum(1)
    apart = np.abs(far_count * live.sum() - frr_count * (~live).sum())
    last = len(grid) - 1 - np.argmin(apart[::-1])
    expected = (far_count[last] / (~live).sum() + frr_count[last] / live.sum()) / 2
    assert metrics.hter_oracle_of(Sweep(scores), live)[0] == pytest.approx(expected)


@settings(max_examples=40)
@given(both_classes(8), st.data())
def test_weights_are_repetitions(data: tuple[np.ndarray, np.ndarray], draw: st.DataObject) -> None:
    """A row of weights gives what the same pictures, repeated that often, give."""
    scores, live = data
    weights = draw.draw(hnp.arrays(np.int64, len(scores), elements=st.integers(0, 3)))
    repeated, classes = np.repeat(scores, weights), np.repeat(live, weights)
    if not classes.any() or classes.all():
        return
    sweep = Sweep(scores, weights[None])
    species = np.where(live, "live", np.where(np.arange(len(live)) % 2, "print", "mask")).astype(object)
    again, kinds = Sweep(repeated), np.repeat(species, weights)
    assert metrics.auc_of(sweep, live)[0] == pytest.approx(metrics.auc_of(again, classes)[0])
    assert metrics.eer_of(sweep, live)[0] == pytest.approx(metrics.eer_of(again, classes)[0])
    assert metrics.hter_oracle_of(sweep, live)[0] == pytest.approx(metrics.hter_oracle_of(again, classes)[0])
    assert metrics.hter_of(sweep, live, 0.5)[0] == pytest.approx(metrics.hter_of(again, classes, 0.5)[0])
    assert metrics.tpr_at_fpr_of(sweep, live, 0.1)[0] == pytest.approx(metrics.tpr_at_fpr_of(again, classes, 0.1)[0])
    ours = metrics.bpcer_at_apcer_of(sweep, live, species, 0.1)[0]
    assert ours == pytest.approx(metrics.bpcer_at_apcer_of(again, classes, kinds, 0.1)[0])


@settings(max_examples=40)
@given(both_classes(10))
def test_a_monotone_map_of_the_scores_changes_no_ranking_metric(data: tuple[np.ndarray, np.ndarray]) -> None:
    scores, live = data
    mapped = scores**3 / 2
    assert metrics.auc(mapped, live) == pytest.approx(metrics.auc(scores, live))
    assert metrics.eer(mapped, live).value == pytest.approx(metrics.eer(scores, live).value)


@pytest.mark.parametrize("live", [[True, True], [False, False]])
def test_one_class_only_is_refused(live: list[bool]) -> None:
    with pytest.raises(DataError, match="at least one bona fide and one attack"):
        metrics.auc([0.1, 0.2], live)


def test_nan_is_refused() -> None:
    with pytest.raises(DataError, match="not a finite number"):
        metrics.auc([0.1, float("nan")], [True, False])
