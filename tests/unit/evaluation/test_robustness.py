"""The same image in another way: which images are tried, what a flip is, and where it is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ifas.core.calibration import Calibration
from ifas.core.config import RobustnessConfig, load
from ifas.core.errors import ConfigError
from ifas.core.measures import check_slice
from ifas.evaluation import robustness
from ifas.evaluation.clustered import rate_interval
from ifas.evaluation.predict import Predicted, predict
from ifas.evaluation.protocol import evaluate
from ifas.evaluation.threshold import freeze
from tests.unit.evaluation.tiles import CONFIG, PROTOCOL, TRYING, BrightnessJudge, Pictures

Dataset = tuple[pd.DataFrame, Pictures]


def test_the_images_are_balanced_and_chosen_by_seed_and_id_alone(predictions: pd.DataFrame) -> None:
    rows = predictions.loc[robustness.chosen(predictions, PROTOCOL, TRYING)]
    assert set(rows["split"]) == {"test"}
    for domains in (PROTOCOL.source_domains, PROTOCOL.target_domains):
        side = rows[rows["domain"].isin(domains)]
        assert side["pai_species"].value_counts().to_dict() == {
            "live": 9,
            "print.a4": 3,
            "replay.phone": 3,
            "mask.rigid3d": 3,
        }
    shuffled = predictions.sample(frac=1, random_state=1).reset_index(drop=True)
    again = shuffled.loc[robustness.chosen(shuffled, PROTOCOL, TRYING)]
    assert set(again["sample_id"]) == set(rows["sample_id"])
    # Scores decide nothing, so a model can't have its easy images tried.
    rescored = predictions.assign(score=np.linspace(0, 1, len(predictions)))
    assert robustness.chosen(rescored, PROTOCOL, TRYING) == list(rows.index)
    other = robustness.chosen(predictions, PROTOCOL, TRYING.model_copy(update={"seed": 1}))
    assert other != list(rows.index)
    assert len(other) == len(rows)
    assert robustness.chosen(predictions, PROTOCOL, CONFIG) == []


def test_only_released_test_images_of_the_protocol_with_a_score_are_tried(predictions: pd.DataFrame) -> None:
    test = predictions["split"] == "test"
    predictions.loc[test & (predictions["domain"] == "office"), "status"] = "quarantined"
    mute = predictions.index[test & (predictions["domain"] == "street")][:4]
    predictions.loc[mute, "score"] = np.nan
    everything = TRYING.model_copy(update={"robustness": RobustnessConfig(images=1000)})
    rows = predictions.loc[robustness.chosen(predictions, PROTOCOL, everything)]
    assert set(rows["domain"]) == {"street", "kiosk"}
    assert not set(mute) & set(rows.index)
    assert len(rows) == 2 * 30 - 4
    away = PROTOCOL.model_copy(update={"target_domains": ("elsewhere",)})
    assert set(predictions.loc[robustness.chosen(predictions, away, everything)]["domain"]) == {"street"}


def test_flips_by_another_way(trial: Predicted) -> None:
    """The judge measures brightness, so what bars and borders do to its score can be computed by hand."""
    tree = evaluate(trial.frame, PROTOCOL, TRYING, trial.handled)
    threshold = tree["threshold"]["value"]
    frozen = Calibration(temperature=tree["calibration"]["temperature"], bias=tree["calibration"]["bias"])
    rows = trial.frame.loc[robustness.chosen(trial.frame, PROTOCOL, TRYING)]
    before = rows["score"] >= threshold
    # A tile has 48 rows and 40 columns; a bar 10 rows, a border 4 pixels.
    after = {
        "letterboxed": frozen.apply(rows["raw_score"] * 48 / 68) >= threshold,
        "bordered": frozen.apply((rows["raw_score"] * 48 * 40 + 56 * 48 - 48 * 40) / (56 * 48)) >= threshold,
    }
    for name, now in after.items():
        check_slice(f"handling:{name}")
        figures = tree["slices"][f"handling:{name}"]
        flipped = before != now
        by_person = flipped.groupby(rows["subject_id"]).agg(["sum", "size"]).to_numpy().T
        low, high = rate_interval(*by_person)
        assert figures["flips"] == {
            "value": flipped.mean(),
            "interval": [low, high],
            "errors": flipped.sum(),
            "n": len(rows),
            "n_subjects": rows["subject_id"].nunique(),
        }
        for measure, of in (("flips_to_live", ~before), ("flips_to_spoof", before)):
            assert (figures[measure]["errors"], figures[measure]["n"]) == ((flipped & of).sum(), of.sum())
        live = rows["label"] == "live"
        assert figures["bpcer"]["errors"] == (live & ~now).sum()
        assert figures["apcer_pooled"]["errors"] == (~live & now).sum()
        assert figures["handled_non_response"]["errors"] == 0
    assert tree["slices"]["handling:letterboxed"]["flips_to_spoof"]["value"] > 0.9
    assert tree["slices"]["handling:bordered"]["flips_to_live"]["value"] > 0.9
    assert tree["slices"]["handling:jpeg50"]["flips"]["value"] < 0.1
    # Elsewhere an image counts once, and flips if any of its handlings flips it.
    target = rows["domain"] == "kiosk"
    jpeg = trial.handled[trial.handled["handling"] == "jpeg50"].set_index("sample_id")["score"] >= threshold
    any_flip = (before != rows["sample_id"].map(jpeg)) | (before != after["letterboxed"])
    any_flip |= before != after["bordered"]
    flips = tree["slices"]["target"]["flips"]
    assert (flips["errors"], flips["n"]) == (any_flip[target].sum(), target.sum())
    name, entry = robustness.worst(tree["slices"]) or ("", {})
    assert entry["value"] == max(tree["slices"][f"handling:{n}"]["flips"]["value"] for n in ("letterboxed", "bordered"))
    assert f"flips when handled: at most {100 * entry['value']:.1f}% ({name})" in tree["summary"]


def test_an_image_without_an_answer_is_counted_and_is_no_flip(trial: Predicted) -> None:
    """Half a tile is refused by the reader that an image as it is passes, too."""
    halved = trial.handled[trial.handled["handling"] == "halved"]
    assert halved["score"].isna().all()
    assert halved["refused"].str.contains("the smallest side allowed is 32").all()
    tree = evaluate(trial.frame, PROTOCOL, TRYING, trial.handled)
    figures = tree["slices"]["handling:halved"]
    assert figures["handled_non_response"]["value"] == 1
    assert figures["handled_non_response"]["n"] == len(halved)
    assert figures["flips"]["value"] is None
    assert "evaluate.robustness" in figures["flips"]["reason"]
    assert tree["slices"]["source_test"]["handled_non_response"]["value"] == 1  # each of its images, once


def test_nothing_tried_is_said(predictions: pd.DataFrame) -> None:
    tree = evaluate(predictions, PROTOCOL, CONFIG)
    assert not [name for name in tree["slices"] if name.startswith("handling:")]
    assert tree["slices"]["target"]["flips"]["value"] is None
    assert "flips when handled: not measured" in tree["summary"]


def test_the_other_figures_are_those_of_a_run_without_handled_images(
    trial: Predicted, predictions: pd.DataFrame
) -> None:
    pd.testing.assert_frame_equal(trial.frame, predictions)
    tried, without = evaluate(trial.frame, PROTOCOL, TRYING, trial.handled), evaluate(predictions, PROTOCOL, CONFIG)
    for name, figures in without["slices"].items():
        same = {k: v for k, v in tried["slices"][name].items() if not k.startswith(("flips", "handled"))}
        assert same == {k: v for k, v in figures.items() if not k.startswith(("flips", "handled"))}


def test_survives_parquet(trial: Predicted, tmp_path: Path) -> None:
    for name, table in (("p", trial.frame), ("r", trial.handled)):
        table.to_parquet(tmp_path / name, index=False)
    again = evaluate(pd.read_parquet(tmp_path / "p"), PROTOCOL, TRYING, pd.read_parquet(tmp_path / "r"))
    assert again == evaluate(trial.frame, PROTOCOL, TRYING, trial.handled)
    json.dumps(again, allow_nan=False)


def test_of_a_track_one_image_is_tried_and_compared_with_its_own_score(dataset: Dataset) -> None:
    manifest, images = dataset
    tracks = manifest.assign(media_id=manifest["subject_id"] + manifest["pai_species"], track_id="0")
    config = TRYING.model_copy(update={"unit": "track"})
    predicted = predict(BrightnessJudge(), tracks, images, PROTOCOL, config)
    handled = predicted.handled
    entry = evaluate(predicted.frame, PROTOCOL, config, handled)["calibration"]
    frozen = Calibration(temperature=entry["temperature"], bias=entry["bias"])
    raw = predicted.frame.set_index("sample_id")["raw_score"]
    own = frozen.apply(raw[handled["sample_id"]].to_numpy())
    assert handled["before"].tolist() == own.tolist(), "its own score, not that of its track"
    kept = predicted.frame.set_index("sample_id").loc[handled["sample_id"].unique()]
    assert not kept[["media_id"]].duplicated().any()
    tree = evaluate(predicted.frame, PROTOCOL, config, handled)
    assert tree["slices"]["target"]["flips"]["n"] == kept["domain"].eq("kiosk").sum()
    assert freeze(predicted.frame, PROTOCOL, config).value == tree["threshold"]["value"]


@pytest.mark.parametrize("names", ["[jpeg5]", "[webp80, webp80]"])
def test_unknown_and_repeated_names_are_refused(names: str) -> None:
    with pytest.raises(ConfigError, match=r"evaluate\.robustness\.handlings"):
        load("tiny", [f"evaluate.robustness.handlings={names}"])
