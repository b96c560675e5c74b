"""The filter of Algorithm 1 on a hand-made table, and the cut of medium clauses from bona fide captions."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifas.captioning.filter import filter_captions, without_media
from ifas.captioning.sentences import NOTHING_LEFT
from ifas.captioning.statistics import naming
from ifas.core.taxonomy import ATTACKS, KEYWORDS, media_named

TABLE = [
    # label, caption, kept
    ("print", "A face on a sheet of paper.", True),
    ("print", "A man reads a newspaper.", False),
    ("print", "PRINTED photo with a white edge", True),
    ("print", "A face on a screen.", False),
    ("print", "A face.", False),
    ("replay", "A screenshot of a face.", False),
    ("replay", "Two screens show a face.", True),
    ("replay", "A phone screen on a display, held by a hand.", True),
    ("replay", "A phone-like paper thing", True),
    ("mask", "A masked ball.", False),
    ("mask", "A face behind a mask in front of a screen.", True),
    ("mask", "A mannequin.", False),
    ("mannequin", "A shop dummy.", True),
    ("mannequin", "", False),
]


def table() -> pd.DataFrame:
    return pd.DataFrame(TABLE, columns=["spoof_type", "caption_general", "kept"])


def passes(rows: pd.DataFrame) -> list[bool]:
    return [bool(texts) for texts in filter_captions([(t,) for t in rows["caption_general"]], list(rows["spoof_type"]))]


def test_filter_keeps_what_names_its_own_medium() -> None:
    rows = table()
    assert passes(rows) == rows["kept"].tolist()


def test_a_sample_with_several_right_keywords_is_added_once() -> None:
    text = "phone screen display monitor tablet"
    assert filter_captions([(text, text)], ["replay"]) == [(text,)]


def test_filter_of_no_rows() -> None:
    assert filter_captions([], []) == []


@given(st.sampled_from(ATTACKS), st.lists(st.sampled_from([*KEYWORDS, "face", "newspaper", "screenshot", "wall"])))
def test_filter_equals_the_two_loops_of_the_paper(spoof_type: str, words: list[str]) -> None:
    """Reference: for every keyword, a whole word of the caption whose type equals the label."""
    added = set()
    for keyword, keyword_type in KEYWORDS.items():
        if keyword in words and keyword_type == spoof_type:
            added.add(0)
    assert filter_captions([(" ".join(words),)], [spoof_type]) == [(" ".join(words),) if added else ()]


@pytest.mark.parametrize(
    ("text", "expected", "cut"),
    [
        ("A face. It looks like a mask.", "A face.", 1),
        ("A face, a red top and a screen behind it.", "A face, a red top.", 1),
        ("A phone and a face.", NOTHING_LEFT, 2),
        ("A photo of a screen.", NOTHING_LEFT, 1),
        ("A face, and a newspaper.", "A face, and a newspaper.", 0),
        ("The skin shows natural shades and fine detail.", "The skin shows natural shades and fine detail.", 0),
    ],
)
def test_medium_clauses_are_cut_from_bona_fide_captions(text: str, expected: str, cut: int) -> None:
    assert without_media(text) == (expected, cut)


@given(st.lists(st.sampled_from([*KEYWORDS, "a face", "and", ",", ".", "soft light", "screens"]), max_size=12))
def test_nothing_that_was_cut_names_a_medium(words: list[str]) -> None:
    text, _ = without_media(" ".join(words))
    assert text
    assert not media_named(text)


def test_precision_and_coverage_by_hand() -> None:
    rows = table()
    counts = naming(rows["caption_general"], rows["spoof_type"])
    assert (counts.captions, counts.naming, counts.right) == (14, 9, 7)
    assert counts.coverage == pytest.approx(9 / 14, abs=1e-4)
    assert counts.precision == pytest.approx(7 / 9, abs=1e-4)
    nothing = naming(rows["caption_general"].iloc[:0], rows["spoof_type"].iloc[:0])
    assert nothing.precision is None
