"""Algorithm 1 end to end on drawn faces: no leaks, deterministic results, bad pictures, clear errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn_faces import dataset, draw, png

from ifas.captioning.embedded import EmbeddedCaptioner
from ifas.captioning.scf import run_scf
from ifas.captioning.spoof_aware import SpoofAwareCaptioner
from ifas.core.config import CaptionConfig
from ifas.core.errors import ConfigError, CorruptShardError, DataError
from ifas.core.files import sha256_tree
from ifas.core.manifest import read_manifest

QUICK = CaptionConfig(imitate_steps=3, tune_steps=2)
#: Algorithm 1 as the paper prints it.
BARE = CaptionConfig(samples=1, balance=False, held_out=0, wrong_medium="keep", supported=False)


def test_same_inputs_same_bytes(tmp_path: Path) -> None:
    hashes = set()
    for name in ("a", "b"):
        manifest, images = dataset()
        run_scf(manifest, images, QUICK, source_domains=["near"], out=tmp_path / name)
        hashes.add(sha256_tree(tmp_path / name))
    assert len(hashes) == 1
    run_scf(*dataset(), QUICK.model_copy(update={"seed": 1}), source_domains=["near"], out=tmp_path / "c")
    assert sha256_tree(tmp_path / "c") not in hashes


def test_only_source_train_pictures_shape_the_captioner(tmp_path: Path) -> None:
    def tuned(change: int | None) -> str:
        manifest, images = dataset()
        if change is not None:
            images.files[change] = png(255 - draw("live", 99))
        run_scf(manifest, images, QUICK, source_domains=["near"], out=tmp_path / "out")
        return sha256_tree(tmp_path / "out" / "captioner")

    manifest, _ = dataset()
    where = {
        "test": manifest.index[(manifest["split"] == "test") & (manifest["label"] == "spoof")][0],
        "dev": manifest.index[manifest["split"] == "dev"][0],
        "train": manifest.index[(manifest["split"] == "train") & (manifest["label"] == "spoof")][0],
    }
    untouched = tuned(None)
    assert tuned(where["test"]) == untouched
    assert tuned(where["dev"]) == untouched
    assert tuned(where["train"]) != untouched


def test_bad_pictures_are_listed_and_the_run_goes_on(tmp_path: Path) -> None:
    manifest, images = dataset()
    images.files[0] = images.files[0][:60]
    images.files[9] = b"lost"
    images.files[17] = b"no picture"
    report = run_scf(manifest, images, QUICK, source_domains=[], out=tmp_path / "out")
    listed = report.facts["unreadable"]
    assert listed["count"] == 3
    assert [entry["sample_id"] for entry in listed["images"]] == [manifest["sample_id"][i] for i in (0, 9, 17)]
    assert all(entry["why"] for entry in listed["images"])
    captioned = read_manifest(tmp_path / "out", captioned=True)
    assert len(captioned) == len(manifest) - 3
    assert "3 images unreadable" in report.summary
    # The rows beside the bad ones kept their own pictures.
    clean = run_scf(*dataset(), QUICK, source_domains=[], out=tmp_path / "clean")
    whole = read_manifest(tmp_path / "clean", captioned=True).set_index("sample_id")
    assert (whole.loc[captioned["sample_id"], "caption_general"].tolist()) == captioned["caption_general"].tolist()
    assert clean.facts["unreadable"]["count"] == 0


def test_no_readable_picture_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    manifest, images = dataset()
    images.files[:] = [b"x"] * len(images.files)
    with pytest.raises(DataError, match="none of the 32 images"):
        run_scf(manifest, images, QUICK, source_domains=[], out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_corrupt_shard_ends_the_run(tmp_path: Path) -> None:
    class Corrupt:
        def read(self, shard: str, row: int) -> bytes:
            raise CorruptShardError("hash mismatch")

    with pytest.raises(CorruptShardError):
        run_scf(dataset()[0], Corrupt(), QUICK, source_domains=[], out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    manifest, images = dataset()
    with pytest.raises(DataError, match="width"):
        run_scf(manifest.drop(columns="width"), images, QUICK, source_domains=[], out=tmp_path / "out")


def test_an_unknown_source_domain_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)moon.*far, near"):
        run_scf(*dataset(), QUICK, source_domains=["moon"], out=tmp_path / "out")


def test_nothing_kept_is_an_error(tmp_path: Path) -> None:
    manifest, images = dataset()
    # Attack pictures without any cue: what the camera saw were plain faces.
    images.files[:] = [png(draw("live", i)) for i in range(len(images.files))]
    with pytest.raises(DataError, match="no general caption names the right medium: 0 of"):
        run_scf(manifest, images, BARE, source_domains=["near"], out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_types_without_kept_captions_are_named(tmp_path: Path) -> None:
    manifest, images = dataset()
    masks = np.flatnonzero(manifest["spoof_type"] == "mask")
    for i in masks:
        images.files[i] = png(draw("live", int(i)))
    report = run_scf(manifest, images, BARE, source_domains=[], out=tmp_path / "out")
    assert report.facts["types_without_kept_captions"] == ["mask"]
    assert "no kept caption of mask" in report.summary


def test_a_folder_without_a_captioner_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no usable captioner"):
        SpoofAwareCaptioner.load(tmp_path)


def test_captioning_nothing_gives_nothing() -> None:
    assert EmbeddedCaptioner().caption([]) == []
