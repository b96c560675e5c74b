"""The study's bookkeeping and arithmetic, on results written by hand. The product's tests cover the training."""

import datetime
from typing import Any

import numpy as np
import pytest

from benchmarks.learning.compare import FIGURES, Difference, difference, mean, values
from benchmarks.learning.features import Pooled
from benchmarks.learning.page import page
from benchmarks.learning.settings import FULL, Single, config_of, key_of, read_study, singles
from ifas.core.config import load
from ifas.core.errors import ConfigError
from ifas.faces.face import Face

STUDY = read_study()


def result(seed: int, target: str, arm: str, auc: float, hter: float, medium: float | None = None) -> dict[str, Any]:
    figures = {"auc": auc, "hter": hter, "explanation_agreement": medium, "explanation_medium": medium}
    return {
        "seed": seed,
        "target": target,
        "arm": arm,
        "dev_auc": 0.97,
        "slices": {"target": figures, "source_test": figures},
        "seconds": {"train": 1.0, "judge": 1.0},
    }


RESULTS = [
    result(1, "office", FULL, 0.9, 0.10, 0.5),
    result(1, "street", FULL, 0.8, 0.20, 0.7),
    result(2, "office", FULL, 0.7, 0.30, 0.6),
    result(1, "office", "no_gac", 0.8, 0.15, 0.5),
    result(1, "street", "no_gac", 0.7, 0.25, 0.7),
    result(2, "office", "no_gac", 0.6, 0.35, None),
    result(1, "office", "probe", 0.96, 0.05),
    result(1, "street", "probe", 0.75, 0.25),
]


def test_means_over_all_runs_and_of_one_domain() -> None:
    full = values(RESULTS, FULL, FIGURES["auc"])
    assert full == {(1, "office"): 0.9, (1, "street"): 0.8, (2, "office"): 0.7}
    assert mean(full) == pytest.approx(0.8)
    assert mean(full, "office") == pytest.approx(0.8)
    assert mean(full, "street") == pytest.approx(0.8)
    assert mean(full, "kiosk") is None
    assert values(RESULTS, "probe", FIGURES["medium"]) == {}


def test_difference_is_paired() -> None:
    full = values(RESULTS, FULL, FIGURES["auc"])
    apart = difference(values(RESULTS, "no_gac", FIGURES["auc"]), full)
    assert apart is not None
    # Every pair is 0.1 apart, so however pairs are drawn the mean is, too; an unpaired interval would be wide.
    np.testing.assert_allclose([apart.value, apart.low, apart.high], -0.1, atol=1e-12)
    assert apart.n == 3
    # The probe lacks a run of the full model: only the common two count, (0.06 - 0.05) / 2.
    probe = difference(values(RESULTS, "probe", FIGURES["auc"]), full)
    assert probe is not None
    assert probe.n == 2
    assert probe.value == pytest.approx(0.005)
    # Of two pairs, a quarter of the draws takes the same one twice: the interval ends are the two differences.
    np.testing.assert_allclose([probe.low, probe.high], [-0.05, 0.06], atol=1e-12)
    assert difference({(1, "office"): 0.5}, full) is None


@pytest.mark.parametrize(
    ("value", "low", "high", "better", "says"),
    [
        (-0.1, -0.2, -0.05, "higher", "worse"),
        (-0.1, -0.2, -0.05, "lower", "better"),
        (0.1, 0.05, 0.2, "higher", "better"),
        (0.1, 0.05, 0.2, "lower", "worse"),
        (0.1, -0.01, 0.2, "higher", "undecided"),
    ],
)
def test_what_an_interval_says(value: float, low: float, high: float, better: Any, says: str) -> None:
    assert Difference(value, low, high, 12).says(better) == says


def test_page_shows_the_figures_and_that_runs_are_missing() -> None:
    text = page(STUDY, RESULTS, datetime.date(2026, 11, 25))
    table = text.split("## By target domain")[0]
    assert "| full model | 0.800 | 20.0 % | 60.0 % | 60.0 % | 3 |" in table
    assert "| (b) no GAC | 0.700<br>-0.100 (-0.100 to -0.100) | 25.0 %<br>+5.0 (+5.0 to +5.0) | 60.0 %<br>" in table
    assert "| (d) logistic regression | 0.855<br>+0.005 (-0.050 to +0.060) | 15.0 %<br>" in table
    assert "AUC worse; HTER worse" in table
    assert "(a) no SCF captions" not in table
    assert "Not the whole study" in text
    assert "All arms changed" not in text
    changed = page(STUDY.with_changes(["train.steps=2"]), RESULTS, datetime.date(2026, 11, 25))
    assert "All arms changed: train.steps=2" in changed
    assert "0.800 / 20.0 % | 0.800 / 20.0 %" in text.split("## By target domain")[1]


def test_arms_differ_from_the_full_model_only_in_what_they_take_away() -> None:
    def tree(arm: str) -> dict[str, Any]:
        config = config_of(STUDY, Single(1, "street", arm))
        return config.model_dump(mode="json")

    full = tree(FULL)
    assert full["protocol"] == {"source_domains": ["office", "home", "kiosk"], "target_domains": ["street"]}
    assert tree("no_scf") == full
    assert STUDY.arms["no_scf"].captions == "caption_general"
    assert tree("no_gac") == full | {
        "model": full["model"] | {"connector": full["model"]["connector"] | {"kind": "last_token"}}
    }
    assert tree("plain_loss") == full | {"train": full["train"] | {"loss": "plain"}}


def test_runs_are_leave_one_out_and_keyed_by_what_they_depend_on() -> None:
    everything = singles(STUDY, seeds=[], targets=[], arms=[])
    assert len(everything) == len(set(everything)) == 3 * 4 * 5
    keys = {key_of(STUDY, one) for one in everything}
    assert len(keys) == len(everything)
    one = everything[0]
    assert key_of(STUDY, one) == key_of(STUDY, one)
    assert key_of(STUDY.model_copy(update={"subjects": 8}), one) != key_of(STUDY, one)
    with pytest.raises(ConfigError, match="balcony"):
        singles(STUDY, seeds=[], targets=["balcony"], arms=[])


def test_pooled_features_are_those_of_each_view() -> None:
    pooled = Pooled(load("tiny"))
    rng = np.random.default_rng(0)
    faces = [Face(rng.integers(0, 256, (60, 80, 3), np.uint8), (20.0, 10.0, 30.0, 40.0)) for _ in range(3)]
    both = pooled(faces)
    # Two views, each with three levels and the mean of its patches, 32 wide.
    assert both.shape == (3, 2 * (3 + 1) * 32)
    one = Pooled(load("tiny", ["model.views=[face]"]))
    one.model.vision.load_state_dict(pooled.model.vision.state_dict())
    alone = one(faces)
    np.testing.assert_allclose(alone[:, :96], both[:, :96], atol=1e-5)
    np.testing.assert_allclose(alone[:, 96:], both[:, 192:224], atol=1e-5)
    assert abs(both[:, 192:224] - both[:, 224:]).max() > 1e-3, "the views are told apart"
