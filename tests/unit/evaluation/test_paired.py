"""Differences to the champion on the same images: what they say, and how often their intervals are right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from ifas.core.config import EvaluateConfig, ProtocolConfig
from ifas.evaluation.paired import against, differences

CONFIG = EvaluateConfig(bootstrap=200)


def rows(subjects: int, each: int, seed: int = 0, species: tuple[str, ...] = ("print", "mask")) -> pd.DataFrame:
    """Bona fide and one attack of each species per image; scores that tell them apart not quite."""
    rng = np.random.default_rng(seed)
    made = []
    for subject in range(subjects):
        for _ in range(each):
            for kind in ("live", *species):
                score = float(rng.beta(6, 2) if kind == "live" else rng.beta(2, 6))
                made.append({"subject_id": f"s{subject}", "kind": kind, "score": score})
    frame = pd.DataFrame(made)
    return frame.assign(
        dataset="d",
        domain="a",
        split="test",
        status="released",
        media_id=[str(i) for i in range(len(frame))],
        track_id=None,
        label=np.where(frame["kind"] == "live", "live", "spoof"),
        pai_species=frame["kind"],
        spoof_type=frame["kind"],
        device="x",
        illumination="x",
        sample_id=[f"{i:04d}" for i in range(len(frame))],
        theirs=frame["score"],
    )


def test_a_model_does_not_differ_from_itself_as_far_as_these_people_can_tell() -> None:
    few, many = (differences(rows(n, 3), 0.5, 0.5, CONFIG) for n in (5, 100))
    for found in (few, many):
        for name, entry in found.items():
            if name not in ("apcer", "apnrr"):
                low, high = entry["interval"]
                assert entry["value"] == 0
                assert low < 0 < high, f"{name}: no difference was seen, which is not that there is none"
    for name in ("bpcer", "apcer_max", "auc", "bpnrr"):
        assert few[name]["interval"][1] > 5 * many[name]["interval"][1] > 0
    assert many["bpcer"]["n_subjects"] == 100


def test_counted_by_hand() -> None:
    frame = rows(20, 1, species=("print",)).assign(score=0.9, theirs=0.9)
    live, attack = (frame.index[frame["label"] == label] for label in ("live", "spoof"))
    frame.loc[attack, ["score", "theirs"]] = 0.1
    frame.loc[live[:3], "score"] = 0.2  # rejected by the candidate alone
    frame.loc[live[3], "theirs"] = 0.2  # by the champion alone
    frame.loc[live[4], ["score", "theirs"]] = 0.2  # by both
    frame.loc[live[5], "score"] = np.nan  # no answer of the candidate
    frame.loc[attack[:2], "theirs"] = 0.8  # accepted by the champion alone, at its own threshold
    found = differences(frame, 0.5, 0.5, CONFIG)
    assert found["bpcer"]["value"] == pytest.approx((4 - 2) / 19)
    assert found["bpcer"]["champion"] == pytest.approx(2 / 19)
    assert found["bpnrr"]["value"] == pytest.approx(1 / 20)
    assert found["apcer_max"]["value"] == found["apcer_pooled"]["value"] == pytest.approx(-2 / 20)
    assert found["hter"]["value"] == pytest.approx((2 / 19 - 2 / 20) / 2)
    assert differences(frame, 0.5, 0.85, CONFIG)["apcer_max"]["value"] == 0, "the champion keeps its threshold"


def test_the_worst_species_may_be_another_one() -> None:
    frame = rows(30, 1).assign(score=0.1, theirs=0.1)
    frame.loc[frame["label"] == "live", ["score", "theirs"]] = 0.9
    prints, masks = (frame.index[frame["pai_species"] == kind] for kind in ("print", "mask"))
    frame.loc[masks[:10], "theirs"] = 0.9
    frame.loc[prints[:6], "score"] = 0.9
    found = differences(frame, 0.5, 0.5, CONFIG)
    assert found["apcer_max"]["value"] == pytest.approx(6 / 30 - 10 / 30)
    assert found["apcer_max"]["species"] == "print"
    assert found["apcer_max"]["interval"][1] >= found["apcer"]["print"]["interval"][1] > 0.2, "prints got worse"


def test_what_was_not_measured_says_so() -> None:
    only = rows(4, 1, species=())
    found = differences(only, 0.5, 0.5, CONFIG)
    assert found["apcer_max"]["value"] is found["auc"]["value"] is None
    assert "attack" in found["apcer_max"]["reason"]
    one = differences(rows(1, 5), 0.5, 0.5, CONFIG)
    assert one["auc"]["interval"] is None
    assert "one subject" in one["auc"]["no_interval"]
    off = differences(rows(5, 1), 0.5, 0.5, EvaluateConfig(bootstrap=0))
    assert "switched off" in off["auc"]["no_interval"]
    assert off["bpcer"]["interval"] is not None


@pytest.mark.parametrize("calibration", [None, {"temperature": 2.0, "bias": 0.5}])
def test_the_champion_is_judged_as_it_is_served(calibration: dict[str, float] | None) -> None:
    predicted = rows(10, 2).drop(columns="theirs").assign(raw_score=lambda f: f["score"])
    champion: dict[str, Any] = {"threshold": {"value": 0.5}, "calibration": calibration}
    found = against(
        predicted,
        predicted.assign(score=np.nan),
        threshold=0.5,
        champion=champion,
        protocol=ProtocolConfig(source_domains=("b",), target_domains=("a",)),
        config=CONFIG,
    )
    assert found["target"]["auc"]["value"] == pytest.approx(0)
    assert (found["target"]["bpcer"]["value"] == 0) == (calibration is None)
    assert {"target", "source_test", "domain:a", "spoof_type:print", "spoof_type:mask"} <= set(found)
    assert found["source_test"]["auc"]["value"] is None
    assert not [name for name in found if name.startswith(("batch", "handling"))]


@pytest.mark.parametrize("subjects", [10, 40])
def test_the_intervals_of_rates_hold_the_truth(subjects: int) -> None:
    """Two models whose errors go by person: the true difference is .04."""
    rng, held, runs, each = np.random.default_rng(3), 0, 200, 10
    for _ in range(runs):
        ours, theirs = rng.beta(0.1 * 3, 0.9 * 3, subjects), rng.beta(0.06 * 3, 0.94 * 3, subjects)
        frame = rows_of(subjects, each, ours, theirs, rng)
        low, high = differences(frame, 0.5, 0.5, EvaluateConfig(bootstrap=0))["bpcer"]["interval"]
        held += low <= 0.04 <= high
    assert held / runs >= 0.92


def rows_of(subjects: int, each: int, ours: Any, theirs: Any, rng: np.random.Generator) -> pd.DataFrame:
    """Bona fide that each model rejects with the probability of their person."""
    person = np.repeat(np.arange(subjects), each)
    mine, other = (np.where(rng.random(len(person)) < p[person], 0.1, 0.9) for p in (ours, theirs))
    return pd.DataFrame({"subject_id": person.astype(str), "score": mine, "theirs": other}).assign(
        dataset="d", label="live", pai_species="live", spoof_type="live"
    )
