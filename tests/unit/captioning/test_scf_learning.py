"""What Algorithm 1 gains over a careless general captioner, on drawn faces: really trained, so slower than the rest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn_faces import dataset

from ifas.captioning import captioners
from ifas.captioning.embedded import EmbeddedCaptioner
from ifas.captioning.kept import Kept
from ifas.captioning.measure import Measured, measure
from ifas.captioning.pictures import Pictures
from ifas.captioning.protocol import Caption
from ifas.captioning.scf import CaptionReport, run_scf
from ifas.captioning.specialists import specialists
from ifas.captioning.spoof_aware import SpoofAwareCaptioner, imitation
from ifas.captioning.view import Box
from ifas.core.claims import sure_of
from ifas.core.config import CaptionConfig
from ifas.core.imaging import decode
from ifas.core.manifest import CAPTION_COLUMNS, COLUMNS, read_manifest
from ifas.core.taxonomy import media_named

pytestmark = pytest.mark.slow

MEDIA = ("It looks like a sheet of paper.", "It looks like a screen.", "It looks like a mask.")


class SlipshodCaptioner:
    """The embedded captioner, but one caption in three ends with a medium chosen by chance."""

    name = "slipshod"

    def caption(self, pictures: Sequence[Measured]) -> list[Caption]:
        said = EmbeddedCaptioner().caption(pictures)
        return [self._slip(c, one.picture) for c, one in zip(said, pictures, strict=True)]

    def sample(self, pictures: Sequence[Measured], count: int, config: CaptionConfig) -> list[list[str]]:
        return EmbeddedCaptioner().sample(pictures, count, config)

    def tune(self, pictures: Pictures, kept: Kept, config: CaptionConfig):  # type: ignore[no-untyped-def]
        return imitation(pictures, kept, config)

    def _slip(self, caption: Caption, image: np.ndarray) -> Caption:
        dice = hashlib.sha256(image.tobytes()).digest()
        if dice[0] % 3:
            return caption
        honest = " ".join(s for s in caption.text.split(". ") if not media_named(s))
        return dataclasses.replace(caption, text=f"{honest.rstrip('.')}. {MEDIA[dice[1] % 3]}")


@pytest.fixture(scope="module")
def slipshod(tmp_path_factory: pytest.TempPathFactory) -> tuple[CaptionReport, pd.DataFrame, Path]:
    manifest, images = dataset(per_kind=24, faint=0.0)
    out = tmp_path_factory.mktemp("scf") / "captions"
    config = CaptionConfig(captioner="slipshod")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(captioners.CAPTIONERS, "slipshod", lambda _config: SlipshodCaptioner())
        report = run_scf(manifest, images, config, source_domains=["near"], out=out)
    return report, read_manifest(out, captioned=True), out


def test_the_network_learns(slipshod: tuple[CaptionReport, pd.DataFrame, Path]) -> None:
    loss = slipshod[0].facts["loss"]
    assert loss["imitate"]["last"] < 0.8 * loss["imitate"]["first"]
    assert loss["tune"]["last"] < 0.5 * loss["tune"]["first"]
    # It stops where other people's kept captions are likeliest.
    assert loss["held out"]["lowest"] < 0.7 * loss["held out"]["first"]
    assert loss["tune"]["steps"] <= loss["held out"]["steps"] == CaptionConfig().tune_steps


def test_filtering_and_tuning_raise_keyword_precision(slipshod: tuple[CaptionReport, pd.DataFrame, Path]) -> None:
    report, captioned, _ = slipshod
    for group in ("all", "split=test"):
        before, after = (report.facts["keywords"][group][when] for when in ("before", "tuned"))
        assert before["precision"] < 0.9
        assert after["precision"] > before["precision"] + 0.05
        assert after["right_share"] > before["right_share"]
    unseen = report.facts["keywords_unseen"]["all"]
    assert unseen["tuned"]["right_share"] > unseen["before"]["right_share"]
    # Not a copy of the general captions.
    attacks = captioned[captioned["label"] == "spoof"]
    assert (attacks["caption"] != attacks["caption_general"]).mean() > 0.3


def test_the_captioned_manifest(slipshod: tuple[CaptionReport, pd.DataFrame, Path]) -> None:
    report, captioned, out = slipshod
    assert list(captioned.columns) == [c.name for c in COLUMNS + CAPTION_COLUMNS]
    live = captioned["label"] == "live"
    assert set(captioned.loc[live, "caption_source"]) == {"general"}
    assert set(captioned.loc[~live, "caption_source"]) == {"spoof-aware"}
    assert not captioned.loc[live, "caption_kept"].any()
    assert not any(media_named(text) for text in captioned.loc[live, "caption"])
    # The captioner slipped on some live pictures too; the record says so and the raw text is kept.
    slips = sum(bool(media_named(text)) for text in captioned.loc[live, "caption_general"])
    assert report.facts["bona_fide_captions_cut"] == slips > 0
    assert report.facts["contradictions"] == 0
    for text, kind in zip(captioned["caption"], captioned["spoof_type"], strict=True):
        assert not set(media_named(text)) - {kind}
    assert captioned["caption"].str.len().gt(10).all()
    assert json.loads(captioned["evidence"].iloc[0])["wave_peak"] > 0
    for evidence, clauses in zip(captioned["evidence"], captioned["clauses"], strict=True):
        sure = sure_of(evidence)
        assert set(sure) == set(specialists())
        assert all(sure[one["specialist"]] == one["confidence"] for one in json.loads(clauses))
    assert json.loads((out / "stats.json").read_text()) == report.facts


def test_counts_add_up(slipshod: tuple[CaptionReport, pd.DataFrame, Path]) -> None:
    report, captioned, _ = slipshod
    facts = report.facts
    tuning = captioned[(captioned["split"] == "train") & (captioned["domain"] == "near")]
    attacks = tuning[tuning["label"] == "spoof"]
    assert facts["tuning_images"] == len(tuning)
    assert facts["kept"] == attacks["caption_kept"].sum() == sum(facts["kept_by_type"].values())
    assert facts["kept"] + facts["dropped"] == len(attacks)
    assert facts["kept"] > 0.7 * len(attacks)
    assert facts["kept_pairs"] > facts["kept"]
    assert facts["recaptioned"] == (captioned["label"] == "spoof").sum() == 72
    assert f"{facts['kept']} kept" in report.summary


def test_the_saved_captioner_writes_the_same_captions(slipshod: tuple[CaptionReport, pd.DataFrame, Path]) -> None:
    _, captioned, out = slipshod
    captioner = SpoofAwareCaptioner.load(out / "captioner")
    rows = captioned[captioned["spoof_type"] == "replay"].iloc[:4]
    _, images = dataset(per_kind=24, faint=0.0)
    pictures = [decode(images.read(s, r)) for s, r in zip(rows["shard"], rows["row"], strict=True)]
    boxes: list[Box] = [None if b is None else tuple(b) for b in rows["face_box"]]  # type: ignore[misc]
    features = np.stack([measure(p, b).features for p, b in zip(pictures, boxes, strict=True)])
    assert captioner.rewrite(rows["caption_general"].tolist(), features) == rows["caption_tuned"].tolist()
    assert captioner.layer.weights.size < 1_000
