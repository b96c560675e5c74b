"""A new captioner is one class and one line: Algorithm 1 runs with it as with our own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from drawn_faces import dataset

from ifas.captioning import captioners
from ifas.captioning.kept import Kept
from ifas.captioning.measure import MEASUREMENTS, Measured
from ifas.captioning.pictures import Pictures
from ifas.captioning.protocol import Caption
from ifas.captioning.scf import run_scf
from ifas.captioning.spoof_aware import SpoofAwareCaptioner, imitation
from ifas.core.config import CaptionConfig
from ifas.core.manifest import read_manifest
from ifas.core.taxonomy import media_named

SAID = {"bright_border": "The rim of a sheet of paper.", "dark_border": "The rim of a screen.", "": "A face."}


class RimCaptioner:
    """Names the medium whose rim is likely; C_S says of a picture what was said of the most similar kept one."""

    name = "rim"

    def caption(self, pictures: Sequence[Measured]) -> list[Caption]:
        return [self._one(picture.values) for picture in pictures]

    def _one(self, values: dict[str, float]) -> Caption:
        likeliest = max(("bright_border", "dark_border"), key=lambda name: values[name])
        return Caption(SAID[likeliest if values[likeliest] > 0.6 else ""], {"rim": values[likeliest]})

    def sample(self, pictures: Sequence[Measured], count: int, config: CaptionConfig) -> list[list[str]]:
        return [[caption.text] for caption in self.caption(pictures)]

    def tune(self, pictures: Pictures, kept: Kept, config: CaptionConfig):  # type: ignore[no-untyped-def]
        self.tuned_on = (len(pictures), list(kept.texts))
        return Similar(pictures.take(kept.places).features, list(kept.texts)), {"search": [1.0, 0.5]}


class Similar:
    def __init__(self, features: np.ndarray, texts: list[str]) -> None:
        self.features, self.texts = features, texts

    def write(self, pictures: Pictures) -> list[str]:
        distance = np.abs(pictures.features[:, None] - self.features[None]).sum(-1)
        light = pictures.features[:, MEASUREMENTS.index("brightness")]
        return [
            f"{self.texts[i]} Its light is {level:.3f}." for i, level in zip(distance.argmin(1), light, strict=True)
        ]

    def save(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "kept.json").write_text(json.dumps(self.texts))


class ImitatedRimCaptioner(RimCaptioner):
    """The same captioner without weights of its own."""

    def tune(self, pictures: Pictures, kept: Kept, config: CaptionConfig):  # type: ignore[no-untyped-def]
        return imitation(pictures, kept, config)


def config(name: str) -> CaptionConfig:
    return CaptionConfig(captioner=name, specialists=False)


def test_a_captioner_with_a_tuning_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = RimCaptioner()
    monkeypatch.setitem(captioners.CAPTIONERS, "rim", lambda _config: mine)
    report = run_scf(*dataset(per_kind=4), config("rim"), source_domains=["near"], out=tmp_path / "out")
    rows = read_manifest(tmp_path / "out", captioned=True)
    attack = rows["label"] == "spoof"
    tuning = (rows["split"] == "train") & (rows["domain"] == "near")
    # General captions and their evidence are its own; the filter keeps those that name the right medium.
    assert set(rows["caption_general"]) == set(SAID.values())
    assert all("rim" in json.loads(evidence) for evidence in rows["evidence"])
    named = [kind in media_named(said) for kind, said in zip(rows["spoof_type"], rows["caption_general"], strict=True)]
    assert rows["caption_kept"].tolist() == (attack & np.array(named)).tolist()
    # It tunes itself on the train split of the source domain, and learns the kept captions only.
    kept = rows.loc[tuning & rows["caption_kept"], "caption_general"].tolist()
    assert mine.tuned_on == (int(tuning.sum()), kept)
    assert 0 < len(kept) < int((tuning & attack).sum())
    # All attacks are captioned again, by what it was tuned to; bona fide pictures are not.
    light = [json.loads(evidence)["brightness"] for evidence in rows["evidence"]]
    for caption, level in zip(rows.loc[attack, "caption_tuned"], np.array(light)[attack], strict=True):
        assert float(caption.rstrip(".").rpartition(" ")[2]) == pytest.approx(level, abs=1e-3)
    # A picture that was learned is most similar to itself.
    known = rows[tuning & rows["caption_kept"]]
    assert [caption.partition(" Its light")[0] for caption in known["caption_tuned"]] == known[
        "caption_general"
    ].tolist()
    assert rows.loc[~attack, "caption"].tolist() == rows.loc[~attack, "caption_general"].tolist()
    assert json.loads((tmp_path / "out" / "captioner" / "kept.json").read_text()) == kept
    assert report.facts["captioner"] == "rim"
    assert report.facts["loss"] == {"search": {"first": 1.0, "last": 0.5, "lowest": 0.5, "steps": 2}}
    # What it says of attacks passes the filter before the model learns it.
    assert rows["caption_tuned"].isna().tolist() == (~attack).tolist()
    wrong = [
        bool(set(media_named(text)) - {kind}) for text, kind in zip(rows["caption"], rows["spoof_type"], strict=True)
    ]
    assert not any(wrong)


def test_the_papers_bare_form_changes_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = RimCaptioner()
    monkeypatch.setitem(captioners.CAPTIONERS, "rim", lambda _config: mine)
    monkeypatch.setattr(mine, "sample", None)  # with one caption of each attack, none is drawn
    bare = {"samples": 1, "balance": False, "held_out": 0.0, "wrong_medium": "keep", "supported": False}
    run_scf(*dataset(per_kind=4), config("rim").model_copy(update=bare), source_domains=["near"], out=tmp_path / "out")
    rows = read_manifest(tmp_path / "out", captioned=True)
    attack = rows["label"] == "spoof"
    assert rows.loc[attack, "caption"].tolist() == rows.loc[attack, "caption_tuned"].tolist()
    assert rows.loc[~attack, "caption"].tolist() == rows.loc[~attack, "caption_general"].tolist()
    wrong = [
        bool(set(media_named(text)) - {kind}) for text, kind in zip(rows["caption"], rows["spoof_type"], strict=True)
    ]
    assert any(wrong)  # which is why it is not the default


def test_a_captioner_that_is_imitated_by_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(captioners.CAPTIONERS, "imitated", lambda _config: ImitatedRimCaptioner())
    report = run_scf(*dataset(per_kind=4), config("imitated"), source_domains=["near"], out=tmp_path / "out")
    assert {"imitate", "tune"} <= set(report.facts["loss"])
    rows = read_manifest(tmp_path / "out", captioned=True)
    assert set(rows["caption_general"]) == set(SAID.values())
    # The ways to name a medium are those of its own kept captions.
    learned = SpoofAwareCaptioner.load(tmp_path / "out" / "captioner").phrases
    assert {way for ways in learned.values() for way in ways} <= set(SAID.values())
    # It names no medium that no kept caption names.
    tuned = rows[rows["label"] == "spoof"].set_index("spoof_type")["caption_tuned"]
    assert set(learned) == {"print", "replay"}
    assert tuned[["print", "replay"]].str.contains("rim of").mean() > 0.8
