"""From bytes to an answer, with the real tiny model, and with given scores around the threshold."""

from __future__ import annotations

import hashlib
import io
import json
import logging

import numpy as np
import pytest
from PIL import Image

from ifas.core.errors import ConfigError, FaceRefused, GateError, ImageRefused
from ifas.core.files import sha256_tree
from ifas.core.imaging import ImageLimits, decode
from ifas.faces.face import Face
from ifas.model.judge import Judge, Judged
from ifas.serving.contents import CONTENTS_FILE, write_contents
from ifas.serving.settings import MODEL_DIR, ServingSettings
from ifas.serving.verifier import Verifier
from tests.unit.serving.bento_records import picture, tiny_model


def settings(**changes):
    base = {
        "candidate": "c-1",
        "model_version": "v",
        "model_sha256": "0" * 64,
        "threshold": 0.5,
        "question": "Is this photo of a real person?",
        "limits": ImageLimits(),
    }
    return ServingSettings(**{**base, **changes})


class Said:
    """A judge whose score and words are given; the rules under test are the verifier's."""

    def __init__(self, score, text, attack="print", confidence=0.7):
        self.score, self.text, self.attack, self.confidence = score, text, attack, confidence
        self.verdicts, self.explained = None, []

    def find(self, picture):
        return Face.whole(picture)

    def answer(self, faces, threshold, *, explain):
        live = self.score >= threshold
        self.verdicts = [live]
        self.explained.append(explain)
        named = ("live", None) if live else (self.attack, self.confidence)
        return [Judged(self.score, live, *named, self.text if explain else "")] * len(faces)


@pytest.mark.parametrize(
    ("score", "verdict", "named"),
    [
        (0.9, "live", ("live", None)),
        (0.5, "live", ("live", None)),  # a score at the threshold is live
        (0.4999, "spoof", ("mask", 0.7)),
        (0.1, "spoof", ("mask", 0.7)),
    ],
)
def test_verdict_and_spoof_type(score, verdict, named):
    judge = Said(score, "a text", "mask")
    answer = Verifier(judge, settings()).verify(picture())
    assert answer.verdict == verdict
    assert (answer.spoof_type, answer.spoof_type_confidence) == named
    assert answer.explanation == "a text"
    assert judge.verdicts == [verdict == "live"], "the explanation is of the verdict at the threshold"


def test_no_explanation_when_not_asked_for():
    """The attack is named all the same."""
    judge = Said(0.1, "paper", "replay", 0.9)
    answer = Verifier(judge, settings()).verify(picture(), explain=False)
    assert judge.explained == [False]
    assert (answer.explanation, answer.spoof_type, answer.spoof_type_confidence) == ("", "replay", 0.9)


def test_the_log_holds_an_id_and_no_picture(caplog):
    data = picture()
    with caplog.at_level(logging.INFO, "bentoml.ifas"):
        answer = Verifier(Said(0.1, "paper"), settings()).verify(data)
        with pytest.raises(ImageRefused):
            Verifier(Said(0.1, "paper"), settings()).verify(b"not a picture")
    assert answer.image_sha256 == hashlib.sha256(data).hexdigest()
    assert f"id={answer.image_sha256[:16]}" in caplog.messages[0]
    assert caplog.messages[1].startswith("refused id=")


def encoded(pixels, kind="PNG", mode=None, **options):
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()


BLACK, NOISE = np.zeros((64, 64, 3), np.uint8), np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def packaged(folder):
    """The model and the records of a Bento, in its source folder."""
    model = tiny_model(folder / MODEL_DIR)
    settings(model_sha256=sha256_tree(model)).write(folder)
    write_contents(folder)
    return model


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    packaged(folder)
    return Verifier.load(folder)


# All of the last one is transparent: a viewer shows a white page.
HIDDEN = np.dstack([decode(picture()), np.zeros((144, 160), np.uint8)])


@pytest.mark.parametrize("pixels", [BLACK, 255 - BLACK, NOISE, HIDDEN], ids=["black", "white", "noise", "hidden"])
def test_a_picture_without_a_face_is_refused_before_it_is_judged(pixels, served, caplog, monkeypatch):
    monkeypatch.setattr(served.judge, "answer", lambda *_: pytest.fail("was judged"))
    with caplog.at_level(logging.INFO, "bentoml.ifas"), pytest.raises(FaceRefused, match="no face") as caught:
        served.verify(encoded(pixels))
    assert caught.value.reason == "no_face"
    assert "reason=no_face" in caplog.messages[0]


def test_two_faces_of_like_size_have_no_verdict(served):
    face = decode(picture())
    with pytest.raises(FaceRefused, match="several faces") as caught:
        served.verify(encoded(np.hstack([face, face[:, ::-1]])))
    assert caught.value.reason == "several_faces"


def test_one_picture_has_one_score_in_whatever_form_it_comes(tmp_path):
    packaged(tmp_path)
    verifier = Verifier.load(tmp_path)
    grey = np.asarray(Image.fromarray(decode(picture())).convert("L"))
    opaque = np.full_like(grey, 255)
    forms = [
        encoded(grey),
        encoded(grey.astype(np.uint16) * 256 + 90),
        encoded(np.dstack([grey, opaque])),
        encoded(np.dstack([grey] * 3 + [opaque])),
        encoded(grey, mode="P"),
        encoded(np.dstack([grey] * 3), "WEBP", lossless=True),
    ]
    scores = {verifier.verify(data, explain=False).score for data in forms}
    assert len(scores) == 1
    assert verifier.verify(encoded(grey[:, ::-1]), explain=False).score not in scores


def test_the_packaged_limits_count():
    with pytest.raises(ImageRefused, match="pixels"):
        Verifier(Said(0.1, ""), settings(limits=ImageLimits(max_pixels=100))).verify(picture())


def test_the_real_model_of_a_folder(tmp_path):
    model = packaged(tmp_path)
    verifier, judge = Verifier.load(tmp_path), Judge.load(model)
    for seed in range(3):
        data = picture(seed)
        face = judge.find(decode(data))
        assert face.box != Face.whole(face.picture).box
        answer = verifier.verify(data)
        score = float(judge.judge([face])[0])
        assert answer.score == score, "the very number that evaluation computes"
        assert verifier.verify(data, explain=False).score == score
        judged = judge.explain([face], [score >= 0.5])[0]
        assert answer.explanation == judged.text
        assert (answer.spoof_type, answer.spoof_type_confidence) == (judged.spoof_type, judged.confidence)
        short = verifier.verify(data, explain=False)
        assert (short.spoof_type, short.spoof_type_confidence) == (judged.spoof_type, judged.confidence)


def test_an_answer_takes_one_prefill(tmp_path, monkeypatch):
    packaged(tmp_path)
    verifier = Verifier.load(tmp_path)
    prefill, calls = verifier.judge._prefill, []
    monkeypatch.setattr(verifier.judge, "_prefill", lambda *a: calls.append(len(a[0])) or prefill(*a))
    assert verifier.verify(picture()).explanation
    verifier.verify(picture(), explain=False)
    assert calls == [1, 1]


def loosened(folder):
    record = json.loads((folder / "serving.json").read_text())
    (folder / "serving.json").write_text(json.dumps({**record, "threshold": 0.0}))


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (loosened, r"serving\.json was changed"),
        (lambda folder: (folder / "model" / "added.txt").write_text("x"), r"model/added\.txt was added"),
        (lambda folder: (folder / "sitecustomize.py").write_text("x"), r"sitecustomize\.py was added"),
        (lambda folder: (folder / "model" / "config.json").unlink(), r"model/config\.json is missing"),
        (lambda folder: (folder / "model" / "away").symlink_to("/nowhere"), "model/away was added"),
        (lambda folder: (folder / "torch").symlink_to("/tmp", target_is_directory=True), "torch was added"),
    ],
)
def test_what_was_edited_after_packaging_is_named(tmp_path, edit, said):
    packaged(tmp_path)
    edit(tmp_path)
    with pytest.raises(GateError, match=said):
        Verifier.load(tmp_path)


def test_another_model_than_the_approved_one_packaged_as_a_whole(tmp_path):
    model = packaged(tmp_path)
    (model / "added.txt").write_text("x")
    write_contents(tmp_path)
    with pytest.raises(GateError, match="was approved with"):
        Verifier.load(tmp_path)


def test_compiled_python_is_no_edit(tmp_path):
    packaged(tmp_path)
    (tmp_path / "ifas" / "__pycache__").mkdir(parents=True)
    (tmp_path / "ifas" / "__pycache__" / "x.pyc").write_bytes(b"x")
    assert Verifier.load(tmp_path).settings.threshold == settings().threshold


@pytest.mark.parametrize("text", [None, "{", "[1]", "3"])
def test_damaged_contents(tmp_path, text):
    packaged(tmp_path)
    (tmp_path / CONTENTS_FILE).unlink()
    if text is not None:
        (tmp_path / CONTENTS_FILE).write_text(text)
    with pytest.raises(ConfigError, match=r"contents\.json is missing or damaged"):
        Verifier.load(tmp_path)


@pytest.mark.parametrize("text", [None, "{", "{}", '{"candidate": 1}'])
def test_settings_that_are_missing_or_damaged(tmp_path, text):
    if text is not None:
        (tmp_path / "serving.json").write_text(text)
    with pytest.raises(ConfigError, match=r"serving\.json"):
        ServingSettings.read(tmp_path)
