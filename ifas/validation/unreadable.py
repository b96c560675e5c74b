"""Images that can't be decoded: listed, left out of training, and blocking only if there are too many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ifas.core.records import UNREADABLE_FILE
from ifas.validation.section import Section, a_few, table

if TYPE_CHECKING:
    import pandas as pd

#: Columns of the dataset's manifest that UNREADABLE_FILE repeats.
COLUMNS = ("sample_id", "source", "domain", "split", "pai_species", "status")
#: Images that the report names; the file has all.
SHOWN = 50


def unreadable(rows: pd.DataFrame, looked: pd.DataFrame) -> pd.DataFrame:
    """The rows of `UNREADABLE_FILE`: COLUMNS of the dataset's manifest and `reason`.

    Args:
        rows: the dataset's manifest.
        looked: `core.picture_inspection.inspect_rows` of these rows.
    """
    reason = looked["reason"].to_numpy()
    listed = rows[list(COLUMNS)].assign(reason=reason)
    return listed[looked["reason"].notna().to_numpy()].astype(dict.fromkeys((*COLUMNS, "reason"), "string"))


def with_hashes(rows: pd.DataFrame, looked: pd.DataFrame) -> pd.DataFrame:
    """Rows of a captioned manifest with the column `phash`, without those whose image can't be decoded."""
    if "sample_id" not in rows:
        return rows
    seen = looked.drop_duplicates("sample_id").set_index("sample_id")
    readable = ~rows["sample_id"].isin(seen.index[seen["reason"].notna()])
    return rows.assign(phash=rows["sample_id"].map(seen["phash"]).astype(object))[readable].reset_index(drop=True)


def section(listed: pd.DataFrame, images: int, most: float) -> Section:
    """The report of these images. Args: `images`: size of the dataset; `most`: share above which they block."""
    share = len(listed) / images if images else 0.0
    count = f"{len(listed)} of {images} images can't be decoded"
    columns = listed[["source", "reason", "domain", "split"]].to_numpy()
    named = ": " + a_few([f"{file}: {why} (domain {d}, split {s})" for file, why, d, s in columns])
    return Section(
        id="unreadable",
        title="Images that can't be decoded",
        about=f"{count}. Training leaves them out; {UNREADABLE_FILE} beside this page lists all. More than "
        f"{most:.1%} stops the run (validation.max_unreadable).",
        head=("source", "sample id", "species", "why"),
        rows=table(listed[["source", "sample_id", "pai_species", "reason"]].head(SHOWN).to_numpy()),
        flags=(count + named,) if len(listed) and share <= most else (),
        blocking=(f"{count}, at most {most:.1%} may be (validation.max_unreadable){named}",) if share > most else (),
        facts={"unreadable": len(listed), "images": images},
    )
