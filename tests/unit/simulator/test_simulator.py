"""The capture simulator: plan, determinism, ground truth, staged portraits, and folders that are whole or absent."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from ifas.cli.main import app
from ifas.core.config import FacesConfig
from ifas.core.errors import ConfigError, DataError
from ifas.core.files import read_json
from ifas.core.imaging import decode
from ifas.core.taxonomy import spoof_type_of
from ifas.faces.boxes import iou
from ifas.faces.finder import Finder
from ifas.simulator import make_demo
from ifas.simulator.camera import SENSOR, draw_shot
from ifas.simulator.contact import contact_sheet
from ifas.simulator.displays import draw_display, show_display
from ifas.simulator.domains import DOMAINS
from ifas.simulator.figure import Figure, draw, face_box
from ifas.simulator.framing import draw_framing, view_of_head
from ifas.simulator.heads import build_head
from ifas.simulator.holders import hold
from ifas.simulator.light import draw_light
from ifas.simulator.plan import KINDS, SPECIES, make_plan, thin_out
from ifas.simulator.prints import draw_print, show_print
from ifas.simulator.screens import Interface, draw_over
from ifas.simulator.sheet import Photo
from ifas.simulator.visible import Scene, visible

SOURCES, TARGETS = ("office", "street", "home"), ("kiosk",)


def records_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Part of the smallest data set: every kind, several domains, two threads."""
    out = tmp_path_factory.mktemp("demo") / "demo"
    make_demo(out, subjects=6, workers=2, limit=12)
    return out


@given(subjects=st.integers(6, 80), seed=st.integers(0, 2**31))
@settings(max_examples=40)
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
    cells = {(j.domain, j.split, j.species) for j in jobs}
    expected = [(d, s) for d in SOURCES for s in ("train", "dev", "test")] + [("kiosk", "test")]
    assert cells == {(d, s, k) for d, s in expected for k in SPECIES}
    assert len({(j.subject, j.kind, j.index) for j in jobs}) == len(jobs)


def test_default_plan_has_the_size_and_balance_of_the_demo() -> None:
    jobs = make_plan(44, 7, SOURCES, TARGETS)
    assert 300 <= len(jobs) <= 380
    assert len({j.subject for j in jobs}) >= 40
    assert 0.30 <= sum(j.kind == "live" for j in jobs) / len(jobs) <= 0.40
    attacks = Counter(j.species for j in jobs if j.kind != "live")
    assert set(attacks) == set(SPECIES) - {"live"}
    assert max(attacks.values()) - min(attacks.values()) <= 3


def test_too_few_subjects_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 6"):
        make_plan(5, 7, SOURCES, TARGETS)


def test_thinning_takes_all_kinds_in_turn_and_all_species() -> None:
    some = thin_out(make_plan(44, 7, SOURCES, TARGETS), 10)
    assert Counter(j.kind for j in some) == {"live": 3, "print": 3, "replay": 2, "mask": 2}
    assert {j.species for j in some} == set(SPECIES)


def test_portraits_have_no_masks_in_the_plan() -> None:
    jobs = make_plan(12, 7, SOURCES, TARGETS, ("live", "print", "replay"))
    assert {j.species for j in jobs} == set(SPECIES) - {"mask.rigid3d"}


def test_pictures_do_not_depend_on_workers_or_on_what_else_is_made(demo: Path, tmp_path: Path) -> None:
    make_demo(tmp_path / "again", subjects=6, workers=1, limit=5)
    again = {r["path"]: r for r in records_of(tmp_path / "again")}
    first = {r["path"]: r for r in records_of(demo)}
    common = again.keys() & first.keys()
    assert len({first[p]["spoof_type"] for p in common}) >= 3
    for path in common:
        assert again[path] == first[path]
        assert (tmp_path / "again" / path).read_bytes() == (demo / path).read_bytes()


def test_the_face_of_every_picture_is_found(demo: Path) -> None:
    """The service refuses pictures without."""
    finder = Finder(FacesConfig())
    for record in records_of(demo):
        found = finder.find(decode((demo / record["path"]).read_bytes())).box
        assert iou(found, tuple(record["face_box"])) > 0.4, record["path"]


def test_records_are_complete_and_true(demo: Path) -> None:
    records = records_of(demo)
    assert Counter(r["spoof_type"] for r in records) == dict.fromkeys(KINDS, 3)
    files = {p.relative_to(demo).as_posix() for p in demo.rglob("*.jpg")}
    assert files == {r["path"] for r in records}
    truth_keys = {
        "print": {"halftone_lines", "halftone_pitch_px", "border", "bend", "gloss"},
        "replay": {"device", "display_rows", "display_pitch_px", "softbox", "defocus"},
        "mask": {"material", "roughness", "gloss", "impersonates"},
    }
    for r in records:
        if r["spoof_type"] == "live":
            assert r["attack"] is None
        else:
            check_visible(r["spoof_type"], r["attack"]["visible"])
    for r in records:
        domain, kind, subject, name = r["path"].split("/")
        assert (domain, kind, subject) == (r["domain"], r["spoof_type"], r["subject_id"])
        assert name.startswith("syn_")
        assert r["synthetic"] is True
        assert r["licence"] == "CC0-1.0"
        assert r["label"] == ("live" if kind == "live" else "spoof")
        assert spoof_type_of(r["pai_species"]) == kind
        assert kind == "live" or truth_keys[kind] <= r["attack"].keys()
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


def check_visible(kind: str, seen: dict[str, Any]) -> None:
    """The ground truth of what can be seen, and what can't be for a kind."""
    assert seen.keys() == {"border", "rim", "pattern", "blur", "glare", "screen_text", "holder"}
    assert all(0 <= seen[k] <= 1 for k in ("border", "rim", "pattern", "glare"))
    assert (seen["rim"] > 0) == (kind == "mask")
    assert (seen["pattern"] > 0) == (kind != "mask")
    assert kind != "mask" or (seen["border"], seen["screen_text"], seen["holder"]) == (0, False, None)
    assert kind == "replay" or seen["screen_text"] is False
    assert seen["holder"] in (None, "hand", "clamp")
    assert not (seen["holder"] and seen["border"] == 0)


@pytest.fixture(scope="module")
def portrait() -> Photo:
    """A noise picture with a face-sized box in it."""
    pixels = np.random.default_rng(0).integers(60, 200, (96, 80, 3)).astype(np.uint8)
    return Photo(cv2.resize(pixels, (240, 288)), (0.3, 0.25, 0.4, 0.4))


def _scene(portrait: Photo, share: float, **changes: Any) -> Scene:
    """A phone, still and frontal, filled by the face to `share`."""
    rng = np.random.default_rng(1)
    place = DOMAINS["office"]
    light = draw_light(rng, place.light)
    framing = replace(draw_framing(rng), share=share, yaw=0.0, pitch=0.0, roll=0.0, shift=(0.0, 0.0))
    device = replace(draw_display(rng, "phone"), softbox=0.0, interface=None, held=False, **changes)
    backdrop = place.backdrop(rng, SENSOR)
    return show_display(device, portrait, framing, light, backdrop, place.backdrop, rng)


def _truth(scene: Scene) -> dict[str, Any]:
    camera = DOMAINS["office"].camera
    shot = draw_shot(scene.radiance, camera, np.random.default_rng(2))
    return visible(scene, camera, replace(shot, sigma=0.6, motion=(0.0, 0.0)))


def test_border_is_the_share_of_the_outline_in_the_frame(portrait: Photo) -> None:
    small, large = _scene(portrait, 0.25), _scene(portrait, 0.9)
    assert _truth(small)["border"] == 1
    assert _truth(large)["border"] == 0
    assert small.medium is not None
    assert large.medium is not None
    assert small.medium.mean() < large.medium.mean() == 1


def test_pattern_grows_with_the_pixels_and_dies_of_defocus(portrait: Photo) -> None:
    coarse = _truth(_scene(portrait, 0.6, rows=300, blur=0.0))["pattern"]
    fine = _truth(_scene(portrait, 0.6, rows=1350, blur=0.0))["pattern"]
    soft = _truth(_scene(portrait, 0.6, rows=300, blur=2.5))["pattern"]
    assert coarse > 3 * fine
    assert coarse > 3 * soft


def test_glare_text_and_holder_are_told_when_they_are_there(portrait: Photo) -> None:
    plain = _truth(_scene(portrait, 0.4))
    assert (plain["screen_text"], plain["holder"]) == (False, None)
    words = Interface((("Gallery", 0.1, 0.0, 1.0),), True, 0.1, 0.1)
    rng = np.random.default_rng(4)
    screen = draw_over(portrait.pixels, portrait.face, words)
    pixels, (x, y, w, h) = screen.pixels, screen.text[0]
    rows, columns = pixels.shape[:2]
    line = pixels[int(y * rows) : int((y + h) * rows), int(x * columns) : int((x + w) * columns)]
    assert (line < 60).mean() > 0.05
    light = draw_light(rng, DOMAINS["office"].light)
    outline = np.array([[300.0, y] for y in np.linspace(100, 400, 128)], np.float32)
    held = hold(rng, outline, light, SENSOR)
    assert held is not None
    assert 0.002 < held.cover.mean() < 0.3
    assert hold(rng, outline + 900, light, SENSOR) is None
    scene = _scene(portrait, 0.6)
    assert scene.specular is not None
    assert _truth(scene)["glare"] < 0.2
    assert _truth(replace(scene, specular=scene.specular + 5))["glare"] == 1


def test_prints_look_like_the_photo_without_their_dots(portrait: Photo) -> None:
    rng = np.random.default_rng(5)
    place = DOMAINS["street"]
    light, framing = draw_light(rng, place.light), draw_framing(rng)
    sheet = replace(draw_print(rng, bent=True), lines=250.0, soft=0.0, held=True, border=0.06)
    scene = show_print(sheet, portrait, framing, light, place.backdrop(rng, SENSOR), rng)
    assert sheet.species == "print.bent"
    assert scene.smooth is not None
    assert scene.medium is not None
    assert not np.allclose(scene.radiance, scene.smooth)
    on, off = (cv2.GaussianBlur(s, (0, 0), 12)[scene.medium].mean(0) for s in (scene.radiance, scene.smooth))
    assert np.allclose(on, off, rtol=0.15)


def test_contact_sheet_has_a_row_per_species(demo: Path, tmp_path: Path) -> None:
    contact_sheet(demo, tmp_path / "sheet.png", per_species=2)
    rows = len({r["pai_species"] for r in records_of(demo)})
    assert cv2.imread(str(tmp_path / "sheet.png")).shape[:2] == (rows * (256 + 18), 2 * 256)
    with pytest.raises(ConfigError, match="contact sheet"):
        contact_sheet(demo, tmp_path / "sheet.txt")


def test_a_sheet_of_no_known_kind_is_refused_before_anything_is_rendered(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["data", "demo", "--out", str(tmp_path / "demo"), "--sheet", str(tmp_path / "sheet.gif")]
    )
    assert isinstance(done.exception, ConfigError)
    assert not (tmp_path / "demo").exists()


def test_face_box_is_where_the_skin_is() -> None:
    """Drawing the same head without backdrop: the box must lie within what is drawn, and hold its middle."""
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
    # Whoever keeps something in the folder keeps it.
    (out / "office" / "notes.txt").write_text("years of work")
    with pytest.raises(DataError, match=r"notes\.txt"):
        make_demo(out, subjects=6, limit=1, seed=9)
    assert (out / "office" / "notes.txt").read_text() == "years of work"
    (out / "office" / "notes.txt").rename(out / "office" / "mine.jpg")
    mine = {**records_of(out)[0], "path": "office/mine.jpg"}
    with (out / "samples.jsonl").open("a") as file:
        file.write(json.dumps(mine) + "\n")
    with pytest.raises(DataError, match=r"samples\.jsonl was changed"):
        make_demo(out, subjects=6, limit=1, seed=9)
    assert (out / "office" / "mine.jpg").read_text() == "years of work"


def test_a_link_to_another_disk_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    with pytest.raises(DataError, match=r"symbolic link to .*disk"):
        make_demo(tmp_path / "link", subjects=6, limit=1)
    assert (tmp_path / "link").is_symlink()


def test_any_domain_can_be_a_source(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make_demo(out, subjects=6, limit=1)
    assert not make_demo(out, subjects=6, limit=1, sources=("kiosk",)).reused
    seen = {r["domain"] for r in records_of(out) if r["split"] != "test"}
    assert seen == {"kiosk"}
    with pytest.raises(ConfigError, match="balcony"):
        make_demo(out, subjects=6, sources=("balcony",))


def test_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(DataError, match="did not make"):
        make_demo(tmp_path, subjects=6, limit=1)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "mine.txt").rename(tmp_path / "dataset.json").write_text('{"made": "by me"}')
    with pytest.raises(DataError, match="did not make"):
        make_demo(tmp_path, subjects=6, limit=1)


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
        limit=6,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (6, 6)
    assert summary.kinds == {"live": 2, "print": 2, "replay": 2}
    assert read_json(tmp_path / "staged" / "dataset.json")["subjects"] == len(lives[:7]), "all that can be read"
    assert [name for name, _ in summary.skipped] == ["broken.jpg"]
    assert any("mask" in note for note in summary.notes)
    for r in records_of(tmp_path / "staged"):
        assert r["licence"] == "user-supplied"
        assert r["synthetic"] is (r["label"] == "spoof")
        assert (r["attack"] or {}).get("staged", False) is (r["label"] == "spoof")
        assert "jane" not in json.dumps(r)  # file names may be names of people
    again = make_demo(tmp_path / "staged", faces=faces, limit=6)
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


def test_the_door_is_light() -> None:
    code = "import ifas.simulator, sys; print([m for m in ('numba', 'numpy', 'cv2', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
