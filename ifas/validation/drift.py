"""Changes against the previous revision: distributions, missing rows, changed labels, people in another split.

Distributions are compared by the population stability index, PSI = sum (p - q) ln(p / q) over the values of a column;
0.1 and 0.25 are its customary limits for a moderate and a large change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ifas.core.taxonomy import KEYWORDS
from ifas.validation.section import ID_DIGITS, Section, Shown, a_few, table

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("domain", "label", "spoof_type", "pai_species", "device", "illumination", "width", "height")
MODERATE, LARGE = 0.1, 0.25
#: Rarer values are merged into one; empty cells get this share, since the logarithm of 0 is not defined.
MOST_VALUES = 20
FLOOR = 1e-3
LISTED = 10
#: Share of rows that may be removed without a note.
MOST_GONE = 0.05

_SPECIES = ["sample_id", "pai_species_before", "pai_species"]


def psi(new: pd.Series, old: pd.Series) -> float:
    """Population stability index of two columns of categories; nulls are a category."""
    import numpy as np

    new, old = new.astype(object).where(new.notna(), "-"), old.astype(object).where(old.notna(), "-")
    count, before = new.value_counts(), old.value_counts()
    kept = before.add(count, fill_value=0).sort_values(ascending=False, kind="stable").index[:MOST_VALUES]
    p = np.array([*(count.get(v, 0) for v in kept), (~new.isin(kept)).sum()], dtype=float) / max(len(new), 1)
    q = np.array([*(before.get(v, 0) for v in kept), (~old.isin(kept)).sum()], dtype=float) / max(len(old), 1)
    p, q = np.maximum(p, FLOOR), np.maximum(q, FLOOR)
    return float(((p - q) * np.log(p / q)).sum())


def drift(rows: pd.DataFrame, before: pd.DataFrame) -> Section:
    """The manifest against that of the revision before. A person who moved to another split blocks: it is a leak."""
    measured = [(name, psi(*_binned(rows[name], before[name]))) for name in COLUMNS if {name} <= {*rows} & {*before}]
    if "caption" in rows and "caption" in before:
        for word in KEYWORDS:
            pattern = rf"\b{word}s?\b"
            said, was = (
                frame["caption"].fillna("").str.contains(pattern, case=False, regex=True) for frame in (rows, before)
            )
            if said.any() or was.any():
                measured.append((f"caption says {word}", psi(said, was)))
    both = before[["sample_id", "label", "pai_species"]].merge(
        rows[["sample_id", "label", "pai_species"]], on="sample_id", suffixes=("_before", "")
    )
    changed = both[(both["label"] != both["label_before"]) | (both["pai_species"] != both["pai_species_before"])]
    moved = _moved(rows, before)
    gone = int((~before["sample_id"].isin(rows["sample_id"])).sum())
    came = int((~rows["sample_id"].isin(before["sample_id"])).sum())
    flags = [f"{name}: PSI {value:.2f}, a large change" for name, value in measured if value >= LARGE]
    if gone > MOST_GONE * len(before):
        flags.append(f"{gone} of {len(before)} images of the revision before are gone")
    if len(changed):
        flags.append(
            f"{len(changed)} images changed their label or species: "
            + a_few([f"{str(i)[:ID_DIGITS]} from {a} to {b}" for i, a, b in changed[_SPECIES].to_numpy()])
        )
    return Section(
        id="drift",
        title="What changed since the revision before",
        about=f"Population stability index per column ({MODERATE} and {LARGE} are a moderate and a large change), "
        f"images by sample id: {came} came, {gone} of {len(before)} went, {len(changed)} changed label or species.",
        head=("column", "PSI", "change"),
        rows=table((name, value, _word(value)) for name, value in measured),
        flags=tuple(flags),
        blocking=(f"{len(moved)} people moved to another split since the revision before: {a_few(moved)}",)
        if moved
        else (),
        pictures=tuple(
            Shown(id=str(i), value=f"was {a}, now {b}") for i, a, b in changed[_SPECIES].head(LISTED).to_numpy()
        ),
        facts={
            "psi": {name: round(value, 4) for name, value in measured},
            "came": came,
            "gone": gone,
            "relabelled": len(changed),
            "moved_split": len(moved),
        },
    )


def _moved(rows: pd.DataFrame, before: pd.DataFrame) -> list[str]:
    """People whose images are now in another split than in the previous revision."""
    key = ["dataset", "subject_id"]
    old = before[[*key, "split"]].drop_duplicates()
    pairs = old.merge(rows[[*key, "split"]].drop_duplicates(), on=key, suffixes=("_before", ""))
    moved = pairs[pairs["split"] != pairs["split_before"]].drop_duplicates(key)
    return [f"{s} of {d} ({a} -> {b})" for d, s, a, b in moved[[*key, "split_before", "split"]].to_numpy()]


def _word(value: float) -> str:
    return "large" if value >= LARGE else "moderate" if value >= MODERATE else "small"


def _binned(new: pd.Series, old: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Numbers as tenths of the old column; other values as they are."""
    import numpy as np
    import pandas as pd

    if not pd.api.types.is_numeric_dtype(old) or old.nunique() <= MOST_VALUES:
        return new, old
    edges = np.unique(np.quantile(old, np.linspace(0.1, 0.9, 9)))
    return pd.Series(np.searchsorted(edges, new)), pd.Series(np.searchsorted(edges, old))
