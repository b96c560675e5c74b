"""Specialists measure, clauses follow the label, doubts go to the audit."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from drawn_faces import BOX, dataset, draw
from hypothesis import given, settings
from hypothesis import strategies as st

from ifas.captioning import specialists as package
from ifas.captioning.clauses import LONGEST, MOST_CLAUSES, Clause, compose, describe
from ifas.captioning.edges import FEATURES, edges
from ifas.captioning.identity import identifies
from ifas.captioning.measure import measure
from ifas.captioning.scf import run_scf
from ifas.captioning.specialists import Measurement, measurements, specialists
from ifas.captioning.view import View
from ifas.core.config import CaptionConfig
from ifas.core.manifest import read_manifest
from ifas.core.taxonomy import SPOOF_TYPES, media_named


def seen(picture: np.ndarray, box: object = BOX) -> dict[str, Measurement]:
    return measurements(measure(picture, box))  # type: ignore[arg-type]


def framed(level: int, seed: int = 0) -> np.ndarray:
    """A drawn face before a wall, with a straight bar of one grey level at the left, from top to bottom."""
    picture = draw("live", seed).copy()
    picture[:, :16] = level
    return picture


def mean(name: str, kind: str) -> float:
    return float(np.mean([seen(draw(kind, i))[name].confidence for i in range(8)]))


def test_each_is_known_and_says_nothing_of_a_medium_or_a_person() -> None:
    assert set(specialists()) == {
        "bezel",
        "depth",
        "enclosure",
        "gamut",
        "holder",
        "layering",
        "medium border",
        "paper margin",
        "planarity",
        "recapture",
        "screen text",
        "sharpness",
        "specular",
    }
    for name, one in specialists().items():
        assert one.name == name
        assert one.supports <= set(SPOOF_TYPES)
        assert not one.refutes & one.supports
        assert media_named(one.clause) == []
        assert identifies(one.clause) == []
        assert any(word in one.clause for word in one.words), "a caption with the clause is known to say it"


def test_borders_are_told_by_their_colour() -> None:
    for i in range(4):
        dark, bright, none = seen(framed(4, i)), seen(framed(250, i)), seen(draw("live", i))
        assert dark["bezel"].confidence > 0.7
        assert dark["paper margin"].confidence == 0
        assert bright["paper margin"].confidence > 0.5
        assert bright["bezel"].confidence == 0
        assert max(none[n].confidence for n in ("bezel", "paper margin")) < 0.5


def test_edges_know_their_side_and_levels() -> None:
    picture = draw("live", 3).copy()
    picture[:, -16:] = 250
    found = [e for e in edges(View.of(picture, BOX)) if e.side == "right" and e.brighter > 0.9]
    assert found
    x0, y0, x1, y1 = found[0].ends
    assert abs(x0 - 144) < 3
    assert abs(x1 - 144) < 3
    assert abs(y1 - y0) > 60
    assert found[0].features[FEATURES.index("step")] > 0
    assert found[0].features[FEATURES.index("tilt")] < 3
    assert all(0 <= e.chance <= 1 for e in edges(View.of(picture, BOX)))
    assert edges(View.of(np.full_like(picture, 90), BOX)) == []


def test_patterns_and_highlights() -> None:
    y, x = np.mgrid[:160, :160]
    plain = draw("live", 3)
    grating = np.clip(plain + 25 * np.sin(2 * np.pi * (x * 0.9 + y * 0.4) / 2.7)[..., None], 0, 255).astype(np.uint8)
    assert seen(grating)["recapture"].confidence == 1
    assert seen(plain)["recapture"].confidence < 1  # the odds hold among media: a living face may be likely, never sure
    assert mean("specular", "mask") > mean("specular", "live")
    assert mean("gamut", "print") > mean("gamut", "live")


def test_edges_around_the_face_enclose_it() -> None:
    picture = draw("live", 1).copy()
    for count, edge in enumerate((np.s_[:, :14], np.s_[:, -14:], np.s_[:12]), start=1):
        picture[edge] = 4
        assert seen(picture)["enclosure"].value >= count
    assert seen(picture)["enclosure"].confidence == 1
    assert seen(draw("live", 1))["enclosure"].confidence < 0.5


def test_text_is_read_beside_the_face_only() -> None:
    import cv2

    written, bare = framed(4).copy(), framed(4)
    cv2.putText(written, "12:45 LTE", (20, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    assert seen(written)["screen text"] == Measurement(9.0, 1.0)
    assert seen(bare)["screen text"].confidence == 0
    # Letters on the face, a tattoo say, are none on a screen; and where nothing is straight nobody looks for a device.
    onto = framed(4).copy()
    cv2.putText(onto, "ABCD", (58, 70), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA)
    assert seen(onto)["screen text"].confidence == 0
    loose = np.full((160, 160, 3), 120, np.uint8)
    cv2.putText(loose, "12:45 LTE", (20, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    assert seen(loose)["screen text"] == Measurement(0.0, 0.0)


def test_relations_in_depth_and_plane() -> None:
    assert mean("layering", "mask") > mean("layering", "live")
    picture = draw("live", 2)
    assert seen(picture, None)["layering"].confidence == 0
    assert seen(picture)["planarity"].value == pytest.approx(
        measure(picture, BOX).values["face_sharpness"] - measure(picture, BOX).values["surround_sharpness"]
    )
    assert seen(np.full_like(picture, 90))["planarity"].confidence == 0


def test_soft_faces_are_soft_at_any_contrast() -> None:
    import cv2

    for i in range(4):
        sharp = draw("live", i)
        soft = cv2.GaussianBlur(sharp, (0, 0), 2.5)
        dim = (soft.astype(np.float32) * 0.5 + 60).astype(np.uint8)
        values = [seen(one)["sharpness"].value for one in (sharp, soft, dim)]
        assert values[0] > values[1] + 0.3
        assert values[2] == pytest.approx(values[1], abs=0.25)


def test_a_hand_is_measured_and_not_said() -> None:
    picture = draw("live", 2).copy()
    x, y, w, h = (round(v) for v in BOX)
    picture[-30:, :24] = np.median(picture[y + h // 3 : y + h, x + w // 3 : x + 2 * w // 3].reshape(-1, 3), axis=0)
    with_hand, without = seen(picture)["holder"], seen(draw("live", 2))["holder"]
    assert with_hand.value > without.value + 0.01
    assert with_hand.confidence == 1
    for kind in SPOOF_TYPES:
        assert "holder" not in {c.specialist for c in describe(sure("holder"), kind).clauses}


@settings(max_examples=40)
@given(
    height=st.integers(32, 120),
    width=st.integers(32, 120),
    level=st.one_of(st.none(), st.integers(0, 255)),
    box=st.one_of(st.none(), st.tuples(*[st.floats(-20, 140)] * 4)),
    seed=st.integers(0, 99),
)
def test_any_picture_gives_numbers(height: int, width: int, level: int | None, box: object, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (height, width, 3)
    picture = rng.integers(0, 256, shape, dtype=np.uint8) if level is None else np.full(shape, level, np.uint8)
    first, again = seen(picture, box), seen(picture.copy(), box)
    assert first == again
    for one in first.values():
        assert np.isfinite(one.value)
        assert 0 <= one.confidence <= 1


def test_size_changes_little() -> None:
    import cv2

    for picture in (framed(4), framed(250), draw("live", 5)):
        large = cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
        a, b = seen(picture), seen(large, tuple(2 * v for v in BOX))
        for name in ("bezel", "paper margin"):
            assert (a[name].confidence >= 0.5) == (b[name].confidence >= 0.5), name


def sure(*names: str) -> dict[str, Measurement]:
    return {name: Measurement(1.0, 1.0 if name in names else 0.0) for name in specialists()}


def test_a_clause_is_said_only_where_it_fits_the_label() -> None:
    bezel = sure("bezel")
    assert [c.specialist for c in describe(bezel, "replay").clauses] == ["bezel"]
    assert describe(bezel, "replay").doubts == ()
    live = describe(bezel, "live")
    assert live.clauses == ()
    assert [c.specialist for c in live.doubts] == ["bezel"]
    # A dark rim on a print is odd, but no proof of a screen.
    assert describe(bezel, "print") == type(live)((), ())
    assert [c.specialist for c in describe(bezel, "live", conditional=False).clauses] == ["bezel"]
    # Highlights lie on oily foreheads as well: said of masks, held against nobody.
    assert describe(sure("specular"), "live") == type(live)((), ())
    assert describe({"bezel": Measurement(0.5, 0.9)}, "live").doubts == ()
    assert describe({}, "live") == type(live)((), ())


def clause(name: str, confidence: float = 1.0) -> Clause:
    return Clause(specialists()[name].clause, name, 1.0, confidence)


def test_captions_grow_by_what_they_do_not_say_yet() -> None:
    text, held = compose("A face, soft light.", (clause("bezel"), clause("recapture"), clause("depth")))
    assert text == (
        "A face, soft light. A straight dark frame runs beside the head. A fine regular pattern covers the picture."
    )
    assert [c.specialist for c in held] == ["bezel", "recapture"]
    assert len(held) == MOST_CLAUSES
    said = "A face, and a straight dark frame runs beside the head."
    assert compose(said, (clause("bezel"),)) == (said, (clause("bezel"),))
    long = " ".join(["word"] * LONGEST)
    assert compose(long, (clause("bezel"),)) == (long, ())


def test_adding_a_specialist_is_adding_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "brightness.py").write_text(
        "from ifas.captioning.specialists import Measurement\n"
        "class Brightness:\n"
        "    name, clause, words = 'brightness', 'the picture is bright', ('bright',)\n"
        "    supports, refutes = frozenset({'live'}), frozenset()\n"
        "    def measure(self, seen):\n"
        "        return Measurement(seen.values['brightness'], 1.0)\n"
        "SPECIALIST = Brightness()\n"
    )
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    specialists.cache_clear()
    try:
        found = seen(draw("live", 1))
        assert found["brightness"].confidence == 1
        assert "brightness" in {c.specialist for c in describe(found, "live").clauses}
    finally:
        specialists.cache_clear()
        sys.modules.pop("ifas.captioning.specialists.brightness", None)


def test_manifest_holds_provenance_and_the_audit_finds_a_planted_label(tmp_path: Path) -> None:
    from drawn_faces import png

    manifest, images = dataset()
    planted = manifest.index[manifest["label"] == "live"][2]
    picture = draw("live", 7).copy()
    picture[:, :14] = picture[:, -14:] = picture[:12] = 4
    images.files[planted] = png(picture)
    quick = CaptionConfig(imitate_steps=3, tune_steps=2)
    report = run_scf(manifest, images, quick, source_domains=["near"], out=tmp_path / "out")
    rows = read_manifest(tmp_path / "out", captioned=True)
    doubted = rows[rows["label_audit"].notna()]
    assert manifest.loc[planted, "sample_id"] in set(doubted["sample_id"])
    assert set(doubted["label"]) <= {"live", "spoof"}
    (first, *_) = json.loads(doubted["label_audit"].iloc[0])
    assert set(first) == {"text", "specialist", "value", "confidence"}
    assert report.facts["labels_doubted"] == len(doubted)
    clauses = rows["clauses"].map(json.loads)
    assert sum(report.facts["clauses"].values()) == clauses.map(len).sum() > 0
    for text, kind, mine in zip(rows["caption"], rows["spoof_type"], clauses, strict=True):
        for one in mine:
            assert kind in specialists()[one["specialist"]].supports
            assert any(word in text.lower() for word in (one["text"], *specialists()[one["specialist"]].words))
    off = quick.model_copy(update={"specialists": False})
    run_scf(manifest, images, off, source_domains=["near"], out=tmp_path / "off")
    assert set(read_manifest(tmp_path / "off", captioned=True)["clauses"]) == {"[]"}
