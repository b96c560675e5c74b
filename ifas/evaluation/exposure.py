"""Training captions against the error on each PAI species: is a species that captions rarely name missed more often?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: With fewer species a rank correlation says nothing.
FEWEST = 4


def exposure_against_error(
    counts: Mapping[str, Mapping[str, int]], apcer: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Per species of the evaluation: training captions that name the right medium, and APCER.

    Args:
        counts: by species, `captions` and `right_medium`, as validation counted them; others were not trained on.
        apcer: by species, entries with `value`, `n` and `interval`.

    Returns:
        `rows`: species, captions, right, value, n, interval. `spearman`: rank correlation of captions that name the
        medium with APCER and its two-sided p, null below FEWEST species or where one side does not vary.
    """
    rows = [
        {
            "species": species,
            "captions": int(counts.get(species, {}).get("captions", 0)),
            "right": int(counts.get(species, {}).get("right_medium", 0)),
            "value": entry["value"],
            "n": entry["n"],
            "interval": entry.get("interval"),
        }
        for species, entry in sorted(apcer.items())
        if entry.get("value") is not None
    ]
    right, errors = [row["right"] for row in rows], [row["value"] for row in rows]
    if len(rows) < FEWEST or len(set(right)) < 2 or len(set(errors)) < 2:
        return {"rows": rows, "spearman": None}
    from scipy.stats import spearmanr

    found = spearmanr(right, errors)
    return {"rows": rows, "spearman": {"rho": float(found.statistic), "p": float(found.pvalue), "n": len(rows)}}
