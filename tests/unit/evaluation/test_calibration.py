"""Temperature and bias: what they undo, what they leave alone, and where they come from."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from ifas.core.calibration import Calibration, log_odds
from ifas.evaluation import metrics
from ifas.evaluation.calibration import TEMPERATURES, calibrated, fit, platt
from ifas.evaluation.predict import predict
from ifas.evaluation.protocol import evaluate
from tests.unit.evaluation.tiles import CONFIG, PROTOCOL, BrightnessJudge, Pictures

Dataset = tuple[pd.DataFrame, Pictures]


def drawn(n_live: int, n_spoof: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """True log odds, at equal weight of the classes, and labels: two Gaussians of variance 1, at 1 and at -1."""
    live = np.arange(n_live + n_spoof) < n_live
    z = np.random.default_rng(seed).normal(np.where(live, 1.0, -1.0))
    return 2 * z, live


def fitted(raw: np.ndarray, live: np.ndarray) -> Calibration:
    temperature, bias = platt(raw, live, np.ones(len(raw)))
    return Calibration(temperature=temperature, bias=bias)


@pytest.mark.parametrize(("n_live", "n_spoof"), [(20_000, 20_000), (3_000, 40_000)])
def test_overconfidence_and_bias_are_undone_whatever_the_mix(n_live: int, n_spoof: int) -> None:
    truth, live = drawn(n_live, n_spoof)
    found = fitted(expit(4 * truth + 3), live)
    assert found.temperature == pytest.approx(4, rel=0.05)
    assert found.bias == pytest.approx(-0.75, abs=0.06)
    scores = found.apply(expit(4 * truth + 3))
    assert metrics.ece(expit(4 * truth + 3), live) > 0.1
    assert metrics.ece(scores, live) < 0.02


def test_it_is_a_class_balanced_logistic_regression() -> None:
    truth, live = drawn(5_000, 9_000)
    other = LogisticRegression(C=np.inf, class_weight="balanced", tol=1e-10).fit(3 * truth[:, None], live)
    found = fitted(expit(3 * truth), live)
    assert 1 / found.temperature == pytest.approx(other.coef_.item(), rel=2e-3)
    assert found.bias == pytest.approx(other.intercept_.item(), abs=2e-3)


@pytest.mark.parametrize("n", [1, 10, 1000])
@pytest.mark.parametrize("gap", [1e-6, 1.0, 60.0])
def test_separated_data_do_not_make_it_certain(n: int, gap: float) -> None:
    live = np.arange(2 * n) < n
    found = fitted(expit(np.where(live, gap / 2, -gap / 2)), live)
    assert TEMPERATURES[0] * 0.999 <= found.temperature <= TEMPERATURES[1] * 1.001
    scores = found.apply(expit(np.where(live, gap / 2, -gap / 2)))
    surest = max((n + 1) / (n + 2), expit(gap / 2 / TEMPERATURES[1]))
    assert scores.max() <= surest + 1e-5
    assert scores.min() >= 1 - surest - 1e-5


def test_scores_that_rank_the_wrong_way_round_stay_in_their_order() -> None:
    truth, live = drawn(500, 500)
    found = fitted(expit(-truth), live)
    assert found.temperature == pytest.approx(TEMPERATURES[1])
    assert (np.diff(found.apply(np.linspace(0.01, 0.99, 50))) > 0).all()


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(1, 999), st.booleans()), min_size=2, max_size=40).filter(
        lambda rows: len({live for _, live in rows}) == 2
    )
)
def test_order_and_auc_stay(rows: list[tuple[int, bool]]) -> None:
    raw, live = np.array([r / 1000 for r, _ in rows]), np.array([live for _, live in rows])
    scores = fitted(raw, live).apply(raw)
    assert ((scores >= 0) & (scores <= 1)).all()
    order = np.argsort(raw, kind="stable")
    assert (np.diff(scores[order])[np.diff(raw[order]) > 0] > 0).all()
    assert metrics.auc(scores, live) == metrics.auc(raw, live)


@pytest.mark.filterwarnings("error")
def test_the_ends_stay_and_nothing_stays_nothing() -> None:
    made = Calibration(temperature=0.05, bias=-3.0)
    scores = made.apply([0.0, 1e-300, 1.0, np.nan])
    assert scores[[0, 2]].tolist() == [0.0, 1.0]
    assert np.isnan(scores[3])
    assert np.isfinite(scores[1])
    assert log_odds(0.5) == 0


def test_ece_by_hand() -> None:
    even = metrics.ece([0.9, 0.9, 0.1, 0.1], [True, True, False, False])
    assert even == pytest.approx(0.1)
    # One bona fide weighs as much as three attacks: |1/2 (1 - .8) + 1/6 (0 - .8)| + |2/6 (0 - .2)|.
    uneven = metrics.ece([0.8, 0.8, 0.2, 0.2], [True, False, False, False])
    assert uneven == pytest.approx(abs(0.1 - 0.8 / 6) + 0.4 / 6)
    # A bin holds its upper end: 1/15 and what is just above are apart, 0 and 1/15 together.
    edge = 1 / metrics.ECE_BINS
    assert metrics.ece([edge, 0.0], [True, False]) == pytest.approx((1 - edge) / 2)
    assert metrics.ece([1.0, 0.0], [True, False]) == 0


def test_nll_by_hand_and_of_a_sure_mistake() -> None:
    found = metrics.nll([0.8, 0.6, 0.2], [True, False, False])
    assert found == pytest.approx(-(np.log(0.8) + (np.log(0.4) + np.log(0.8)) / 2) / 2)
    assert 15 < metrics.nll([0.0, 1.0], [True, False]) < 40


def test_predictions_keep_both_scores_and_metrics_say_what_was_fitted(dataset: Dataset) -> None:
    frame = predict(BrightnessJudge(), *dataset, PROTOCOL, CONFIG).frame
    tree = evaluate(frame, PROTOCOL, CONFIG)
    said = tree["calibration"]
    made = Calibration(temperature=said["temperature"], bias=said["bias"])
    np.testing.assert_array_equal(frame["score"], made.apply(frame["raw_score"]))
    live = frame["label"] == "live"
    for side, domains in (("source_test", PROTOCOL.source_domains), ("target", PROTOCOL.target_domains)):
        rows = (frame["split"] == "test") & frame["domain"].isin(domains)
        assert said[side]["ece"]["before"] == metrics.ece(frame["raw_score"][rows], live[rows])
        assert said[side]["ece"]["after"] == tree["slices"][side]["ece"]["value"]
        assert said[side]["nll"]["after"] < said[side]["nll"]["before"]  # brightness is not a probability
    dev = (frame["split"] == "dev") & frame["domain"].isin(PROTOCOL.source_domains)
    assert (said["n"], said["n_live"]) == (dev.sum(), (dev & live).sum())
    assert said["from"] == {"split": "dev", "domains": list(PROTOCOL.source_domains)}


def test_rows_in_quarantine_do_not_move_it(dataset: Dataset) -> None:
    manifest, images = dataset
    more = manifest.assign(status="quarantined", batch="red-team.1", label="live", spoof_type="live")
    more["sample_id"] = more["sample_id"].map(lambda s: s[::-1])
    mixed = pd.concat([manifest, more], ignore_index=True)
    fits = [
        fit(predict(BrightnessJudge(), m, images, PROTOCOL, CONFIG).frame, PROTOCOL, CONFIG) for m in (manifest, mixed)
    ]
    assert fits[0] == fits[1]


def test_it_can_be_switched_off(dataset: Dataset) -> None:
    off = CONFIG.model_copy(update={"calibrate": False})
    frame = predict(BrightnessJudge(), *dataset, PROTOCOL, off).frame
    assert (frame["score"] == frame["raw_score"]).all()
    assert evaluate(frame, PROTOCOL, off)["calibration"] is None
    assert calibrated(frame, PROTOCOL, off)[1] is None
