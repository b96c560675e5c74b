"""The threshold comes from source development data alone; slices are complete and say what is missing."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from ifas.core.config import ProtocolConfig
from ifas.core.errors import ConfigError, DataError
from ifas.core.measures import FIXED_SLICES, MEASURES, SLICE_KINDS, check_slice
from ifas.evaluation import metrics
from ifas.evaluation.calibration import calibrated
from ifas.evaluation.predict import Predicted
from ifas.evaluation.protocol import evaluate
from ifas.evaluation.threshold import freeze
from tests.unit.evaluation.tiles import CONFIG, PROTOCOL, TRYING


def unexplained(predictions: pd.DataFrame) -> pd.DataFrame:
    return predictions.assign(explanation=None, spoof_type_named=None)


def test_threshold_is_frozen_on_source_development_data(predictions: pd.DataFrame) -> None:
    before = freeze(predictions, PROTOCOL, CONFIG)
    rng = np.random.default_rng(0)
    is_dev_source = (predictions["split"] == "dev") & predictions["domain"].isin(PROTOCOL.source_domains)
    changed = predictions.copy()
    for column in ("raw_score", "score"):
        changed.loc[~is_dev_source, column] = rng.random((~is_dev_source).sum())
    assert freeze(changed, PROTOCOL, CONFIG) == before
    changed, calibration = calibrated(changed, PROTOCOL, CONFIG)
    assert calibration == calibrated(predictions, PROTOCOL, CONFIG)[1]
    tree = evaluate(unexplained(changed), PROTOCOL, CONFIG)
    assert tree["threshold"]["value"] == before.value
    # ... and the target's figures do move, at that same threshold.
    was = evaluate(predictions, PROTOCOL, CONFIG)["slices"]["target"]["hter"]["value"]
    now = tree["slices"]["target"]["hter"]["value"]
    assert now != was
    rows = changed[(changed["split"] == "test") & (changed["domain"] == "kiosk")]
    assert now == pytest.approx(np.mean(metrics.error_rates(rows["score"], rows["label"] == "live", before.value)))


def test_threshold_follows_the_development_data(predictions: pd.DataFrame) -> None:
    dev = predictions[(predictions["split"] == "dev") & predictions["domain"].isin(PROTOCOL.source_domains)]
    live = dev["label"] == "live"
    threshold = freeze(predictions, PROTOCOL, CONFIG)
    assert threshold.value == metrics.eer(dev["score"], live).threshold
    assert (threshold.n_live, threshold.n_spoof) == (live.sum(), (~live).sum())
    strict = freeze(predictions, PROTOCOL, CONFIG.model_copy(update={"threshold": "apcer", "max_apcer": 0.0}))
    assert strict.value > dev["score"][~live].max()
    assert strict.far == 0


def test_every_measure_and_slice_is_there(trial: Predicted) -> None:
    predictions = trial.frame
    tree = evaluate(predictions, PROTOCOL, TRYING, trial.handled)
    json.dumps(tree, allow_nan=False)
    kinds = {name.partition(":")[0] for name in tree["slices"]} - set(FIXED_SLICES)
    assert kinds == set(SLICE_KINDS) - {"batch", "track"}  # nothing was added to this dataset, and it has no frames
    for name, figures in tree["slices"].items():
        check_slice(name)
        assert set(MEASURES) <= set(figures)
        for measure in MEASURES:
            if name == "handling:halved" and measure != "handled_non_response":  # gives no score
                continue
            if name.startswith("handling:") and measure.startswith("explanation_"):  # no image is explained twice
                continue
            if measure.startswith(("choice_", "open_")):  # no image was asked in other ways
                assert "evaluate.modes" in figures[measure]["reason"]
                continue
            assert figures[measure]["value"] is not None, (name, measure)
            assert figures[measure]["n"] > 0
    assert set(tree["slices"]) >= {"domain:office", "domain:street", "domain:kiosk", "device:unknown", "device:cam-a"}
    # One spoof type is measured against all bona fide.
    everything = tree["slices"]["spoof_type:print"]
    assert everything["n_live"] == (predictions["split"].eq("test") & predictions["label"].eq("live")).sum()
    assert list(everything["apcer"]) == ["print.a4"]


def test_figures_of_a_slice_by_another_way(predictions: pd.DataFrame) -> None:
    tree = evaluate(predictions, PROTOCOL, CONFIG)
    rows = predictions[(predictions["split"] == "test") & predictions["domain"].isin(PROTOCOL.source_domains)]
    live, accepted = rows["label"] == "live", rows["score"] >= tree["threshold"]["value"]
    figures = tree["slices"]["source_test"]
    assert figures["auc"]["value"] == pytest.approx(roc_auc_score(live, rows["score"]))
    assert figures["bpcer"]["errors"] == (live & ~accepted).sum()
    by_species = accepted[~live].groupby(rows["pai_species"][~live]).mean()
    assert {k: v["value"] for k, v in figures["apcer"].items()} == pytest.approx(by_species.to_dict())
    assert figures["apcer_max"]["value"] == by_species.max()
    assert figures["apcer_max"]["species"] in by_species[by_species == by_species.max()].index
    acer = (by_species.max() + figures["bpcer"]["value"]) / 2
    assert figures["acer_not_iso"]["value"] == pytest.approx(acer)
    low, high = figures["auc"]["interval"]
    assert low <= figures["auc"]["value"] <= high


def test_slice_without_attacks_is_null_with_a_reason(predictions: pd.DataFrame) -> None:
    keep = (predictions["domain"] != "kiosk") | (predictions["label"] == "live")
    target = evaluate(predictions[keep], PROTOCOL, CONFIG)["slices"]["target"]
    for name in ("auc", "eer", "hter", "hter_oracle_eer", "apcer_max", "acer_not_iso", "bpcer_at_apcer_5"):
        assert target[name]["value"] is None
        assert "attack" in target[name]["reason"]
    assert target["bpcer"]["value"] is not None


def test_target_without_test_rows_is_null(predictions: pd.DataFrame) -> None:
    keep = (predictions["domain"] != "kiosk") | (predictions["split"] == "dev")
    target = evaluate(predictions[keep], PROTOCOL, CONFIG)["slices"]["target"]
    assert target["n"] == 0
    assert all(target[name]["value"] is None for name in MEASURES)


@pytest.mark.parametrize("side", ["source_domains", "target_domains"])
def test_empty_protocol_is_a_config_error(predictions: pd.DataFrame, side: str) -> None:
    with pytest.raises(ConfigError, match=f"protocol.{side} is empty"):
        evaluate(predictions, PROTOCOL.model_copy(update={side: ()}), CONFIG)


def test_unknown_domain_lists_the_known_ones(predictions: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="moon") as caught:
        evaluate(predictions, ProtocolConfig(source_domains=("office", "moon"), target_domains=("kiosk",)), CONFIG)
    assert "kiosk, office, street" in caught.value.fix


@pytest.mark.parametrize(("label", "said"), [("live", "no bona fide"), ("spoof", "no attack")])
def test_missing_development_class_is_a_data_error(predictions: pd.DataFrame, label: str, said: str) -> None:
    drop = (predictions["split"] == "dev") & (predictions["label"] == label)
    with pytest.raises(DataError, match=said):
        evaluate(predictions[~drop], PROTOCOL, CONFIG)


def test_same_domain_on_both_sides_is_said(predictions: pd.DataFrame) -> None:
    both = ProtocolConfig(source_domains=("office",), target_domains=("office",))
    assert evaluate(unexplained(predictions), both, CONFIG)["protocol"]["cross_domain"] is False
    assert evaluate(predictions, PROTOCOL, CONFIG)["protocol"]["cross_domain"] is True


def test_explanations_of_another_threshold_are_refused(predictions: pd.DataFrame) -> None:
    strict = CONFIG.model_copy(update={"threshold": "apcer", "max_apcer": 0.0})
    with pytest.raises(DataError, match="verdicts of another threshold"):
        evaluate(predictions, PROTOCOL, strict)


def test_explanation_scores(predictions: pd.DataFrame) -> None:
    rows = predictions[(predictions["split"] == "test") & (predictions["domain"] == "kiosk")]
    caught = rows.index[(rows["label"] == "spoof") & ~rows["verdict"].astype(bool)]
    assert len(caught) >= 3
    before = evaluate(predictions, PROTOCOL, CONFIG)["slices"]["target"]
    assert before["explanation_agreement"]["value"] == 1
    assert before["explanation_medium"] == {**before["explanation_medium"], "value": 1.0, "n": len(caught)}
    predictions.loc[caught[0], ["explanation", "spoof_type_named"]] = ["A person in a newspaper kiosk.", ""]
    predictions.loc[caught[1], ["explanation", "spoof_type_named"]] = ["A dummy's head.", "mannequin"]
    after = evaluate(predictions, PROTOCOL, CONFIG)["slices"]["target"]
    # "newspaper" names no paper: contradicts the rejection. The dummy agrees, but is the wrong medium.
    assert after["explanation_agreement"]["hits"] == before["explanation_agreement"]["hits"] - 1
    assert after["explanation_medium"]["hits"] == len(caught) - 2
    assert after["explanation_contradictions"]["errors"] == before["explanation_contradictions"]["errors"] == 0


def test_a_text_must_not_contradict_its_answer(predictions: pd.DataFrame) -> None:
    """Another medium than the answer's, one more than the answer's, and any on an accepted image."""
    rows = predictions[(predictions["split"] == "test") & (predictions["domain"] == "kiosk")]
    caught, accepted = rows.index[~rows["verdict"].astype(bool)], rows.index[rows["verdict"].astype(bool)]
    named = predictions.loc[caught[:2], "spoof_type_named"].tolist()
    other = ["phone" if kind != "replay" else "mask" for kind in named]
    predictions.loc[caught[0], "explanation"] = f"It is a {other[0]}."
    predictions.loc[caught[1], "explanation"] += f" It is a {other[1]}."
    predictions.loc[accepted[0], "explanation"] = "A person with a phone."
    figure = evaluate(predictions, PROTOCOL, CONFIG)["slices"]["target"]["explanation_contradictions"]
    assert (figure["errors"], figure["n"]) == (3, len(rows))
    assert figure["value"] == pytest.approx(3 / len(rows))


def test_attacks_named_by_type(predictions: pd.DataFrame) -> None:
    """The table's counts give the shares; one answer for every attack is right for one type and fails the others."""
    target = evaluate(predictions, PROTOCOL, CONFIG)["slices"]["target"]
    table = target["attacks_named"]
    rows = predictions[(predictions["split"] == "test") & (predictions["domain"] == "kiosk")]
    assert {true: sum(table[true].values()) for true in table} == rows["spoof_type"].value_counts().to_dict()
    for kind, entry in target["explanation_medium_by_type"].items():
        rejected = sum(count for said, count in table[kind].items() if said != "live")
        assert (entry["hits"], entry["n"]) == (table[kind][kind], rejected)
    assert table["live"]["live"] == (rows["verdict"].astype(bool) & (rows["label"] == "live")).sum()
    attack = predictions["spoof_type_named"].notna() & (predictions["spoof_type_named"] != "live")
    predictions.loc[attack, ["spoof_type_named", "explanation"]] = ["replay", "It is a phone."]
    constant = evaluate(predictions, PROTOCOL, CONFIG)["slices"]
    shares = {kind: entry["value"] for kind, entry in constant["target"]["explanation_medium_by_type"].items()}
    assert shares == {kind: float(kind == "replay") for kind in shares}
    least = constant["target"]["explanation_medium_least"]
    assert (least["value"], least["spoof_type"] in shares) == (0, True)
    assert constant["spoof_type:replay"]["explanation_medium"]["value"] == 1
    assert constant["spoof_type:print"]["explanation_medium"]["value"] == 0
    common = constant["target"]["explanation_commonest"]
    assert common["errors"] == max((~rows["verdict"].astype(bool)).sum(), rows["verdict"].astype(bool).sum())
    assert common["n"] == len(rows)


def test_cues_claimed_against_cues_measured(predictions: pd.DataFrame) -> None:
    """Every rejected image's text claims a bright edge; specialists saw one on prints, and a pattern on replays."""
    target = evaluate(predictions, PROTOCOL, CONFIG)["slices"]["target"]
    rows = predictions[(predictions["split"] == "test") & (predictions["domain"] == "kiosk")]
    rejected, counts = ~rows["verdict"].astype(bool), rows["spoof_type"].value_counts()
    on_prints = int((rejected & (rows["spoof_type"] == "print")).sum())
    assert target["cues"] == {
        "margin": {"measured": counts["print"], "claimed": rejected.sum(), "both": on_prints},
        "pattern": {"measured": counts["replay"], "claimed": 0, "both": 0},
    }
    figure = target["explanation_cues_not_measured"]
    assert (figure["errors"], figure["n"]) == (rejected.sum() - on_prints, rejected.sum())
    # Without evidence nothing is known of a claim.
    unknown = evaluate(predictions.assign(cues_measured=None), PROTOCOL, CONFIG)["slices"]["target"]
    assert unknown["explanation_cues_not_measured"]["value"] is None
    assert unknown["cues"] == {}
    silent = evaluate(predictions.assign(cues_claimed="[]"), PROTOCOL, CONFIG)["slices"]["target"]
    assert silent["explanation_cues_not_measured"]["value"] == 0, "who claims nothing claims nothing wrong"


def test_of_equally_bad_species_the_one_with_fewer_pictures_is_the_worst(predictions: pd.DataFrame) -> None:
    attack = (predictions["split"] == "test") & (predictions["domain"] == "kiosk") & (predictions["label"] == "spoof")
    predictions.loc[attack, "raw_score"] = 1.0
    few = predictions.index[attack & (predictions["pai_species"] == "replay.phone")][1:]
    target = evaluate(unexplained(predictions.drop(few)), PROTOCOL, CONFIG)["slices"]["target"]
    assert target["apcer"]["print.a4"]["value"] == target["apcer_max"]["value"] == 1
    assert (target["apcer_max"]["species"], target["apcer_max"]["n"]) == ("replay.phone", 1)


def test_a_domain_outside_the_protocol_has_a_slice_of_its_own(predictions: pd.DataFrame) -> None:
    without = ProtocolConfig(source_domains=("office",), target_domains=("kiosk",))
    tree = evaluate(unexplained(predictions), without, CONFIG)
    street = int(((predictions["split"] == "test") & (predictions["domain"] == "street")).sum())
    assert tree["slices"]["domain:street"]["n"] == street > 0
    lit = [figures["n"] for name, figures in tree["slices"].items() if name.startswith("illumination:")]
    assert sum(lit) == tree["slices"]["source_test"]["n"] + tree["slices"]["target"]["n"]
