"""Baselines: what a file of scores must be, and what is found when it is compared with the model image by image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ifas.core.config import EvaluateConfig, ProtocolConfig
from ifas.core.errors import DataError
from ifas.core.measures import OF_BASELINES
from ifas.evaluation.baselines import check_ids, coverage, measure, read_scores
from ifas.evaluation.probe import fit
from ifas.evaluation.protocol import evaluate
from tests.unit.evaluation.tiles import CONFIG, PROTOCOL


def measured(predictions: pd.DataFrame, scores: pd.Series, config: EvaluateConfig = CONFIG) -> dict:
    threshold = evaluate(predictions, PROTOCOL, config)["threshold"]["value"]
    return measure(predictions, scores, threshold=threshold, protocol=PROTOCOL, config=config)


def of(predictions: pd.DataFrame, column: str = "score") -> pd.Series:
    return predictions.set_index("sample_id")[column].astype("float64")


def truth(predictions: pd.DataFrame) -> pd.Series:
    """Scores without an error."""
    live = predictions.set_index("sample_id")["label"] == "live"
    return live.map({True: 0.8, False: 0.3})


def test_the_models_own_scores_do_not_differ_from_it(predictions: pd.DataFrame) -> None:
    found = measured(predictions, of(predictions))
    tree = evaluate(predictions, PROTOCOL, CONFIG)
    assert set(found["slices"]) == {"target", "source_test", "domain:kiosk", "domain:office", "domain:street"}
    assert found["threshold"]["value"] == tree["threshold"]["value"]
    for name, figures in found["slices"].items():
        assert set(figures) == set(OF_BASELINES)
        for metric, entry in figures.items():
            assert entry["value"] == 0
            assert entry["interval"][0] < 0 < entry["interval"][1], "few people can't tell that nothing differs"
            assert entry["baseline"] == pytest.approx(tree["slices"][name][metric]["value"])
            assert entry["n_subjects"] > 1


def test_the_threshold_of_a_baseline_is_its_own_and_from_source_development_data(predictions: pd.DataFrame) -> None:
    perfect = truth(predictions)
    found = measured(predictions, perfect)
    assert 0.3 < found["threshold"]["value"] <= 0.8
    assert found["threshold"]["from"] == {"split": "dev", "domains": ["office", "street"]}
    target = found["slices"]["target"]
    own = evaluate(predictions, PROTOCOL, CONFIG)["slices"]["target"]
    assert target["hter"]["baseline"] == 0
    assert target["hter"]["value"] == pytest.approx(own["hter"]["value"])
    assert target["auc"]["value"] == pytest.approx(own["auc"]["value"] - 1)
    # Scores of test images move no threshold.
    test = set(predictions.loc[predictions["split"] == "test", "sample_id"])
    moved = perfect.where(~perfect.index.isin(test), 0.99)
    assert measured(predictions, moved)["threshold"]["value"] == found["threshold"]["value"]
    assert measured(predictions, moved)["slices"]["target"]["hter"]["baseline"] == 0.5, "all of them accepted"


def test_images_without_a_score_are_counted_and_left_out(predictions: pd.DataFrame) -> None:
    tests = predictions[(predictions["split"] == "test") & (predictions["domain"] == "kiosk")]
    gone = tests["sample_id"].iloc[::3]
    found = measured(predictions, of(predictions).drop(gone))
    assert found["coverage"]["test"]["missing"] == len(gone)
    assert found["coverage"]["dev"]["missing"] == 0
    assert found["slices"]["target"]["auc"]["n"] == len(tests) - len(gone)
    left = predictions[~predictions["sample_id"].isin(gone)]
    same = evaluate(left, PROTOCOL, CONFIG)["slices"]["target"]["auc"]["value"]
    assert found["slices"]["target"]["auc"]["baseline"] == pytest.approx(same), "the model on the same images"


def test_without_development_scores_there_is_no_threshold(predictions: pd.DataFrame) -> None:
    dev = predictions.loc[predictions["split"] == "dev", "sample_id"]
    found = measured(predictions, of(predictions).drop(dev))
    assert found["threshold"]["value"] is None
    assert "dev split" in found["threshold"]["reason"]
    assert found["slices"]["target"]["auc"]["value"] == 0
    for metric in set(OF_BASELINES) - {"auc"}:
        assert found["slices"]["target"][metric]["value"] is None
        assert "no threshold" in found["slices"]["target"][metric]["reason"]


def test_under_unit_track_a_track_counts_once(predictions: pd.DataFrame) -> None:
    frames = pd.concat([predictions, predictions.assign(sample_id=predictions["sample_id"] + "b")], ignore_index=True)
    config = CONFIG.model_copy(update={"unit": "track"})
    found, alone = measured(frames, of(frames), config), measured(predictions, of(predictions))
    assert found["slices"]["target"]["auc"]["n"] == alone["slices"]["target"]["auc"]["n"]
    assert found["slices"]["target"]["auc"]["baseline"] == alone["slices"]["target"]["auc"]["baseline"]


def test_data_that_nobody_released_is_in_no_figure(predictions: pd.DataFrame) -> None:
    # Rows in quarantine come with scores of a baseline, too.
    tested = (predictions["split"] == "test") & (predictions["domain"] == "office")
    held = predictions["subject_id"] == predictions.loc[tested, "subject_id"].iloc[0]
    changed = predictions.assign(status=predictions["status"].mask(held, "quarantined"))
    whole, less = (measured(one, of(one))["slices"]["source_test"]["auc"]["n"] for one in (predictions, changed))
    assert less == whole - int((held & (predictions["split"] == "test")).sum())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "can't be read as CSV"),
        ("sample_id,score\n", "has no rows"),
        ("sample_id,p\na,0.5\n", "has no column score (it has sample_id, p)"),
        ("id,p\na,0.5\n", "has no column sample_id and no column score"),
        ("sample_id,score\na,0.5\na,0.6\n", "1 images have more than one score: a"),
        ("sample_id,score\na,0.5\nb,1.5\n", "1 of 2 scores are no number from 0 to 1 (first: 1.5), of images b"),
        ("sample_id,score\na,nan\nb,0.5\n", "1 of 2 scores are no number from 0 to 1"),
        ("sample_id,score\na,inf\n", "no number from 0 to 1"),
        ("sample_id,score\na,high\n", "no number from 0 to 1 (first: high)"),
        ('sample_id,score\n"a,0.5\n', "can't be read as CSV"),
        ("sample_id,score\na,0.5,7,8\nb,1,2\n", "more fields than its header"),
    ],
)
def test_a_file_that_is_no_table_of_scores(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "s.csv"
    file.write_text(text)
    with pytest.raises(DataError) as caught:
        read_scores(file, "flip")
    assert words in caught.value.what
    assert caught.value.what.startswith("baseline flip")
    assert "sample_id and score" in caught.value.fix


def test_ids_stay_texts_and_other_columns_are_ignored(tmp_path: Path) -> None:
    file = tmp_path / "s.csv"
    file.write_text("score,who,sample_id\n1,x,007\n0.25,y,1e5\n")
    assert read_scores(file, "flip").to_dict() == {"007": 1.0, "1e5": 0.25}


def test_ids_of_no_image_are_named() -> None:
    scores = pd.Series([0.1, 0.2, 0.3], index=["a", "x", "y"])
    check_ids(scores, "flip", pd.Series(["a", "x", "y", "z"]))
    with pytest.raises(DataError, match="2 of 3 sample_ids are of no image of the dataset: x, y"):
        check_ids(scores, "flip", pd.Series(["a"]))


def test_coverage_counts_what_the_protocol_uses(predictions: pd.DataFrame) -> None:
    only = ProtocolConfig(source_domains=("office",), target_domains=("kiosk",))
    found = coverage(predictions, pd.Series(dtype="float64"), only)
    split, domain = predictions["split"], predictions["domain"]
    assert found["dev"]["n"] == found["dev"]["missing"] == int(((split == "dev") & (domain == "office")).sum())
    assert found["test"]["n"] == int(((split == "test") & (domain != "street")).sum())


def test_the_probe_takes_the_c_that_ranks_development_data_best() -> None:
    rng = np.random.default_rng(0)
    live, dev_live = np.arange(60) % 2 == 0, np.arange(40) % 2 == 0
    # One feature tells the classes, forty do not.
    made = [
        np.column_stack([rng.normal(which * 1.5, 1), rng.normal(size=(len(which), 40))]).astype(np.float32)
        for which in (live, dev_live)
    ]
    probe = fit(made[0], live, made[1], dev_live)
    alone = [fit(made[0], live, made[1], dev_live, [c]).dev_auc for c in (0.001, 0.01, 0.1, 1.0, 10.0)]
    assert probe.dev_auc == max(alone) > 0.7
    assert probe.c == (0.001, 0.01, 0.1, 1.0, 10.0)[int(np.argmax(alone))], "of equals, the strongest regularisation"
    gap = made[1].copy()
    gap[3] = np.nan
    assert np.flatnonzero(np.isnan(probe.scores(gap))).tolist() == [3]
    with pytest.raises(DataError, match="no bona fide or no attack"):
        fit(made[0], np.ones(60, dtype=bool), made[1], dev_live)
