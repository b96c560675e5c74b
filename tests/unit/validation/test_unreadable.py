"""Pictures that can't be decoded: listed, noted, and blocking only above the configured share."""

import captioned
import pandas as pd

from ifas.core.config import ValidateConfig
from ifas.validation.rules import rules
from ifas.validation.suite import check, conclude
from ifas.validation.unreadable import section, unreadable, with_hashes


def looked(rows: pd.DataFrame, *bad: int) -> pd.DataFrame:
    """The result of inspecting these rows, with those in `bad` damaged."""
    reason = pd.Series([f"cut {i}" if i in bad else None for i in range(len(rows))], dtype=object)
    hashes = rows["phash"].astype(object).where(reason.isna(), None)
    return pd.DataFrame({"sample_id": rows["sample_id"], "phash": hashes, "reason": reason})


def test_bad_pictures_are_listed_with_source_and_reason() -> None:
    rows = captioned.manifest()
    listed = unreadable(rows, looked(rows, 3, 20))
    assert listed["source"].tolist() == ["3.png", "20.png"]
    assert listed["reason"].tolist() == ["cut 3", "cut 20"]
    assert listed["split"].tolist() == ["train", "dev"]
    assert len(unreadable(rows, looked(rows))) == 0


def test_rules_see_the_hashes_of_the_pictures_that_can_be_read() -> None:
    rows = captioned.manifest()
    # A captioner that decodes has left row 3 out; one that does not has not. An older manifest brings hashes along.
    stale = rows.assign(phash="0" * 144)
    for captions in (rows.drop(columns="phash"), stale, stale.drop(index=3)):
        seen = with_hashes(captions, looked(rows, 3))
        assert seen["sample_id"].tolist() == rows["sample_id"].drop(3).tolist()
        assert seen["phash"].tolist() == rows["phash"].drop(3).tolist()
        found = check(seen, rules(ValidateConfig()), ("office", "street"))
        assert conclude(found, seen).passed


def test_a_captioned_picture_that_nobody_looked_at_blocks() -> None:
    rows = captioned.manifest()
    seen = with_hashes(rows, looked(rows).iloc[1:])
    failed = {one.rule.id for one in check(seen, rules(ValidateConfig()), ("office", "street")) if one.blocks}
    assert failed == {"values-present"}


def test_a_few_are_noted_and_too_many_block() -> None:
    rows = captioned.manifest()
    listed = unreadable(rows, looked(rows, 3))
    noted = section(listed, len(rows), 0.05)
    assert "1 of 42" in noted.flags[0]
    assert "3.png: cut 3" in noted.flags[0]
    assert noted.blocking == ()
    assert noted.facts == {"unreadable": 1, "images": 42}
    stopped = section(listed, len(rows), 0.01)
    assert stopped.flags == ()
    assert "1 of 42 images can't be decoded, at most 1.0% may be" in stopped.blocking[0]
    assert f"(domain {rows.at[3, 'domain']}, split {rows.at[3, 'split']})" in stopped.blocking[0]
    assert not conclude((), rows, [stopped]).passed
    none = section(unreadable(rows, looked(rows)), len(rows), 0.0)
    assert none.flags == none.blocking == ()
