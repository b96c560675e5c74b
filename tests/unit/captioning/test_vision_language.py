"""Captioners of transformers: real models with random weights, loaded from a folder as a user would."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_faces import dataset, draw
from safetensors.torch import load_file, save_file
from tiny_vlm import MODELS

from ifas.captioning.captioners import general_captioner
from ifas.captioning.measure import measure
from ifas.captioning.scf import run_scf
from ifas.captioning.vision_language import Examples, VisionLanguageCaptioner
from ifas.core.config import CaptionConfig
from ifas.core.errors import ConfigError, DataError
from ifas.core.files import sha256_tree
from ifas.core.manifest import read_manifest

pytestmark = pytest.mark.slow

TEXTS = {
    "print": "It looks like a photo printed on paper.",
    "replay": "It looks like a photo of a screen.",
    "mask": "It looks like a mask.",
}


@pytest.fixture(scope="module", params=sorted(MODELS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MODELS[request.param](tmp_path_factory.mktemp(request.param) / "model")


def settings(folder: Path, **changes: object) -> CaptionConfig:
    wanted = {
        "captioner": "transformers",
        "model": str(folder),
        "device": "cpu",
        "max_new_tokens": 10,
        "tune_steps": 30,
    }
    return CaptionConfig(**{**wanted, "images_at_once": 6, "lora_lr": 1e-2, **changes})  # type: ignore[arg-type]


def pictures(n: int = 7) -> list[np.ndarray]:
    return [draw(("live", "print", "replay", "mask")[i % 4], i) for i in range(n)]


def said(captioner: VisionLanguageCaptioner, images: list[np.ndarray]) -> list[str]:
    return captioner.say(images)


def test_captions_do_not_depend_on_the_batch(folder: Path) -> None:
    images = pictures()
    captioner = general_captioner(settings(folder))
    assert isinstance(captioner, VisionLanguageCaptioner)
    together = said(captioner, images)
    assert len(together) == len(images)
    assert together == [said(captioner, [image])[0] for image in images]
    assert together == said(captioner, images[::-1])[::-1]
    assert together == said(general_captioner(settings(folder, images_at_once=2)), images)  # type: ignore[arg-type]
    assert all(text.endswith((".", "!", "?")) and "<" not in text for text in together)
    assert captioner.say([]) == []


def test_draws_vary_and_depend_on_the_picture_alone(folder: Path) -> None:
    config = settings(folder, temperature=2.0)
    captioner = VisionLanguageCaptioner.load(config)
    measured = [measure(image) for image in pictures(3)]
    drawn = captioner.sample(measured, 4, config)
    assert [len(texts) for texts in drawn] == [4, 4, 4]
    assert len({text for texts in drawn for text in texts}) > 3
    assert captioner.sample(measured[::-1], 4, config) == drawn[::-1]
    assert captioner.sample(measured[:1], 4, config.model_copy(update={"seed": 1})) != drawn[:1]


def test_lora_learns_the_captions_and_comes_back_from_its_adapter(folder: Path, tmp_path: Path) -> None:
    kinds = ["print", "replay", "mask"] * 4
    images = [draw(kind, i) for i, kind in enumerate(kinds)]
    texts = [TEXTS[kind] for kind in kinds]
    captioner = VisionLanguageCaptioner.load(settings(folder))
    base = {k: v.clone() for k, v in captioner.model.state_dict().items()}
    examples = Examples(images.__getitem__, texts, np.ones(len(texts)))
    losses, _ = captioner.learn(examples, seed=1)
    assert len(losses) == 30
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:3])
    # The base weights are as they were: only the adapter was trained.
    now = captioner.model.state_dict()
    for name, tensor in base.items():
        layer, _, kind = name.rpartition(".")
        assert torch.equal(tensor, now[name if name in now else f"{layer}.base_layer.{kind}"]), name
    after = said(captioner, images[:5])
    captioner.save(tmp_path / "tuned")
    assert sorted(p.name for p in (tmp_path / "tuned").iterdir()) == ["adapter.safetensors", "captioner.json"]
    assert said(VisionLanguageCaptioner.load_tuned(tmp_path / "tuned"), images[:5]) == after
    again = VisionLanguageCaptioner.load(settings(folder))
    held = Examples(images.__getitem__, texts[:3], np.ones(3))
    same, held_out = again.learn(examples, seed=1, held=held)
    assert same == losses
    # The adapter is the one of the look with the lowest loss on held-out pairs.
    assert len(held_out) == 10
    assert again._held_out(held) == pytest.approx(min(held_out), rel=1e-4)


def test_scf_with_a_vision_language_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Algorithm 1 with a real model. Its weights are random, so its captions are replaced by given ones."""
    folder = MODELS["blip"](tmp_path / "model")
    manifest, images = dataset()
    manifest.loc[manifest.index[3], "status"] = "canary"
    told = {
        png: TEXTS.get(kind, "A young woman, he smiles.")
        for png, kind in zip(images.files, manifest["spoof_type"], strict=True)
    }
    by_pixels: dict[bytes, str] = {}

    from ifas.captioning import scf
    from ifas.core.imaging import decode

    for data, text in told.items():
        by_pixels[decode(data).tobytes()] = text
    real = VisionLanguageCaptioner.say
    tuned: list[int] = []

    def say(self: VisionLanguageCaptioner, pictures: list, temperature: float | None = None) -> list[str]:
        return real(self, pictures) if tuned else [by_pixels[p.tobytes()] for p in pictures]

    really_learn = VisionLanguageCaptioner.learn

    def learn(self: VisionLanguageCaptioner, examples: Examples, seed: int, held=None, progress=None):
        tuned.append(len(examples.texts) + (0 if held is None else len(held.texts)))
        return really_learn(self, examples, seed, held, progress)

    monkeypatch.setattr(VisionLanguageCaptioner, "say", say)
    monkeypatch.setattr(VisionLanguageCaptioner, "learn", learn)
    config = settings(folder, tune_steps=80)
    report = scf.run_scf(manifest, images, config, source_domains=["near"], out=tmp_path / "out")
    rows = read_manifest(tmp_path / "out", captioned=True)
    mine = (rows["split"] == "train") & (rows["domain"] == "near") & (rows["label"] == "spoof")
    assert tuned == [int((mine & (rows["status"] == "released")).sum())]
    live = rows[rows["label"] == "live"]
    assert live["caption"].str.startswith("A person, the person smiles.").all()
    attacks = rows[rows["label"] == "spoof"]
    assert attacks["caption_tuned"].str.contains("looks like").mean() > 0.6, attacks["caption_tuned"].unique()
    assert report.facts["captioner"] == "transformers"
    assert VisionLanguageCaptioner.load_tuned(tmp_path / "out" / "captioner")


def test_a_weight_that_the_folder_lacks_is_not_left_random(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "m")
    file = tmp_path / "m" / "model.safetensors"
    weights = load_file(file)
    gone = max(weights, key=len)
    del weights[gone]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match="weights are missing"):
        general_captioner(settings(tmp_path / "m"))


def test_unsuitable_models_are_named(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    with pytest.raises(ConfigError, match=r"caption\.model is empty"):
        general_captioner(CaptionConfig(captioner="transformers"))
    with pytest.raises(ConfigError, match="does not exist"):
        general_captioner(settings(tmp_path / "nowhere"))
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ConfigError, match="pickled weights are not loaded"):
        general_captioner(settings(tmp_path / "pickled"))
    LlamaForCausalLM(LlamaConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
                                 vocab_size=50)).save_pretrained(tmp_path / "text")  # fmt: skip
    with pytest.raises(ConfigError, match="can't be loaded"):
        general_captioner(settings(tmp_path / "text"))
    with pytest.raises(DataError, match="no usable captioner"):
        VisionLanguageCaptioner.load_tuned(tmp_path)


def test_the_manifest_is_the_same_again(tmp_path: Path) -> None:
    """The path without a vision-language model: canaries and quarantined rows never tune."""
    quick = CaptionConfig(imitate_steps=3, tune_steps=2)
    hashes = {}
    for status in ("released", "quarantined", "canary"):
        manifest, images = dataset()
        some = manifest.index[(manifest["split"] == "train") & (manifest["label"] == "spoof")][::3]
        manifest.loc[some, "status"] = status
        run_scf(manifest, images, quick, source_domains=["near"], out=tmp_path / status)
        hashes[status] = sha256_tree(tmp_path / status / "captioner")
        assert len(read_manifest(tmp_path / status, captioned=True)) == len(manifest)
    assert hashes["quarantined"] == hashes["canary"] != hashes["released"]
