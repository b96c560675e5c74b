"""The embedded general captioner: measurements see the cues, captions follow them, and never speak of the person."""

from __future__ import annotations

import re

import cv2
import numpy as np
import pytest
from drawn_faces import BOX, SIDE, draw

from ifas.captioning.captioners import CAPTIONERS, general_captioner
from ifas.captioning.embedded import EmbeddedCaptioner
from ifas.captioning.indicators import INDICATORS, medium_scores, medium_suggested, strengths
from ifas.captioning.measure import MEASUREMENTS, measure
from ifas.captioning.media import MEDIA
from ifas.captioning.scene import colour_word
from ifas.core.config import CaptionConfig
from ifas.core.errors import ConfigError
from ifas.core.taxonomy import media_named

PERSON_WORDS = re.compile(
    r"\b(man|men|woman|women|male|female|boy|girl|lady|gentleman|he|she|his|her|him|young|old|older|elderly|child|kid|"
    r"teen|adult|age|aged|asian|african|european|caucasian|black (man|person|face|skin)|white (man|person|skin)|"
    r"(dark|light|brown|pale|black|white) skin|ethnic\w*|race|beard|wrinkle\w*|name)\b",
    re.IGNORECASE,
)


def captions(kind: str, count: int = 12) -> list[str]:
    images = [draw(kind, i, 0.6 if i % 3 == 2 else 0.0) for i in range(count)]
    return [c.text for c in EmbeddedCaptioner().caption([measure(image, BOX) for image in images])]


@pytest.mark.parametrize("kind", ["print", "replay", "mask"])
def test_plain_cues_make_it_name_the_medium_more_often_right_than_not(kind: str) -> None:
    named = [media_named(text) for text in captions(kind)]
    assert sum(kind in media for media in named) > len(named) / 2


def test_a_plain_face_seldom_names_a_medium() -> None:
    assert sum(bool(media_named(text)) for text in captions("live")) <= 2


def test_the_same_picture_gets_the_same_words_and_others_vary() -> None:
    assert captions("print") == captions("print")
    assert len(set(captions("live"))) > 6


def test_captions_never_speak_of_the_person() -> None:
    rng = np.random.default_rng(0)
    images = [draw(kind, i) for kind in ("live", "print", "replay", "mask") for i in range(25)]
    images += [rng.integers(0, 256, (64, 48, 3), dtype=np.uint8) for _ in range(10)]
    texts = [c.text for c in EmbeddedCaptioner().caption([measure(image) for image in images])]
    phrases = [p for one in INDICATORS for p in one.phrases] + [s for media in MEDIA.values() for s in media]
    for text in texts + phrases:
        assert not PERSON_WORDS.search(text), text
        assert len(text.split()) <= 48


def test_sentences_that_name_a_medium_name_only_that_one() -> None:
    for medium, sentences in MEDIA.items():
        for sentence in sentences:
            assert media_named(sentence) == [medium]
    for indicator in INDICATORS:
        for phrase in indicator.phrases:
            assert media_named(phrase) == []


def test_evidence_holds_every_measurement() -> None:
    caption = EmbeddedCaptioner().caption([measure(draw("live", 0), BOX)])[0]
    assert tuple(caption.evidence) == MEASUREMENTS
    assert all(np.isfinite(list(caption.evidence.values())))


def test_each_measurement_sees_what_it_is_for() -> None:
    live, paper, screen, mask = (measure(draw(k, 1), BOX).values for k in ("live", "print", "replay", "mask"))
    assert paper["black_level"] > live["black_level"] + 0.2
    assert paper["contrast"] < live["contrast"] + 0.1
    assert paper["bright_border"] > 0.6 > live["bright_border"]
    assert screen["dark_border"] > 0.6 > live["dark_border"]
    assert screen["dot_peak"] > 5 * live["dot_peak"]
    assert mask["gloss"] > live["gloss"] + 0.1
    assert mask["neck_step"] > live["neck_step"] + 0.1
    soft = cv2.GaussianBlur(draw("live", 1), (0, 0), 3)
    assert measure(soft, BOX).values["face_sharpness"] < live["face_sharpness"]


def test_long_waves_raise_the_wave_peak_only() -> None:
    y, x = np.mgrid[:SIDE, :SIDE]
    waves = 20 * np.sin((0.8 * x + 0.6 * y) * 2 * np.pi / 5)
    noise = np.random.default_rng(0).normal(0, 3, (SIDE, SIDE))
    grey = np.clip(128 + noise, 0, 255).astype(np.uint8)
    waved = np.clip(128 + noise + waves, 0, 255).astype(np.uint8)
    plain, moire = (measure(np.dstack([g] * 3)).values for g in (grey, waved))
    assert moire["wave_peak"] > 10 * plain["wave_peak"]
    assert moire["dot_peak"] < 2 * plain["dot_peak"]


@pytest.mark.parametrize("shape", [(32, 32, 3), (40, 700, 3), (1300, 900, 3), (64, 64, 3)])
@pytest.mark.parametrize("box", [None, (0.0, 0.0, 1e6, 1e6), (-50.0, -50.0, 10.0, 10.0), (5.0, 5.0, 3.0, 3.0)])
def test_odd_sizes_and_boxes_are_measured(shape: tuple[int, ...], box: tuple[float, ...] | None) -> None:
    for image in (np.zeros(shape, np.uint8), np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)):
        caption = EmbeddedCaptioner().caption([measure(image, box)])[0]  # type: ignore[arg-type]
        assert caption.text
        assert np.isfinite(list(caption.evidence.values())).all()


def test_no_medium_without_a_clear_lead() -> None:
    assert medium_suggested({"print": 0.7, "replay": 0.68}) is None
    assert medium_suggested({"print": 0.7, "replay": 0.3}) == "print"
    assert medium_suggested({"print": 0.2, "replay": 0.1}) is None
    scores = medium_scores(strengths(measure(draw("mask", 3), BOX).values))
    assert medium_suggested(scores) == "mask"


def test_colour_words() -> None:
    words = {"red": (0.9, 0.1, 0.1), "green": (0.1, 0.8, 0.2), "grey": (0.5, 0.5, 0.5), "brown": (0.4, 0.2, 0.1)}
    for word, rgb in words.items():
        assert colour_word(np.array(rgb)) == word


def test_unknown_captioner_lists_the_known() -> None:
    assert set(CAPTIONERS) == {"embedded", "transformers"}
    with pytest.raises(ConfigError, match=r"blip.*\n.*embedded"):
        general_captioner(CaptionConfig(captioner="blip"))
