"""Two passes over the images: scores, a frozen threshold, explanations of that verdict."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ifas.core.errors import ConfigError, CorruptShardError, DataError, FaceRefused
from ifas.evaluation.gallery import GROUPS, choose
from ifas.evaluation.predict import PREDICTION_COLUMNS, predict
from ifas.evaluation.protocol import evaluate
from ifas.evaluation.threshold import freeze
from ifas.faces.face import Face
from ifas.promotion.gate import decide
from ifas.promotion.policy import Policy, Rule
from tests.unit.evaluation.tiles import CONFIG, PROTOCOL, BrightnessJudge, Pictures, make_dataset

Dataset = tuple[pd.DataFrame, Pictures]


def test_table_of_dev_and_test_rows(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IFAS_EVENTS", str(tmp_path / "events"))
    manifest, images = dataset
    frame = predict(BrightnessJudge(), manifest, images, PROTOCOL, CONFIG).frame
    assert tuple(frame.columns) == PREDICTION_COLUMNS
    assert set(frame["sample_id"]) == set(manifest.loc[manifest["split"] != "train", "sample_id"])
    threshold = freeze(frame, PROTOCOL, CONFIG).value
    assert (frame["verdict"] == (frame["score"] >= threshold)).all()
    test = frame["split"] == "test"
    assert frame.loc[test, "explanation"].notna().all()
    assert frame.loc[~test, "explanation"].isna().all()
    live = frame["spoof_type_named"] == "live"
    assert (live == (frame["verdict"] & test)).all()
    named = test & ~live
    assert (frame.loc[named, "spoof_type_confidence"] == 0.75).all()
    assert frame.loc[~named, "spoof_type_confidence"].isna().all(), "an accepted image has none"
    events = [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()]
    last = {event["unit"]: event for event in events if event["kind"] == "progress"}
    assert last["scores"]["done"] == last["scores"]["total"] == len(frame)
    assert last["explanations"]["done"] == last["explanations"]["total"] == test.sum()


def test_survives_parquet(dataset: Dataset, tmp_path: Path) -> None:
    """`predictions.parquet` gives the figures of `metrics.json` again, to the last digit."""
    manifest, images = make_dataset(seed=4)
    images.shards["kiosk.parquet"][6] = b"not an image"
    frame = predict(BrightnessJudge(), manifest, images, PROTOCOL, CONFIG).frame
    frame.to_parquet(tmp_path / "predictions.parquet", index=False)
    again = pd.read_parquet(tmp_path / "predictions.parquet")
    assert evaluate(again, PROTOCOL, CONFIG) == evaluate(frame, PROTOCOL, CONFIG)


def test_batch_size_changes_nothing(dataset: Dataset) -> None:
    one = predict(BrightnessJudge(), *dataset, PROTOCOL, CONFIG.model_copy(update={"batch": 1})).frame
    many = predict(BrightnessJudge(), *dataset, PROTOCOL, CONFIG.model_copy(update={"batch": 1000})).frame
    pd.testing.assert_frame_equal(one, many)


def test_unreadable_images_are_counted_listed_and_left_out() -> None:
    manifest, images = make_dataset()
    whole = images.shards["kiosk.parquet"][10]
    images.shards["kiosk.parquet"][10] = whole[: len(whole) // 2]  # a test attack or bona fide, truncated
    images.shards["office.parquet"][5] = b""  # a dev image
    predicted = predict(BrightnessJudge(), manifest, images, PROTOCOL, CONFIG)
    assert {n["domain"] for n in predicted.non_responses} == {"kiosk", "office"}
    refused = predicted.frame[predicted.frame["refused"].notna()]
    assert len(refused) == 2
    assert refused["score"].isna().all()
    assert refused["verdict"].isna().all()
    tree = evaluate(predicted.frame, PROTOCOL, CONFIG)
    assert tree["data"]["non_response"]["n"] == 2
    assert tree["data"]["non_response"]["bpnrr"]["value"] == pytest.approx(
        1 / tree["data"]["non_response"]["bpnrr"]["n"]
    )
    assert tree["slices"]["target"]["n"] == 29
    assert " at 0x" not in json.dumps(tree)  # no memory address: two runs must write the same record


class Choosy(BrightnessJudge):
    """Finds no face in some images, by their brightness."""

    def find(self, picture: np.ndarray) -> Face:
        if picture.mean() / 255 > 0.7:
            raise FaceRefused("no_face")
        if 0.5 < picture.mean() / 255 < 0.52:
            raise FaceRefused("blurred")
        return super().find(picture)


def test_an_image_without_a_face_is_a_non_response_and_in_no_other_figure() -> None:
    manifest, images = make_dataset()
    frame = predict(Choosy(), manifest, images, PROTOCOL, CONFIG).frame
    refused = frame["refused_reason"].notna()
    assert set(frame.loc[refused, "refused_reason"]) == {"no_face", "blurred"}
    assert frame.loc[refused, ["score", "verdict", "explanation", "spoof_type_named"]].isna().all(axis=None)
    assert "no face was found" in frame.loc[frame["refused_reason"] == "no_face", "refused"].iloc[0]
    tree = evaluate(frame, PROTOCOL, CONFIG)
    rows = frame[(frame["split"] == "test") & (frame["domain"] == "kiosk")]
    silent, live = rows["score"].isna(), rows["label"] == "live"
    found = tree["slices"]["target"]
    assert found["n"] == int((~silent).sum())
    assert found["non_responses"] == rows.loc[silent, "refused_reason"].value_counts().to_dict()
    assert found["bpnrr"]["value"] == pytest.approx(silent[live].mean())
    assert found["bpnrr"]["n"] == live.sum()
    shares = {s: silent[rows["pai_species"] == s].mean() for s in set(rows.loc[~live, "pai_species"])}
    assert {s: one["value"] for s, one in found["apnrr"].items()} == pytest.approx(shares)
    assert found["apnrr_max"]["value"] == pytest.approx(max(shares.values())) != 0
    # The same figures as if these images were not there.
    without = evaluate(frame[~refused], PROTOCOL, CONFIG)["slices"]["target"]
    for name in ("auc", "hter", "bpcer", "apcer", "explanation_agreement"):
        assert found[name] == without[name]
    assert tree["data"]["non_response"]["reasons"] == frame["refused_reason"].value_counts().to_dict()
    assert f"{int((judged_rows(frame))['score'].isna().sum())} more without an answer" in tree["summary"]


def judged_rows(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["split"] == "test"]


def test_a_slice_without_any_answer_is_measured_as_such() -> None:
    class Blind(BrightnessJudge):
        def find(self, picture: np.ndarray) -> Face:
            if picture[..., 1].mean() > picture[..., 0].mean() + 5:  # replays are green
                raise FaceRefused("turned_away")
            return super().find(picture)

    found = evaluate(predict(Blind(), *make_dataset(), PROTOCOL, CONFIG).frame, PROTOCOL, CONFIG)["slices"]
    assert found["target"]["apnrr"]["replay.phone"]["value"] == 1
    assert found["target"]["apnrr_max"]["species"] == "replay.phone"
    phone = found["target"]["apcer"]["replay.phone"]
    assert (phone["value"], phone["n"]) == (None, 0)
    assert phone["reason"].endswith("got an answer")
    # A species without any answer is no reason for a rule that asks something of each species to pass.
    for limits in ({"min_n": 1}, {"min_subjects": 1}, {"bound": "interval"}):
        rule = Rule(id="worst", metric="apcer_max", slice="target", max=1.0, reason="each species counts", **limits)
        assert not decide({"slices": found}, None, Policy(name="each", rules=[rule])).passed, limits
    replay = found["spoof_type:replay"]
    assert replay["apcer_pooled"]["value"] is None
    assert replay["apnrr_max"]["value"] == 1


def test_corrupt_shard_stops_the_run() -> None:
    manifest, images = make_dataset()
    images.corrupt.add("street.parquet")
    with pytest.raises(CorruptShardError):
        predict(BrightnessJudge(), manifest, images, PROTOCOL, CONFIG)


def test_nothing_readable_is_a_data_error() -> None:
    manifest, images = make_dataset(subjects=1)
    images.shards = {name: [b"x"] * len(rows) for name, rows in images.shards.items()}
    with pytest.raises(DataError, match="none of the"):
        predict(BrightnessJudge(), manifest, images, PROTOCOL, CONFIG)


@pytest.mark.parametrize("bad", [np.nan, 1.5, -0.1])
def test_a_score_that_is_no_probability_is_refused(dataset: Dataset, bad: float) -> None:
    class Broken(BrightnessJudge):
        def judge(self, images):  # type: ignore[no-untyped-def]
            return np.full(len(images), bad)

    with pytest.raises(DataError, match="no probability"):
        predict(Broken(), *dataset, PROTOCOL, CONFIG)


def test_explain_gallery_and_none(dataset: Dataset) -> None:
    judge = BrightnessJudge()
    few = predict(judge, *dataset, PROTOCOL, CONFIG.model_copy(update={"explain": "gallery", "gallery": 8})).frame
    assert few["explanation"].notna().sum() == len(judge.explained) == 8
    none = predict(BrightnessJudge(), *dataset, PROTOCOL, CONFIG.model_copy(update={"explain": "none"})).frame
    assert none["explanation"].isna().all()
    figures = evaluate(none, PROTOCOL, CONFIG)["slices"]["target"]
    assert figures["explanation_agreement"]["value"] is None
    with pytest.raises(ConfigError, match="explain"):
        predict(BrightnessJudge(), *dataset, PROTOCOL, CONFIG.model_copy(update={"explain": "loud"}))


def test_gallery_shows_the_worst_mistakes_and_shares_the_rest(predictions: pd.DataFrame) -> None:
    rows = predictions[predictions["split"] == "test"]
    threshold = freeze(predictions, PROTOCOL, CONFIG).value
    chosen = choose(rows, threshold, 12)
    assert list(chosen) == list(GROUPS)
    assert sum(map(len, chosen.values())) == 12
    assert min(map(len, chosen.values())) >= 2
    worst = rows[(rows["label"] == "spoof") & (rows["score"] >= threshold)]["score"].max()
    assert rows.loc[chosen["false_accepts"][0], "score"] == worst
    worst = rows[(rows["label"] == "live") & (rows["score"] < threshold)]["score"].min()
    assert rows.loc[chosen["false_rejects"][0], "score"] == worst
    # Typical right ones come from the spoof types in turn, and of one type from the domains in turn.
    typical = rows.loc[choose(rows, threshold, 40)["right_rejects"]]
    assert typical["spoof_type"].iloc[:3].nunique() >= 2
    prints = typical[typical["spoof_type"] == "print"]["domain"]
    assert prints.iloc[0] != prints.iloc[1]
    assert choose(rows.iloc[:0], threshold, 12) == {group: [] for group in GROUPS}
