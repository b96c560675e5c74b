"""Which images a reviewer sees: the worst mistakes first, then typical right ones of every kind."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

#: Group -> its heading. Order is the order on the page.
GROUPS: dict[str, str] = {
    "false_accepts": "Attacks that were accepted, worst first",
    "false_rejects": "Bona fide that were rejected, worst first",
    "right_rejects": "Attacks that were rejected, typical ones",
    "right_accepts": "Bona fide that were accepted, typical ones",
}


def choose(rows: pd.DataFrame, threshold: float, size: int) -> dict[str, list[int]]:
    """Index labels of at most `size` rows by group: a quarter each, and what one group does not need the others share.

    Args:
        rows: test rows with columns label, spoof_type, domain and score (null scores are left out).
        threshold: accepted when `score >= threshold`.
    """
    rows = rows[rows["score"].notna()]
    accepted, live = rows["score"] >= threshold, rows["label"] == "live"
    pools = {
        "false_accepts": rows[~live & accepted].sort_values("score", ascending=False, kind="stable").index.tolist(),
        "false_rejects": rows[live & ~accepted].sort_values("score", kind="stable").index.tolist(),
        "right_rejects": _typical(rows[~live & ~accepted]),
        "right_accepts": _typical(rows[live & accepted]),
    }
    taken = dict.fromkeys(GROUPS, 0)
    left = size
    while left > 0 and any(taken[g] < len(pools[g]) for g in GROUPS):
        for group in GROUPS:
            if left > 0 and taken[group] < len(pools[group]):
                taken[group] += 1
                left -= 1
    return {group: pools[group][: taken[group]] for group in GROUPS}


def _typical(rows: pd.DataFrame) -> list[int]:
    """Rows from each spoof type in turn, and within it from each domain; those nearest to the median score first."""
    by_type = []
    for _, of_type in rows.groupby("spoof_type", sort=True):
        by_domain = []
        for _, group in of_type.groupby("domain", sort=True):
            distance = (group["score"] - group["score"].median()).abs()
            by_domain.append(distance.sort_values(kind="stable").index.tolist())
        by_type.append(_in_turn(by_domain))
    return _in_turn(by_type)


def _in_turn(queues: list[list[int]]) -> list[int]:
    """One from each queue, again and again, until all are empty."""
    rounds = zip_longest(*queues)
    return [item for round_ in rounds for item in round_ if item is not None]
