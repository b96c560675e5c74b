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
