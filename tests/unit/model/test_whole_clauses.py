"""Explanations of whole clauses: whatever the language model would say, it can't mix the words of two clauses."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tiny_model import faces, tiny

from ifas.model.build import build, save
from ifas.model.judge import Judge
from ifas.model.processor import PHRASES
from ifas.model.whole_clauses import WholeClauses

CAPTIONS = (
    "A face before a grey background, soft light. The skin shows natural shades and fine detail.",
    "A face with a blue wall behind it, dim light. Lips, cheeks and skin differ softly in colour and the head stands "
    "clear of a soft background.",
    "The face of a person against a grey wall, dim light. Hardly any strong colour is left and small sharp highlights "
    "lie on the face. It looks like a photo printed on paper.",
    "A face before a red background, soft light. The colours are weak. It may be a mask over the face.",
)

#: How a text begins.
SCENE = "A face before a grey background, soft light."


def test_a_tokenizer_may_write_the_space_before_a_word_alone() -> None:
    clauses = WholeClauses.of(CAPTIONS)
    for text in (f"{SCENE} ", "A face ", f"{SCENE} The skin shows natural shades and "):
        assert clauses.may_go_on(text, "")
    assert not clauses.may_go_on("A fa ", "")


def steps(clauses: WholeClauses, text: str, attack: str = "") -> bool:
    """Whether a text can be written letter by letter."""
    return all(clauses.may_go_on(text[: at + 1], attack) for at in range(len(text)))


@pytest.mark.parametrize("caption", CAPTIONS)
def test_every_caption_may_be_said(caption: str) -> None:
    clauses = WholeClauses.of(CAPTIONS)
    attack = "print" if "printed" in caption else "mask" if "mask" in caption else ""
    assert steps(clauses, caption, attack)
    assert clauses.may_end(caption)


@pytest.mark.parametrize(
    "text",
    [
        "A face before a grey wall behind it, soft light.",  # two scenes mixed
        "A face before a grey background, soft light. The skin shows natural shades and the face is left.",
        f"{SCENE} The colours are weak and fine detail.",  # a joint that no caption has
        f"{SCENE} Hardly any strong colour is left and fine detail.",
        f"{SCENE} Hardly any strong colour is left and skin differ softly in colour.",
        "A face with a blue wall behind it, the colours are weak.",
        "A face before a grey background, soft light. Soft light.",  # said before
        f"{SCENE} The colours are weak. The colours are weak.",
        "fine detail.",  # not how a text begins
        "A face before a grey background, a soft light.",
    ],
)
def test_what_no_caption_joined_is_not_said(text: str) -> None:
    assert not steps(WholeClauses.of(CAPTIONS), text)


def test_clauses_meet_in_texts_that_no_caption_was() -> None:
    clauses = WholeClauses.of(CAPTIONS)
    scene, skin = "A face with a blue wall behind it, dim light.", "The skin shows natural shades and fine detail."
    text = f"{scene} The colours are weak. {skin}"
    assert text not in CAPTIONS
    assert steps(clauses, text)
    assert clauses.may_end(text)


@pytest.mark.parametrize(
    "text", ["", "A face", "A face before a grey background,", "The skin shows natural shades and", "fine detail"]
)
def test_a_text_ends_only_where_one_ended(text: str) -> None:
    assert not WholeClauses.of(CAPTIONS).may_end(text)


def test_bytes_that_are_no_character_yet() -> None:
    """A tokenizer of bytes writes a letter in several tokens: none is begun where every clause goes on with ASCII."""
    clauses = WholeClauses.of(["A face à gauche, éclairé. Ça va."])
    for text in ("A face ", "A face à gauche, ", "A face à gauche, éclair", "A face à gauche, éclairé. "):
        assert clauses.may_go_on(f"{text}\ufffd", "")
    for text in (
        "A face \ufffd\ufffd\ufffd\ufffd",
        "\ufffd",
        "A fa\ufffd",
        "A face \ufffd gauche",
        "A face à gauche, éclairé. Ça va.\ufffd",
    ):
        assert not clauses.may_go_on(text, "")


@pytest.mark.parametrize(
    "text",
    ["A face. ", "A face. The", "A face before a grey background, soft. ", "A face before a grey and ", "Skin and "],
)
def test_a_mark_or_space_does_not_end_a_clause(text: str) -> None:
    """A token of other tokenizers may hold a full stop, a space and the next word."""
    assert not WholeClauses.of(CAPTIONS).may_go_on(text, "")


def test_a_clause_from_which_no_end_can_be_reached_is_not_begun() -> None:
    captions = ["The skin is flat and its edge is straight, like a printed photo. It is soft.", "The skin is warm."]
    clauses = WholeClauses.of(captions)
    assert clauses.may_go_on("The skin is flat and", "print")
    assert not clauses.may_go_on("The skin is flat and", ""), "what must follow names a print"
    assert steps(clauses, captions[1])


def test_the_mark_of_an_abbreviation_ends_nothing() -> None:
    caption = "It was shown on a medium, e.g. a card, and tilted. Soft light."
    clauses = WholeClauses.of([caption])
    assert steps(clauses, caption)
    assert clauses.may_end(caption)
    for text in ("It was shown on a medium, e.g.", "It was shown on a medium, e.g. Soft light."):
        assert not clauses.may_end(text)
    assert not clauses.may_go_on("It was shown on a medium, e.g. Soft", "")


def test_another_attack_is_not_named() -> None:
    clauses = WholeClauses.of(CAPTIONS)
    printed, mask = "It looks like a photo printed on paper.", "It may be a mask over the face."
    assert steps(clauses, f"{SCENE} The colours are weak. {printed}", "print")
    for attack, text in (("mask", printed), ("print", mask), ("", mask), ("", printed)):
        assert not steps(clauses, f"{SCENE} The colours are weak. {text}", attack)


@pytest.mark.parametrize("attack", ["", "print", "mask", "replay"])
def test_whoever_writes_by_chance_writes_whole_clauses_and_can_always_end(attack: str) -> None:
    """Letters drawn among those that are allowed: no dead end, and nothing but clauses of captions."""
    clauses = WholeClauses.of(CAPTIONS)
    saved, known = WholeClauses.load(clauses.save()), set(clauses.save()["clauses"])
    letters = sorted(set("".join(CAPTIONS)) - {" "})
    tokens = [*letters, *(f" {letter}" for letter in letters), " "]
    texts = set()
    for seed in range(20):
        draw, text = random.Random(seed), ""
        while not clauses.may_end(text) or draw.random() < 0.5:
            free = [one for one in tokens if "  " not in text + one and clauses.may_go_on(text + one, attack)]
            if not free:
                assert clauses.may_end(text), f"stuck behind {text!r}"
                break
            text += draw.choice(free)
            assert saved.may_go_on(text, attack)
            assert len(text) < 1000
        assert set(WholeClauses.of([text]).save()["clauses"]) <= known, text
        texts.add(text)
    assert len(texts) > 5


def test_a_long_list_of_clauses_is_quick() -> None:
    captions = (f"A face number {n}, light {n}. It has {n} colours and nothing else {n}." for n in range(20_000))
    many = WholeClauses.of(captions)
    assert many.may_go_on("A face number 19", "")
    assert not many.may_go_on("A face number 19, light 7. It has 3 colors", "")


@pytest.mark.parametrize("name_attack", ["true", "false"])
def test_a_model_that_knows_no_grammar_answers_in_whole_clauses(tmp_path: Path, name_attack: str) -> None:
    """Random weights write noise; held to clauses, also after saving, they write those, and a stream the same."""
    model, processor = build(tiny("model.max_answer_tokens=400", f"model.name_attack={name_attack}"), seed=6)
    processor.clauses = WholeClauses.of([CAPTIONS[0]])
    save(model, processor, tmp_path / "m")
    verdicts, images = [True, False], faces(2)
    judge = Judge.load(tmp_path / "m")
    answers = judge.explain(images, verdicts)
    known = set(processor.clauses.save()["clauses"])
    for one in answers:
        phrase = PHRASES[one.spoof_type] if name_attack == "true" and not one.live else ""
        assert one.text.startswith(phrase)
        text = one.text[len(phrase) :]
        assert text.startswith(" ") == bool(phrase), one.text
        said = WholeClauses.of([text]).save()["clauses"]
        assert set(said) <= known, one.text
        assert len(text.split()) == sum(len(clause.split()) for clause in said), f"said twice: {one.text}"
        assert processor.clauses.may_end(text), one.text
    streamed = [piece for _, piece in judge.stream(images[:1], 0.5)]
    assert "".join(streamed) == judge.answer(images[:1], 0.5)[0].text
    judge.processor.clauses = None
    free = [one.text for one in judge.explain(images, verdicts)]
    assert not any(set(WholeClauses.of([text]).save()["clauses"]) <= known for text in free)
