"""The demo world does not give its attacks away by trivial cues, and the probe that says so can tell."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from ifas.core.errors import DataError
from ifas.data.pack import pack
from ifas.simulator import contact_sheet, make_demo
from ifas.simulator.leak_probe import BAR, COLUMNS, CUES, cues, leaks
from tests.unit.data.test_dvc_yaml import RENEW, UP_TO_DATE, clone, dvc


def _noise(n: int, seed: int) -> tuple[np.ndarray, list[str], list[str]]:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, len(COLUMNS))).astype(np.float32)
    species = ["live" if k % 2 else "print.flat" for k in range(n)]
    return values, species, [f"s{k // 4}" for k in range(n)]


def test_probe_finds_a_planted_leak_in_its_cue_and_nothing_in_noise() -> None:
    values, species, subjects = _noise(160, 1)
    clean = leaks(values, species, subjects)
    assert [(p.species, p.cues) for p in clean] == [("print.flat", "all")]
    assert clean[0].auc < 0.65
    attack = np.array([s != "live" for s in species])
    values[attack, COLUMNS.index("bytes")] += 2.5
    found = {p.cues: p for p in leaks(values, species, subjects, single=True)}
    assert set(found) == {"all", *CUES}
    assert found["all"].auc > 0.85
    assert found["jpeg"].low > BAR
    assert max(p.auc for cue, p in found.items() if cue not in ("all", "jpeg")) < 0.65
    assert all(p.low <= p.auc <= p.high for p in found.values())


def test_probe_does_not_score_subjects_it_was_fitted_on() -> None:
    """A cue that names the subject must not help: each subject is either bona fide or attack here."""
    rng = np.random.default_rng(2)
    place = rng.normal(size=40)
    values = np.zeros((160, len(COLUMNS)), np.float32)
    values[:, 0] = np.repeat(place, 4)
    species = ["live" if k // 4 % 2 else "print.flat" for k in range(160)]
    assert leaks(values, species, [f"s{k // 4}" for k in range(160)])[0].auc < 0.7


def test_cues_see_what_they_are_called_after() -> None:
    grey = np.full((64, 64, 3), 100, np.uint8)
    noisy = np.clip(grey + np.random.default_rng(0).normal(0, 20, grey.shape), 0, 255).astype(np.uint8)
    framed = grey.copy()
    framed[:10], framed[-10:], framed[:, :10], framed[:, -10:] = 0, 0, 0, 0

    def of(image: np.ndarray) -> dict[str, float]:
        jpeg = cv2.imencode(".jpg", image)[1].tobytes()
        return dict(zip(COLUMNS, cues(jpeg, (1, 2, 3, 4)).tolist(), strict=True))

    flat, rough, bordered = of(grey), of(noisy), of(framed)
    assert (flat["width"], flat["x"], flat["h"]) == (64, 1, 4)
    assert abs(flat["mean"] - 100) < 1.5
    assert rough["laplacian"] > flat["laplacian"]
    assert rough["bytes"] > flat["bytes"]
    assert rough["spread"] > flat["spread"]
    assert bordered["border_mean"] < 10 < flat["border_mean"]
    with pytest.raises(DataError, match="not a picture"):
        cues(b"nothing", (0, 0, 1, 1))
    values, species, subjects = _noise(6, 3)
    with pytest.raises(DataError, match="too few"):
        leaks(values, species, subjects)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo data set itself, as `ifas demo` and dvc.yaml make it."""
    folder = tmp_path_factory.mktemp("world") / "demo"
    make_demo(folder, workers=2)
    return folder


@pytest.mark.slow
def test_world_does_not_leak(world: Path, tmp_path: Path) -> None:
    """At most 0.75 for every species, on all cues together."""
    folder = world
    records = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    contact_sheet(folder, tmp_path / "contact_sheet.jpg")
    assert cv2.imread(str(tmp_path / "contact_sheet.jpg")).shape[1] == 12 * 256
    assert len(records) <= 380
    assert len({r["domain"] for r in records}) >= 4
    species = Counter(r["pai_species"] for r in records)
    assert set(species) == {"live", "print.flat", "print.bent", "replay.phone", "replay.tablet", "mask.rigid3d"}
    values = np.stack([cues((folder / r["path"]).read_bytes(), r["face_box"]) for r in records])
    found = leaks(values, [r["pai_species"] for r in records], [r["subject_id"] for r in records])
    leaking = {p.species: f"{p.auc:.2f} ({p.low:.2f} to {p.high:.2f})" for p in found if p.auc > BAR}
    assert not leaking, leaking

    # Attacks must stay visible to whoever looks: about half of the media show their edge or their pixels.
    seen = [r["attack"]["visible"] for r in records if r["spoof_type"] in ("print", "replay")]
    assert 0.3 < np.mean([v["border"] > 0.2 for v in seen]) < 0.8
    assert 0.3 < np.mean([v["pattern"] > 0.01 for v in seen]) < 0.8
    assert 0.1 < np.mean([v["holder"] is not None for v in seen]) < 0.5
    replays = [r["attack"]["visible"] for r in records if r["spoof_type"] == "replay"]
    assert 0.1 < np.mean([v["screen_text"] for v in replays]) < 0.6


@pytest.mark.slow
def test_dvc_says_up_to_date_where_the_outputs_are_there(world: Path, tmp_path: Path) -> None:
    """The real `dvc repro` in a copy of the working tree. Other processors render other bytes, so the outputs are
    committed first; what the stages depend on is the same on every machine."""
    here = clone(tmp_path)
    lock = yaml.safe_load((here / "dvc.lock").read_text())["stages"]
    shutil.copytree(world, here / "data/raw/demo")
    pack("folder", here / "data/raw/demo", here / "data/packed/demo", name="demo")
    dvc(here, "commit", "--force", "--quiet")
    assert UP_TO_DATE in dvc(here, "repro")
    found = yaml.safe_load((here / "dvc.lock").read_text())["stages"]
    for stage in found:
        now, then = ([d for d in s[stage]["deps"] if d["path"] != "data/raw/demo"] for s in (found, lock))
        assert now == then, RENEW
    # And an output that someone edits is made again, not passed over.
    (here / "data/packed/demo/dataset.json").write_text("{}")
    assert "Running stage 'pack'" in dvc(here, "repro", "--dry")
