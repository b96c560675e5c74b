"""Which rows may be trained on, and a run's fingerprint."""

import pytest
from toy_training import config, manifest

from ifas.core.errors import DataError
from ifas.training.job import fingerprint, rows_of


def test_rows_keep_the_manifests_order() -> None:
    rows = rows_of(manifest(6))
    assert [r.row for r in rows] == list(range(6))
    assert [r.live for r in rows] == [True, False, False] * 2


def test_missing_column_is_named() -> None:
    with pytest.raises(DataError, match="caption_kept"):
        rows_of(manifest().drop(columns=["caption_kept"]))


def test_one_class_only() -> None:
    frame = manifest()
    with pytest.raises(DataError, match="bona fide and attack"):
        rows_of(frame[frame["label"] == "live"])


def test_missing_caption_is_named() -> None:
    frame = manifest()
    frame.loc[4, "caption"] = None
    with pytest.raises(DataError, match=f"{4:064x}"):
        rows_of(frame)


def test_fingerprint_follows_what_changes_the_weights() -> None:
    base, rows = config(), rows_of(manifest())
    mark = fingerprint(base.model, base.train, rows)
    assert mark == fingerprint(base.model, base.train, rows_of(manifest()))
    assert mark == fingerprint(base.model, config("train.max_failures=9").train, rows)
    # The global batch shared out in another way is the same training.
    assert mark == fingerprint(base.model, config("train.workers=2", "train.batch=2").train, rows)
    for changed in ("train.seed=1", "train.workers=2", "train.alpha=0.5"):
        assert mark != fingerprint(base.model, config(changed).train, rows)
    assert mark != fingerprint(config("model.connector.width=64").model, base.train, rows)
    frame = manifest()
    frame.loc[0, "caption"] = "Another caption."
    assert mark != fingerprint(base.model, base.train, rows_of(frame))
