"""What changed in the data since the champion: counts from both lineages, single images where both tables are here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ifas.core.records import Lineage
from ifas.review.judged import Judged

if TYPE_CHECKING:
    import pandas as pd

#: What makes an image another one for training and evaluation.
COLUMNS = ("label", "spoof_type", "pai_species", "split", "domain", "status")


@dataclass(frozen=True)
class Row:
    """Images of one domain, split and spoof type, then and now."""

    domain: str
    split: str
    kind: str
    before: int
    now: int


@dataclass(frozen=True)
class Single:
    """Images that came, went or changed, by domain and species; None where a table is not here."""

    came: Mapping[str, int]
    went: Mapping[str, int]
    changed: Mapping[str, int]


def counts(ours: Lineage | None, theirs: Lineage | None) -> list[Row]:
    """Numbers of images of the candidate's data, beside the champion's."""
    now, before = _counts(ours), _counts(theirs)
    keys = sorted(now.keys() | before.keys())
    return [Row(*key, before=before.get(key, 0), now=now.get(key, 0)) for key in keys]


def single(ours: Judged, theirs: Judged) -> Single | None:
    """What became of single images; None where one of the tables is not here, or is not the one of its run."""
    if not (ours.dataset_proven and theirs.dataset_proven and ours.dataset and theirs.dataset):
        return None
    now, before = (_by_id(one.dataset.manifest) for one in (ours, theirs) if one.dataset)
    both = now.index.intersection(before.index)
    other = (now.loc[both, list(COLUMNS)].astype(str) != before.loc[both, list(COLUMNS)].astype(str)).any(axis=1)
    return Single(
        came=_named(now.loc[now.index.difference(before.index)]),
        went=_named(before.loc[before.index.difference(now.index)]),
        changed=_named(now.loc[both[other.to_numpy()]]),
    )


def _counts(lineage: Lineage | None) -> dict[tuple[str, str, str], int]:
    ingest = lineage.of("ingest") if lineage else None
    index: Any = ingest.facts.get("index") if ingest else None
    found: dict[tuple[str, str, str], int] = {}
    for domain, splits in (index or {}).get("counts", {}).items():
        for split, kinds in splits.items():
            for kind, n in kinds.items():
                found[str(domain), str(split), str(kind)] = int(n)
    return found


def _by_id(manifest: pd.DataFrame) -> pd.DataFrame:
    return manifest.drop_duplicates("sample_id").set_index("sample_id")


def _named(rows: pd.DataFrame) -> dict[str, int]:
    counted = Counter(
        f"{domain}, {species}" for domain, species in zip(rows["domain"], rows["pai_species"], strict=True)
    )
    return dict(sorted(counted.items()))
