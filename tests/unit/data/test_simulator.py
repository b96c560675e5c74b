"""The capture simulator: plan, determinism, ground truth, staged portraits, and folders that are whole or absent."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifas.core.errors import ConfigError, DataError
from ifas.core.taxonomy import spoof_type_of
from ifas.data.simulator import make_demo
from ifas.data.simulator.plan import KINDS, make_plan, thin_out

SOURCES, TARGETS = ("office", "street"), ("kiosk",)


def records_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Part of the smallest data set: every kind, several domains, two threads."""
    out = tmp_path_factory.mktemp("demo") / "demo"
    make_demo(out, subjects=6, workers=2, limit=12)
    return out


@given(subjects=st.integers(6, 80), seed=st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_plan_is_subject_disjoint_and_full(subjects: int, seed: int) -> None:
    jobs = make_plan(subjects, seed, SOURCES, TARGETS)
    split_of: dict[int, set[str]] = {}
    for job in jobs:
        for who in (job.subject, job.impersonates):
            if who >= 0:
                split_of.setdefault(who, set()).add(job.split)
        assert (job.kind == "mask") == (job.impersonates >= 0)
        assert job.impersonates != job.subject
        assert job.domain in SOURCES or job.split == "test"
    assert all(len(splits) == 1 for splits in split_of.values())
    cells = {(j.domain, j.split, j.kind) for j in jobs}
    expected = [(d, s) for d in SOURCES for s in ("train", "dev", "test")] + [("kiosk", "test")]
    assert cells == {(d, s, k) for d, s in expected for k in KINDS}
    assert len({(j.subject, j.kind, j.index) for j in jobs}) == len(jobs)


def test_default_plan_has_the_size_and_balance_of_the_demo() -> None:
    jobs = make_plan(44, 7, SOURCES, TARGETS)
    assert 300 <= len(jobs) <= 340
    assert len({j.subject for j in jobs}) >= 40
    assert 0.30 <= sum(j.kind == "live" for j in jobs) / len(jobs) <= 0.40
    attacks = Counter(j.kind for j in jobs if j.kind != "live")
    assert max(attacks.values()) - min(attacks.values()) <= 3


def test_too_few_subjects_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 6"):
        make_plan(5, 7, SOURCES, TARGETS)


def test_thinning_takes_all_kinds_in_turn() -> None:
    some = thin_out(make_plan(44, 7, SOURCES, TARGETS), 10)
    assert Counter(j.kind for j in some) == {"live": 3, "print": 3, "replay": 2, "mask": 2}


def test_pictures_do_not_depend_on_workers_or_on_what_else_is_made(demo: Path, tmp_path: Path) -> None:
    make_demo(tmp_path / "again", subjects=6, workers=1, limit=5)
    again = {r["path"]: r for r in records_of(tmp_path / "again")}
    first = {r["path"]: r for r in records_of(demo)}
    common = again.keys() & first.keys()
    assert len({first[p]["spoof_type"] for p in common}) >= 3
    for path in common:
        assert again[path] == first[path]
        assert (tmp_path / "again" / path).read_bytes() == (demo / path).read_bytes()


def test_records_are_complete_and_true(demo: Path) -> None:
    records = records_of(demo)
    assert Counter(r["spoof_type"] for r in records) == dict.fromkeys(KINDS, 3)
    files = {p.relative_to(demo).as_posix() for p in demo.rglob("*.jpg")}
    assert files == {r["path"] for r in records}
    truth_keys = {
        "print": {"halftone_lines", "halftone_pitch_px", "border", "bend", "gloss"},
        "replay": {"device", "display_rows", "display_pitch_px", "softbox", "defocus"},
        "mask": {"material", "roughness", "gloss", "impersonates"},
        "live": set(),
    }
    for r in records:
        domain, kind, subject, name = r["path"].split("/")
        assert (domain, kind, subject) == (r["domain"], r["spoof_type"], r["subject_id"])
        assert name.startswith("syn_")
        assert r["synthetic"] is True
        assert r["licence"] == "CC0-1.0"
        assert r["label"] == ("live" if kind == "live" else "spoof")
        assert spoof_type_of(r["pai_species"]) == kind
        assert truth_keys[kind] <= r["attack"].keys()
        image = cv2.imread(str(demo / r["path"]))
        assert image.shape == (r["height"], r["width"], 3) == (256, 256, 3)
        if kind == "print":
            assert r["pai_species"] == ("print.bent" if r["attack"]["bend"] else "print.flat")
        x, y, w, h = r["face_box"]
        assert 0 <= x < x + w <= 256
        assert 0 <= y < y + h <= 256
        assert h > 0.3 * 256
        assert image[int(y) : int(y + h), int(x) : int(x + w)].std() > 3
    about = json.loads((demo / "dataset.json").read_text())
    assert about["synthetic"] is True
    assert "ynthetic" in about["description"]


def test_face_box_is_where_the_skin_is() -> None:
    """Drawing the same head without backdrop: the box must lie within what is drawn, and hold its middle."""
    from ifas.data.simulator.domains import DOMAINS
    from ifas.data.simulator.figure import Figure, draw, face_box
    from ifas.data.simulator.framing import draw_framing, view_of_head
    from ifas.data.simulator.heads import build_head
    from ifas.data.simulator.light import draw_light

    rng = np.random.default_rng(3)
    head = build_head(7, 1)
    view = view_of_head(draw_framing(rng), 256)
    light = draw_light(rng, DOMAINS["office"].light)
    drawn = draw(Figure(head, head.mesh), view, light, np.full((256, 256, 3), -1, np.float32))
    x, y, w, h = (round(v * 256) for v in face_box(head, view))
    covered = drawn[y : y + h, x : x + w].min(axis=2) >= 0
    assert covered.mean() > 0.75
    assert covered[h // 4 : 3 * h // 4, w // 4 : 3 * w // 4].all()
    assert np.isfinite(drawn).all()


def test_same_data_set_is_reused_and_another_replaces_it(demo: Path, tmp_path: Path) -> None:
    again = make_demo(demo, subjects=6, limit=12)
    assert again.reused
    assert again.images == 12
    out = tmp_path / "out"
    first = make_demo(out, subjects=6, limit=1)
    (out / records_of(out)[0]["path"]).unlink()
    assert not make_demo(out, subjects=6, limit=1).reused
    second = make_demo(out, subjects=6, limit=1, seed=8)
    assert first.images == second.images == len(list(out.rglob("*.jpg"))) == 1
    assert json.loads((out / "dataset.json").read_text())["seed"] == 8


def test_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(DataError, match="did not make"):
        make_demo(tmp_path, subjects=6, limit=1)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_interrupted_half_way_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_demo(tmp_path / "demo", subjects=6, limit=6, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_portraits_are_staged_and_unreadable_ones_are_listed(demo: Path, tmp_path: Path) -> None:
    faces = tmp_path / "faces"
    faces.mkdir()
    lives = [r["path"] for r in records_of(demo) if r["spoof_type"] in ("live", "mask")]
    for n, path in enumerate(lives[:7]):
        image = cv2.imread(str(demo / path))[:, 26:230]
        cv2.imwrite(str(faces / f"jane_doe_{n}.png"), image)
    (faces / "broken.jpg").write_bytes((demo / lives[0]).read_bytes()[:900])
    seen: list[tuple[int, int]] = []
    summary = make_demo(
        tmp_path / "staged",
        faces=faces,
        subjects=7,
        limit=6,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (6, 6)
    assert summary.kinds == {"live": 2, "print": 2, "replay": 2}
    assert [name for name, _ in summary.skipped] == ["broken.jpg"]
    assert any("mask" in note for note in summary.notes)
    for r in records_of(tmp_path / "staged"):
        assert r["licence"] == "user-supplied"
        assert r["synthetic"] is (r["label"] == "spoof")
        assert r["attack"].get("staged", False) is (r["label"] == "spoof")
        assert "jane" not in json.dumps(r)  # file names may be names of people
    again = make_demo(tmp_path / "staged", faces=faces, subjects=7, limit=6)
    assert again.reused
    assert again.skipped == summary.skipped


@pytest.mark.parametrize("content", [None, {}, {"a.jpg": b"nothing"}])
def test_useless_portrait_folder_is_refused(tmp_path: Path, content: dict[str, bytes] | None) -> None:
    faces = tmp_path / "faces"
    if content is not None:
        faces.mkdir()
        for name, data in content.items():
            (faces / name).write_bytes(data)
    with pytest.raises(DataError):
        make_demo(tmp_path / "out", faces=faces)
    assert not (tmp_path / "out").exists()
