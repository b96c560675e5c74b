"""Streamed pieces, joined, are the text; no piece holds half a character."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import tiny

from ifas.model.build import build
from ifas.model.growing_text import BROKEN, GrowingText
from ifas.model.processor import IfasProcessor


@pytest.fixture(scope="module")
def processor() -> IfasProcessor:
    return build(tiny())[1]


def pieces(processor: IfasProcessor, ids: list[int]) -> list[str]:
    growing = GrowingText(processor)
    return [*map(growing.add, ids), growing.end()]


@settings(max_examples=300)
@given(
    text=st.text(st.characters(exclude_characters="<|>", exclude_categories=["Cs"]), max_size=30)
)  # special tokens are no text
def test_pieces_of_any_text(processor: IfasProcessor, text: str) -> None:
    """The small tokenizer spells what it does not know byte by byte."""
    ids = processor.tokenizer.encode(text, add_special_tokens=False)
    said = pieces(processor, ids)
    assert "".join(said) == processor.text(ids) == " ".join(text.split()).removeprefix(".").strip()
    if BROKEN not in text:
        assert not any(BROKEN in piece for piece in said)


@settings(max_examples=300)
@given(ids=st.lists(st.integers(0, 511), max_size=30))
def test_pieces_of_any_tokens(processor: IfasProcessor, ids: list[int]) -> None:
    """A model may write bytes that are no text, and special tokens."""
    assert "".join(pieces(processor, ids)) == processor.text(ids)


def test_a_sentence_comes_word_by_word(processor: IfasProcessor) -> None:
    ids = processor.tokenizer.encode(". A face on a sheet of printed paper.", add_special_tokens=False)
    said = [piece for piece in pieces(processor, ids) if piece]
    assert said[:4] == ["A", " face", " on", " a"]


def test_a_tokenizer_that_tidies_spaces(processor: IfasProcessor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a tokenizer joins what follows to the word before: "it 's" becomes "it's"."""
    tokenizer = processor.tokenizer
    decode = tokenizer.decode
    monkeypatch.setattr(tokenizer, "clean_up_tokenization_spaces", True)
    monkeypatch.setattr(
        tokenizer, "decode", lambda ids, **k: decode(ids, **k).replace(" 's", "'s").replace(" n't", "n't")
    )
    for text in ("it 's a face, is n't it", "n 't n't 's", "a n't"):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert "".join(pieces(processor, ids)) == processor.text(ids)
