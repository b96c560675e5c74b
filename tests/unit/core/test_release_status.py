"""Which rows may be trained on, and how many of one source."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifas.core.errors import DataError
from ifas.core.release_status import batch_name, capped, released, source_of


def rows(base: int, sources: dict[str, int]) -> pd.DataFrame:
    batches = [None] * base + [batch_name(s, 1 + i % 2) for s, n in sources.items() for i in range(n)]
    ids = [f"{hash((i, 'x')) % 2**64:016x}" for i in range(len(batches))]
    return pd.DataFrame({"sample_id": ids, "batch": pd.Series(batches, dtype=object), "status": "released"})


@given(
    base=st.integers(0, 60),
    sources=st.dictionaries(st.sampled_from(["a", "b", "red-team"]), st.integers(1, 40), max_size=3),
    share=st.floats(0.01, 0.99),
)
def test_no_source_has_more_than_its_share(base: int, sources: dict[str, int], share: float) -> None:
    frame = rows(base, sources)
    kept, left_out = capped(frame, share)
    counts = kept["batch"].dropna().map(source_of).value_counts()
    assert kept["batch"].isna().sum() == base
    for source, n in sources.items():
        stays = int(counts.get(source, 0))
        assert stays + left_out.get(source, 0) == n
        # Of the base and this source together it is at most the share, and one more would be too many.
        assert stays <= share * (base + stays) + 1e-6
        assert stays == n or stays + 1 > share * (base + stays + 1) - 1e-6


def test_the_choice_does_not_depend_on_the_order() -> None:
    frame = rows(10, {"a": 30})
    kept, _ = capped(frame, 0.2)
    again, _ = capped(frame.sample(frac=1, random_state=3), 0.2)
    assert set(kept["sample_id"]) == set(again["sample_id"])
    assert capped(frame, 1.0)[0] is frame


def test_only_released_rows_are_released() -> None:
    frame = rows(3, {}).assign(status=["released", "quarantined", "canary"])
    assert list(released(frame).index) == [0]


@pytest.mark.parametrize("source", ["", "Red", "a.b", "a/b", "-a"])
def test_names_of_sources_are_plain(source: str) -> None:
    with pytest.raises(DataError, match="red-team"):
        batch_name(source, 1)
