"""Columns derived a whole manifest at a time say what their plain definitions say of each row."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifas.core.taxonomy import media_named
from ifas.validation.derived import BIT, MEDIA, holds, with_media

WORDS = ("paper", "Papers", "newspaper", "MASK", "mas\u212a", "masks", "phone_", "é", "éphone", "screen", "дом", "_")
TEXTS = st.lists(st.sampled_from([*WORDS, " ", ",", "-", "2"]), max_size=6).map("".join)


@pytest.mark.parametrize("dtype", [object, "str"])
@given(captions=st.lists(TEXTS | st.none(), max_size=8))
@settings(max_examples=100)
def test_media_of_a_column_are_those_of_each_caption(dtype: object, captions: list[str | None]) -> None:
    found = with_media(pd.DataFrame({"caption": pd.Series(captions, dtype=dtype)}))[MEDIA].tolist()
    assert found == [sum(BIT[kind] for kind in media_named(text or "")) for text in captions]


def test_a_caption_that_is_no_text_names_nothing_and_half_a_character_does_not_matter() -> None:
    rows = pd.DataFrame(
        {"caption": pd.Series(["a mask", 3, None, b"mask", float("nan"), "a \ud800 mask"], dtype=object)}
    )
    assert with_media(rows)[MEDIA].tolist() == [BIT["mask"], 0, 0, 0, 0, BIT["mask"]]


@pytest.mark.parametrize(
    ("values", "right"),
    [
        ([np.zeros(4, np.float32), None, [1, 2.5], (1,)], True),
        ([np.zeros(4, np.float32), "0, 0, 1, 1"], False),
        ([np.array(["a"])], False),
        ([["a", "b"]], False),
        ([7], False),
    ],
)
def test_a_list_of_numbers_is_known_by_every_value(values: list[object], right: bool) -> None:
    assert holds(pd.Series(values, dtype=object), "list<float>") is right
