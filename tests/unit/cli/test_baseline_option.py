"""`ifas run --baseline`: files of scores are checked, and what they cover is told, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ifas.data.registry import Registry


def scores_of(registry: Registry, file: Path, splits: tuple[str, ...] = ("dev", "test"), least: int = 0) -> Path:
    """A file without an error, of these splits; the first `least` rows are left out."""
    rows = registry.manifest("toy", "HEAD")
    rows = rows[rows["split"].isin(splits)].iloc[least:]
    rows.assign(score=rows["label"].map({"live": 0.9, "spoof": 0.1}))[["sample_id", "score"]].to_csv(file, index=False)
    return file


def test_files_are_checked_before_anything_runs(registry: Registry, tmp_path: Path, ifas: Any) -> None:
    good = scores_of(registry, tmp_path / "good.csv", least=4)
    (tmp_path / "train.csv").write_text(scores_of(registry, tmp_path / "t.csv", ("train",)).read_text())
    (tmp_path / "other.csv").write_text("sample_id,score\nabc,0.5\n")
    (tmp_path / "wild.csv").write_text("sample_id,score\nabc,7\n")
    given = (f"ingest.registry={registry.path}", "ingest.dataset=toy", f"gate.ledger=sqlite:///{tmp_path / 'l.db'}")
    words = [word for item in given for word in ("-s", item)]

    def said(*files: str) -> Any:
        return ifas("run", "-c", "tiny", "--dry-run", *words, *(w for one in files for w in ("--baseline", one)))

    fine = said(f"good={good}")
    assert fine.code == 0, fine.err
    assert "baseline good scores " in fine.err
    assert " dev images and " in fine.err
    assert "ingest" in fine.out
    wrong = said("gone=nowhere.csv", f"other={tmp_path / 'other.csv'}", f"wild={tmp_path / 'wild.csv'}")
    assert wrong.code == 3
    for text in ("nowhere.csv does not exist", "1 of 1 sample_ids are of no image", "baseline wild: 1 of 1 scores"):
        assert text in wrong.err
    none = said(f"train={tmp_path / 'train.csv'}")
    assert "baseline train has no score of any of the" in none.err
    assert said(f"linear_probe={good}").code == said(f"a b={good}").code == said("good").code == 2
