"""Near-duplicate search: exact, across splits only."""

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from ifas.validation.leaks import in_several_splits, near_duplicates, nearest_across


def brute_force(codes: list[int], splits: list[int], limit: int) -> list[tuple[int, int]]:
    found = []
    for i, code in enumerate(codes):
        near = [((code ^ codes[j]).bit_count(), j) for j in range(len(codes)) if splits[j] != splits[i]]
        near = [pair for pair in near if pair[0] <= limit]
        found.append(min(near) if near else (-1, -1))
    return found


@st.composite
def hashes(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Hashes a few flipped bits away from a few seeds, so that distances around the limit occur."""
    seeds = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=3))
    codes, splits = [], []
    for _ in range(draw(st.integers(1, 24))):
        code = draw(st.sampled_from(seeds))
        for bit in draw(st.sets(st.integers(0, 63), max_size=5)):
            code ^= 1 << bit
        codes.append(code)
        splits.append(draw(st.integers(0, 2)))
    return codes, splits


@given(data=hashes(), limit=st.integers(0, 4))
@settings(max_examples=150)
def test_search_equals_brute_force(data: tuple[list[int], list[int]], limit: int) -> None:
    codes, splits = data
    distance, partner = nearest_across(np.array(codes, dtype=np.uint64), np.array(splits), limit)
    assert list(zip(distance.tolist(), partner.tolist(), strict=True)) == brute_force(codes, splits, limit)


def test_search_equals_brute_force_for_any_limit_and_over_blocks() -> None:
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 2**64, 700, dtype=np.uint64)
    splits = rng.integers(0, 3, 700)
    for limit in (-1, 18, 26, 64):
        distance, partner = nearest_across(codes, splits, limit)
        expected = brute_force([int(c) for c in codes], splits.tolist(), limit)
        assert list(zip(distance.tolist(), partner.tolist(), strict=True)) == expected


def test_one_bucket_of_identical_pictures_in_one_split_costs_nothing() -> None:
    codes = np.full(200_000, 7, dtype=np.uint64)
    distance, partner = nearest_across(codes, np.r_[np.zeros(199_999, dtype=np.int64), 1], 2)
    assert set(distance.tolist()) == {0}
    assert set(partner[:-1].tolist()) == {199_999}
    assert partner[-1] == 0


def test_malformed_hashes_are_left_to_their_own_rule() -> None:
    rows = pd.DataFrame({"sample_id": list("abc"), "phash": ["zz", None, "0" * 16], "split": ["train", "test", "test"]})
    assert near_duplicates(rows, 4).isna().all()
    assert near_duplicates(rows.head(2), 4).isna().tolist() == [True, True]


def test_same_name_in_two_datasets_is_two_people() -> None:
    rows = pd.DataFrame(
        {
            "dataset": ["a", "b", "b", "b"],
            "subject_id": ["1", "1", "2", "2"],
            "split": ["train", "test", "train", "dev"],
        }
    )
    found = in_several_splits(rows, "subject_id")
    assert found.isna().tolist() == [True, True, False, False]
    assert found[2] == "person 2 of b is in dev and train"


NAMES = st.sampled_from(["a", "b", "c", None])
SPLITS = st.sampled_from(["train", "dev", "test", None])


@given(table=st.lists(st.tuples(NAMES, NAMES, SPLITS), max_size=12))
@settings(max_examples=200)
def test_people_in_several_splits_are_those_of_a_plain_search(table: list[tuple[str | None, ...]]) -> None:
    rows = pd.DataFrame(table, columns=["dataset", "subject_id", "split"], dtype=object)
    seen: dict[tuple[str | None, ...], set[str]] = {}
    for *person, split in table:
        if None not in (*person, split):
            seen.setdefault(tuple(person), set()).add(str(split))
    expected = [
        f"person {name} of {dataset} is in {' and '.join(sorted(seen[dataset, name]))}"
        if len(seen.get((dataset, name), ())) > 1
        else None
        for dataset, name, _ in table
    ]
    found = in_several_splits(rows, "subject_id")
    assert [None if pd.isna(text) else text for text in found] == expected
