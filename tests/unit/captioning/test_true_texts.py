"""No training text names a wrong medium, or claims a cue or a scene that was not measured."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_faces import BOX, draw
from hypothesis import given
from hypothesis import strategies as st

from ifas.captioning.embedded import EmbeddedCaptioner
from ifas.captioning.filter import filter_captions, true_to_label
from ifas.captioning.indicators import INDICATORS, NAMED_FROM, medium_chances
from ifas.captioning.kept import Kept
from ifas.captioning.measure import FEATURES, measure
from ifas.captioning.scene import Scene
from ifas.captioning.sentences import NOTHING_LEFT
from ifas.captioning.specialists import Measurement, measurements, specialists
from ifas.captioning.supported import supported, unsupported
from ifas.core.config import CaptionConfig
from ifas.core.imaging import decode
from ifas.core.taxonomy import ATTACKS, KEYWORDS, SPOOF_TYPES, media_named
from tests.conftest import SHARED

WORDS = [*KEYWORDS, "a face", "and", ",", ".", ";", "soft light", "screens", "with a red top", "small letters"]


@given(st.lists(st.sampled_from(WORDS), max_size=12), st.sampled_from(SPOOF_TYPES), st.sampled_from(["cut", "correct"]))
def test_no_text_names_another_medium_than_its_label(words: list[str], spoof_type: str, how: str) -> None:
    text, cut = true_to_label(" ".join(words), spoof_type, how)  # type: ignore[arg-type]
    assert text or not words
    assert set(media_named(text)) <= {spoof_type}
    if not set(media_named(" ".join(words))) - {spoof_type}:
        assert (text, cut) == (" ".join(words), 0)
    elif how == "correct" and spoof_type in ATTACKS:
        assert media_named(text) == [spoof_type]


def test_a_wrong_medium_is_cut_or_corrected_and_the_rest_stays() -> None:
    text = "A face before a grey wall, soft light. It looks like a mask."
    assert true_to_label(text, "mask", "cut") == (text, 0)
    assert true_to_label(text, "print", "cut") == ("A face before a grey wall, soft light.", 1)
    assert true_to_label(text, "live", "correct") == ("A face before a grey wall, soft light.", 1)
    corrected, _ = true_to_label(text, "print", "correct")
    assert corrected.startswith("A face before a grey wall, soft light. ")
    assert media_named(corrected) == ["print"]


def test_several_captions_of_an_attack_pass_each_once() -> None:
    said = [("A face.", "A screen.", "A mask.", "A screen."), ("A screen.",), ()]
    assert filter_captions(said, ["replay", "print", "mask"]) == [("A screen.",), (), ()]


SCENE = Scene("grey", "red", "soft")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A face before a grey background, a red top, soft light.", None),
        ("A face before a blue background, a red top, soft light.", NOTHING_LEFT),
        ("A face before a gray wall, a black top, soft light.", "A face before a gray wall, soft light."),
        ("A face in soft light. Small sharp highlights lie on the face.", "A face in soft light."),
        ("A face, and fine detail. A straight dark frame runs beside the head.", None),
    ],
)
def test_what_was_not_measured_is_cut(text: str, expected: str | None) -> None:
    seen = {name: Measurement(1.0, float(name == "bezel")) for name in specialists()}
    left, cut = supported(text, seen, SCENE)
    assert left == (expected or text)
    assert bool(cut) == bool(expected)
    assert not unsupported(left, seen, SCENE)


def test_the_embedded_captioner_says_only_what_the_specialists_measure() -> None:
    claims = 0
    for kind in ("live", "print", "replay", "mask"):
        for i in range(8):
            one = measure(draw(kind, i, 0.6 if i % 3 == 2 else 0.0), BOX)
            (caption,) = EmbeddedCaptioner().caption([one])
            assert not unsupported(caption.text, measurements(one), one.scene), caption.text
            claims += bool(caption.text.count(". "))
    assert claims > 10


def test_draws_are_fixed_by_picture_and_seed_and_hard_attacks_get_their_medium() -> None:
    config = CaptionConfig()
    attacks = [(kind, measure(draw(kind, i, 1.0), BOX)) for kind in ("print", "replay", "mask") for i in range(6)]
    captioner = EmbeddedCaptioner()
    drawn = captioner.sample([one for _, one in attacks], 15, config)
    assert captioner.sample([one for _, one in attacks[::-1]], 15, config) == drawn[::-1]
    assert captioner.sample([attacks[0][1]], 15, config.model_copy(update={"seed": 3})) != drawn[:1]
    first = captioner.caption([one for _, one in attacks])
    plain = sum(kind in media_named(caption.text) for (kind, _), caption in zip(attacks, first, strict=True))
    passed = filter_captions(drawn, [kind for kind, _ in attacks])
    assert plain < len(attacks) / 2
    assert sum(map(bool, passed)) > 0.8 * len(attacks)


def test_chances_follow_the_scores() -> None:
    chances = medium_chances({"print": 0.9, "replay": 0.1}, 0.2)
    assert sum(chances.values()) == pytest.approx(1)
    assert chances["print"] > chances[None] > chances["replay"] > 0
    assert medium_chances({"print": NAMED_FROM}, 0.2)[None] == pytest.approx(0.5)
    assert medium_chances({"print": 0.9, "replay": 0.1}, 0.01)["print"] > 0.999


def test_kept_captions_are_balanced_and_held_out_by_subject() -> None:
    passed = [("a", "b"), ("a",), (), ("c", "d", "e"), ("f",), ("g",), ("h",)]
    media = ["print", "print", "live", "mask", "print", "print", "print"]
    people = ["p", "q", "r", "s", "t", "p", "q"]
    kept = Kept.of(passed, media, people)
    assert len(kept) == 9
    total = {m: kept.weights[[one == m for one in kept.media]].sum() for m in ("print", "mask")}
    assert total["print"] == pytest.approx(total["mask"])
    per_picture = [kept.weights[kept.places == place].sum() for place in (0, 1, 4, 5, 6)]
    assert per_picture == pytest.approx([per_picture[0]] * 5)
    bare = Kept.of(passed, media, people, balance=False)
    assert bare.weights[bare.places == 3].sum() == pytest.approx(bare.weights[bare.places == 1].sum())
    held_once: list[str] = []
    for learned, held in kept.folds(0.25, seed=0):
        mine, others = {kept.subjects[i] for i in held}, {kept.subjects[i] for i in learned}
        assert mine
        assert not mine & others
        assert len(learned) + len(held) == len(kept)
        held_once += mine
    assert sorted(held_once) == ["p", "q", "s", "t"]
    assert list(kept.folds(0.0, seed=0)) == []


ATTACK_CUES = [one for one in INDICATORS if any(weight > 0 for weight in one.speaks_for.values())]


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("boxed", [False, True])
def test_real_people_get_few_attack_cues_and_no_medium(boxed: bool) -> None:
    """Figures in docs/captions.md. With and without the box of a face detector."""
    from ifas.faces.detector import Mtcnn

    files = sorted((SHARED / "portraits").glob("*.jpg"))
    assert len(files) == 400
    cued, doubted = 0, 0
    for file in files:
        picture = decode(file.read_bytes())
        one = measure(picture, Mtcnn().detect(picture)[0].box if boxed else None)
        (caption,) = EmbeddedCaptioner().caption([one])
        assert media_named(caption.text) == [], caption.text
        cued += any(phrase in caption.text.lower() for cue in ATTACK_CUES for phrase in cue.phrases)
        quick = {name: each.measure(one) for name, each in specialists().items() if name != "screen text"}
        doubted += any("live" in specialists()[name].refutes and m.confidence >= 1 for name, m in quick.items())
    assert cued <= 0.05 * len(files)
    assert doubted <= 0.01 * len(files)


def test_features_are_finite_on_pictures_without_anything_to_measure() -> None:
    for picture in (np.zeros((40, 30, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8), draw("live", 3)):
        one = measure(picture).features
        assert one.shape == (FEATURES,)
        assert np.isfinite(one).all()
