"""A clip has one vote: frames of a track share their mean score."""

import numpy as np
import pandas as pd
import pytest

from ifas.evaluation.predict import predict
from ifas.evaluation.protocol import evaluate
from ifas.evaluation.tracks import one_per_track, with_track_scores
from tests.unit.evaluation.tiles import CONFIG, PROTOCOL, BrightnessJudge, Pictures


def test_mean_over_readable_frames() -> None:
    frame = pd.DataFrame(
        {
            "dataset": "d",
            "media_id": ["a", "a", "a", "b", "b", "c"],
            "track_id": ["0", "0", "1", None, None, "0"],
            "score": [0.2, 0.4, 0.9, np.nan, 0.5, np.nan],
            "status": "released",
        }
    )
    scored = with_track_scores(frame)
    assert scored["score"].iloc[:5].tolist() == pytest.approx([0.3, 0.3, 0.9, 0.5, 0.5])
    assert np.isnan(scored["score"].iloc[5])
    assert list(one_per_track(frame).index) == [0, 2, 4, 5]


def test_evaluation_by_track(dataset: tuple[pd.DataFrame, Pictures]) -> None:
    manifest, pictures = dataset
    by_image = CONFIG.model_copy(update={"explain": "all"})
    by_track = by_image.model_copy(update={"unit": "track"})
    # Each picture is a medium of its own: tracks change nothing.
    frames = [predict(BrightnessJudge(), manifest, pictures, PROTOCOL, c).frame for c in (by_image, by_track)]
    trees = [evaluate(f, PROTOCOL, c) for f, c in zip(frames, (by_image, by_track), strict=True)]
    assert trees[0]["slices"] == trees[1]["slices"]
    assert [t["unit"] for t in trees] == ["image", "track"]
    # Every picture twice, as two frames of one clip: as many votes as before.
    double = pd.concat(
        [manifest, manifest.assign(sample_id=manifest["sample_id"].map(lambda s: s[::-1]))], ignore_index=True
    )
    tree = evaluate(predict(BrightnessJudge(), double, pictures, PROTOCOL, by_track).frame, PROTOCOL, by_track)
    for name in ("temperature", "bias", "n_live", "n_spoof"):
        assert tree["calibration"][name] == pytest.approx(trees[0]["calibration"][name])
    for name, figures in trees[0]["slices"].items():
        for measure in ("n", "auc", "hter", "bpcer", "apcer_max"):
            assert tree["slices"][name][measure] == figures[measure], (name, measure)


def test_frames_in_quarantine_change_nothing_of_the_released_frames_of_their_track(
    dataset: tuple[pd.DataFrame, Pictures],
) -> None:
    manifest, pictures = dataset
    by_track = CONFIG.model_copy(update={"unit": "track"})
    # Each clip gets a first frame that nobody released yet: the picture of another clip.
    others = manifest.assign(
        sample_id=manifest["sample_id"].map(lambda s: s[::-1]),
        status="quarantined",
        batch="red-team.001",
        row=manifest["row"].to_numpy()[::-1],
    )
    mixed = pd.concat([others, manifest], ignore_index=True)
    before, after = (predict(BrightnessJudge(), rows, pictures, PROTOCOL, by_track).frame for rows in (manifest, mixed))
    scores = [frame.set_index("sample_id")["score"].loc[manifest.loc[manifest["split"] != "train", "sample_id"]]
              for frame in (before, after)]  # fmt: skip
    pd.testing.assert_series_equal(*scores)
    trees = [evaluate(frame, PROTOCOL, by_track) for frame in (before, after)]
    assert trees[0]["threshold"] == trees[1]["threshold"]
    assert {name: trees[1]["slices"][name] for name in trees[0]["slices"]} == trees[0]["slices"]


def test_where_images_are_frames_tracks_have_figures_beside_them(dataset: tuple[pd.DataFrame, Pictures]) -> None:
    manifest, pictures = dataset
    # Three pictures of a person's attacks, or bona fide, are frames of one clip; in the source domains only.
    clip = manifest["subject_id"] + manifest["spoof_type"]
    frames = manifest.assign(
        media_id=clip.where(manifest["domain"] != "kiosk", manifest["media_id"]),
        track_id="0",
    )
    by_image = CONFIG.model_copy(update={"explain": "none"})
    by_track = by_image.model_copy(update={"unit": "track"})
    predicted = predict(BrightnessJudge(), frames, pictures, PROTOCOL, by_image).frame
    tree, tracks = evaluate(predicted, PROTOCOL, by_image), evaluate(predicted, PROTOCOL, by_track)
    assert "track:target" not in tree["slices"], "its images are no frames"
    assert not [name for name in tracks["slices"] if name.startswith("track:")]
    found = tree["slices"]["track:source_test"]
    expected = tracks["slices"]["source_test"]
    names = ("n", "n_live", "n_spoof", "n_subjects", "auc", "eer", "hter", "ece", "apcer", "apcer_max", "apcer_pooled")
    for name in (*names, "bpcer", "bpcer_at_apcer_10", "bpcer_at_apcer_5", "bpcer_at_apcer_1"):
        assert found[name] == expected[name], name
    assert 0 < found["n"] < tree["slices"]["source_test"]["n"]
    assert found["bpcer_at_apcer_1"]["value"] is not None
    assert tree["slices"]["source_test"]["n"] > found["n_live"] + found["n_spoof"]
    assert found["flips"]["value"] is found["explanation_agreement"]["value"] is None
    assert f"threshold {tracks['threshold']['value']:.3f}" in found["about"]


def test_a_track_with_a_frame_that_nobody_released_is_not_several(dataset: tuple[pd.DataFrame, Pictures]) -> None:
    manifest, pictures = dataset
    others = manifest.assign(
        sample_id=manifest["sample_id"].map(lambda s: s[::-1]), status="quarantined", batch="b.001"
    )
    mixed = pd.concat([manifest, others], ignore_index=True)
    config = CONFIG.model_copy(update={"explain": "none"})
    tree = evaluate(predict(BrightnessJudge(), mixed, pictures, PROTOCOL, config).frame, PROTOCOL, config)
    assert not [name for name in tree["slices"] if name.startswith("track:")]
