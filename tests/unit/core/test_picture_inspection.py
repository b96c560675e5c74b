"""Every picture is inspected once: hashes in order, damaged pictures listed; a damaged shard is an error."""

from functools import partial

import pandas as pd
import pytest

from ifas.core.errors import CorruptShardError, DataError
from ifas.core.imaging import glance, header
from ifas.core.phash import phash
from ifas.core.picture_inspection import inspect_pictures, inspect_rows
from tests.unit.data.pictures import picture

PICTURES = [picture(n) for n in range(40)]
#: Damage inside a file whose end is whole: its header passes.
WHOLE = picture(1, 400, 300, "PNG")
HOLED = WHOLE[: len(WHOLE) // 2] + bytes(300) + WHOLE[len(WHOLE) // 2 + 300 :]


class Shard:
    """Pictures by row."""

    def __init__(self, images: list[bytes], corrupt: bool = False) -> None:
        self.images, self.corrupt = images, corrupt

    def read(self, shard: str, row: int) -> bytes:
        if self.corrupt:
            raise CorruptShardError(f"{shard} is corrupt")
        if row >= len(self.images):
            raise DataError(f"{shard} has no row {row}")
        return self.images[row]


@pytest.mark.parametrize("workers", [1, 3])
def test_hashes_come_in_order(workers: int) -> None:
    found = list(inspect_pictures((partial(bytes, data) for data in PICTURES), workers=workers))
    assert [one.phash for one in found] == [phash(glance(data)[0]) for data in PICTURES]
    assert {one.reason for one in found} == {None}


def test_one_bad_picture_is_a_finding() -> None:
    assert header(HOLED) == (400, 300)
    rows = pd.DataFrame({"sample_id": list("abcd"), "shard": "s", "row": [2, 1, 0, 9]}, index=[7, 8, 9, 10])
    found = inspect_rows(rows, Shard([PICTURES[0], b"no picture", HOLED]))
    assert list(found["sample_id"]) == list("abcd")
    assert found["phash"].notna().tolist() == [False, False, True, False]
    for words, reason in zip(("can't be decoded", "none of", None, "no row 9"), found["reason"], strict=True):
        assert reason is None if words is None else words in reason


def test_a_damaged_shard_is_no_bad_picture() -> None:
    rows = pd.DataFrame({"sample_id": ["a"], "shard": "s", "row": [0]})
    with pytest.raises(CorruptShardError, match="s is corrupt"):
        inspect_rows(rows, Shard(PICTURES, corrupt=True))
