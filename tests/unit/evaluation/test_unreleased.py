"""Quarantined batches and canaries are evaluated at once, and move no figure of the protocol."""

import pandas as pd

from ifas.core.measures import check_slice
from ifas.evaluation.predict import predict
from ifas.evaluation.protocol import evaluate
from tests.unit.evaluation.tiles import CONFIG, PROTOCOL, BrightnessJudge, Pictures


def with_batch(manifest: pd.DataFrame, status: str) -> pd.DataFrame:
    """Attacks of the test split again, as rows of a batch in the train split."""
    extra = manifest[(manifest["split"] == "test") & (manifest["label"] == "spoof")].head(5)
    ids = [f"{i:064x}" for i in range(len(extra))]
    extra = extra.assign(sample_id=ids, split="train", batch="red-team.001", status=status)
    return pd.concat([manifest, extra], ignore_index=True)


def test_evaluated_at_once_and_apart(dataset: tuple[pd.DataFrame, Pictures]) -> None:
    manifest, pictures = dataset
    plain = evaluate(predict(BrightnessJudge(), manifest, pictures, PROTOCOL, CONFIG).frame, PROTOCOL, CONFIG)
    for status in ("quarantined", "canary"):
        predicted = predict(BrightnessJudge(), with_batch(manifest, status), pictures, PROTOCOL, CONFIG).frame
        assert predicted.loc[predicted["batch"].notna(), "explanation"].notna().all()
        tree = evaluate(predicted, PROTOCOL, CONFIG)
        batch = tree["slices"].pop("batch:red-team.001")
        check_slice("batch:red-team.001")
        assert (batch["n"], batch["n_spoof"]) == (5, 5)
        assert batch["apcer_max"]["n"] > 0
        assert "no bona fide" in batch["auc"]["reason"]
        assert tree["data"][f"n_{status}"] == 5
        for changed in (tree, plain):
            changed["data"] = {k: v for k, v in changed["data"].items() if k not in ("n_quarantined", "n_canary")}
        assert tree["slices"] == plain["slices"]
        assert tree["threshold"] == plain["threshold"]
        assert tree["data"]["test_samples_sha256"] == plain["data"]["test_samples_sha256"]


def test_unreleased_development_data_sets_no_threshold(dataset: tuple[pd.DataFrame, Pictures]) -> None:
    manifest, pictures = dataset
    plain = predict(BrightnessJudge(), manifest, pictures, PROTOCOL, CONFIG).frame
    swayed = with_batch(manifest, "quarantined").assign(split=lambda f: f["split"].where(f["batch"].isna(), "dev"))
    frame = predict(BrightnessJudge(), swayed, pictures, PROTOCOL, CONFIG).frame
    before, after = (evaluate(f, PROTOCOL, CONFIG)["threshold"] for f in (plain, frame))
    assert before == after
