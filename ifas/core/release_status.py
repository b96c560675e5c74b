"""Which rows of a manifest may be trained on: new spoof data is not used until it was checked and released.

A row's `status` is `released`, `quarantined` (a person must release its batch first) or `canary` (never). Evaluation
sees every row. The name of a batch begins with the source that delivered it, so that the share of each source in the
training set can be capped.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ifas.core.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

RELEASED, QUARANTINED, CANARY = "released", "quarantined", "canary"

_SOURCE = re.compile(r"[a-z0-9][a-z0-9-]*")


def batch_name(source: str, number: int) -> str:
    """Name of the n-th batch of a source: `red-team.003`. Raises DataError where the source is no plain name."""
    if not _SOURCE.fullmatch(source):
        raise DataError(f"source {source!r} is not usable", "use lower-case letters, digits and -, such as red-team")
    return f"{source}.{number:03d}"


def source_of(batch: str) -> str:
    """Who delivered a batch."""
    return batch.rpartition(".")[0]


def released(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that training, tuning and thresholds may use."""
    return rows[rows["status"] == RELEASED]


def capped(rows: pd.DataFrame, share: float) -> tuple[pd.DataFrame, dict[str, int]]:
    """Rows in which each source of added batches has at most `share`, and how many rows of each source were left out.

    The base dataset, which was not added in a batch, is not capped. Which rows of a source stay is decided by
    `sample_id`, a hash, so the choice is the same everywhere. For each source alone, its n remaining rows satisfy
    n <= share * (base + n).

    Args:
        share: in [0, 1]; 1 caps nothing.
    """
    if share >= 1 or rows["batch"].isna().all():
        return rows, {}
    sources = rows["batch"].map(source_of, na_action="ignore")
    base = int(sources.isna().sum())
    most = int(share * base / (1 - share) + 1e-9)
    left_out: dict[str, int] = {}
    drop: list[object] = []
    for source, group in rows.groupby(sources, sort=True):
        beyond = group.sort_values("sample_id").index[most:]
        if len(beyond):
            left_out[str(source)] = len(beyond)
            drop += list(beyond)
    return rows.drop(index=drop), left_out
