"""Near-duplicate search: exact, across splits only."""

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from ifas.core.phash import MOST_FINE_BITS, words
from ifas.validation.leaks import in_several_splits, near_duplicates, nearest_across


def coarse_and_fine(a: int, b: int) -> tuple[int, int]:
    """In how many of the 64 bits that find candidates two hashes of 576 bits differ, and in how many of the others."""
    return ((a ^ b) >> 512).bit_count(), ((a ^ b) & (2**512 - 1)).bit_count()


def brute_force(codes: list[int], splits: list[int], limit: int) -> list[tuple[int, int]]:
    found = []
    for i, code in enumerate(codes):
        near = []
        for j in range(len(codes)):
            coarse, fine = coarse_and_fine(code, codes[j])
            if splits[j] != splits[i] and coarse <= limit and fine <= MOST_FINE_BITS:
                near.append((coarse, j))
        found.append(min(near) if near else (-1, -1))
    return found


@st.composite
def hashes(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Hashes a few flipped bits away from a few seeds, so that distances around the limit occur."""
    seeds = draw(st.lists(st.integers(0, 2**576 - 1), min_size=1, max_size=3))
    codes, splits = [], []
    for _ in range(draw(st.integers(1, 24))):
        code = draw(st.sampled_from(seeds))
        for bit in draw(st.sets(st.integers(512, 575), max_size=5)):
            code ^= 1 << bit
        code ^= 2 ** draw(st.integers(0, 65)) - 1  # around the number of finer bits that confirms
        codes.append(code)
        splits.append(draw(st.integers(0, 2)))
    return codes, splits


def as_words(codes: list[int]) -> np.ndarray:
    return words(f"{code:0144x}" for code in codes)


@given(data=hashes(), limit=st.integers(0, 4))
@settings(max_examples=150)
def test_search_equals_brute_force(data: tuple[list[int], list[int]], limit: int) -> None:
    codes, splits = data
    distance, partner = nearest_across(as_words(codes), np.array(splits), limit)
    assert list(zip(distance.tolist(), partner.tolist(), strict=True)) == brute_force(codes, splits, limit)


def test_search_equals_brute_force_for_any_limit_and_over_blocks() -> None:
    rng = np.random.default_rng(3)
    finer = [int.from_bytes(rng.bytes(64)) for _ in range(3)]
    codes = [int.from_bytes(rng.bytes(8)) << 512 | finer[n % 3] ^ (2 ** (n % 80) - 1) for n in range(700)]
    splits = rng.integers(0, 3, 700)
    for limit in (-1, 18, 26, 64):
        distance, partner = nearest_across(as_words(codes), splits, limit)
        expected = brute_force(codes, splits.tolist(), limit)
        assert list(zip(distance.tolist(), partner.tolist(), strict=True)) == expected


def test_one_bucket_of_identical_pictures_in_one_split_costs_nothing() -> None:
    codes = np.full((200_000, 9), 7, dtype=np.uint64)
    distance, partner = nearest_across(codes, np.r_[np.zeros(199_999, dtype=np.int64), 1], 2)
    assert set(distance.tolist()) == {0}
    assert set(partner[:-1].tolist()) == {199_999}
    assert partner[-1] == 0


def test_malformed_hashes_are_left_to_their_own_rule() -> None:
    rows = pd.DataFrame(
        {"sample_id": list("abc"), "phash": ["zz", None, "0" * 144], "split": ["train", "test", "test"]}
    )
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
