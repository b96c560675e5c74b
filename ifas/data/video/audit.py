"""What filters threw away, counted per class, species and domain: a filter that removes attacks first is flagged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ifas.core.taxonomy import spoof_type_of
from ifas.data.readers import Refusal

#: Points by which the rejection rate of attacks may lie above that of bona fide, and the share a species may lose.
LARGEST_GAP, LARGEST_LOSS = 0.02, 0.05
#: Fewer rejected images are no pattern, whatever share they are.
FEWEST = 3


def selection_audit(refused: Iterable[Refusal], kept: Mapping[tuple[str, str], int]) -> dict[str, Any]:
    """Rejection rates with Wilson 95 % intervals, per stage.

    A stage is flagged where its rate for attacks is above that for bona fide by more than two points, or a species
    loses more than 5 %, and the intervals leave no doubt.

    Args:
        refused: those with a stage count.
        kept: images kept, by (PAI species, domain).

    Returns:
        JSON: `stages`: name -> `class`, `species`, `domain` -> value -> {rejected, n, rate, interval}; `flags`: texts.
    """
    rejected = Counter((r.stage, r.pai_species, r.domain) for r in refused if r.stage and r.pai_species)
    total: Counter[tuple[str, str]] = Counter(kept)
    for (_, species, domain), n in rejected.items():
        total[species, domain] += n
    stages: dict[str, Any] = {}
    flags: list[str] = []
    for stage in sorted({stage for stage, _, _ in rejected}):
        mine = Counter({(s, d): n for (one, s, d), n in rejected.items() if one == stage})
        tables = {
            "class": _rates(mine, total, lambda s, _: "live" if spoof_type_of(s) == "live" else "spoof"),
            "species": _rates(mine, total, lambda s, _: s),
            "domain": _rates(mine, total, lambda _, d: d),
        }
        stages[stage] = tables
        flags += _flags(stage, tables)
    return {"stages": stages, "flags": flags}


def _flags(stage: str, tables: Mapping[str, Mapping[str, Any]]) -> list[str]:
    live, spoof = tables["class"].get("live"), tables["class"].get("spoof")
    flags = []
    if (
        live
        and spoof
        and spoof["rejected"] >= FEWEST
        and spoof["rate"] - live["rate"] > LARGEST_GAP
        and spoof["interval"][0] > live["interval"][1]
    ):
        flags.append(
            f"stage {stage} throws away attacks first: {spoof['rate']:.1%} of {spoof['n']} attacks, "
            f"{live['rate']:.1%} of {live['n']} bona fide"
        )
    flags += [
        f"stage {stage} removes {row['rate']:.1%} of {row['n']} images of {species}"
        for species, row in tables["species"].items()
        if species != "live" and row["rejected"] >= FEWEST and row["interval"][0] > LARGEST_LOSS
    ]
    return flags


def _rates(rejected: Counter[tuple[str, str]], total: Counter[tuple[str, str]], group: Any) -> dict[str, Any]:
    from scipy.stats import binomtest

    bad: Counter[str] = Counter()
    n: Counter[str] = Counter()
    for (species, domain), count in total.items():
        n[group(species, domain)] += count
        bad[group(species, domain)] += rejected[species, domain]
    rows = {}
    for value in sorted(n):
        interval = binomtest(bad[value], n[value]).proportion_ci(method="wilson")
        rows[value] = {
            "rejected": bad[value],
            "n": n[value],
            "rate": round(bad[value] / n[value], 6),
            "interval": [round(float(interval.low), 6), round(float(interval.high), 6)],
        }
    return rows
