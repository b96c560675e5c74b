"""How often the captions that a model learns from name each attack.

A medium that few training captions name is rarely recognised later (CLIP's zero-shot accuracy is log-linear in the
frequency of a concept in its captions, arXiv 2404.04125). Evaluation compares these counts with the error per species.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ifas.core.release_status import released
from ifas.core.taxonomy import ATTACKS, media_named
from ifas.validation.derived import trained_on
from ifas.validation.section import Section, table

if TYPE_CHECKING:
    import pandas as pd

#: The report notes a species with fewer captions than this that name the right medium.
FEW = 10


def exposure(rows: pd.DataFrame, source_domains: Sequence[str]) -> Section:
    """Training captions by PAI species: how many there are, and how many name the right medium, another, or none."""
    seen = released(trained_on(rows, source_domains))
    seen = seen[seen["split"] == "train"]
    captions = seen["caption"].fillna("").astype(str)
    said = captions.map({text: tuple(media_named(text)) for text in captions.unique()})
    kinds: dict[str, dict[str, Any]] = {}
    for kind in ATTACKS:
        mine = seen["spoof_type"] == kind
        named = said.map({value: kind in value for value in said.unique()}).astype(bool)
        kinds[kind] = {"images": int(mine.sum()), "captions": int(named.sum()), "wrong": int((named & ~mine).sum())}
    species: dict[str, dict[str, int]] = {}
    for (name, kind), group in said.groupby([seen["pai_species"], seen["spoof_type"]]):
        if kind in ATTACKS:
            right = int(group.map(lambda words, kind=kind: kind in words).sum())
            none = int((group.map(len) == 0).sum())
            species[str(name)] = {
                "captions": len(group),
                "right_medium": right,
                "no_medium": none,
                "wrong_medium": len(group) - right - none,
            }
    untrained = set(rows.loc[rows["label"] == "spoof", "pai_species"]) - set(species)
    for name in sorted(map(str, untrained)):
        species[name] = {"captions": 0, "right_medium": 0, "no_medium": 0, "wrong_medium": 0}
    flags = [
        f"{name}: {n['right_medium']} of {n['captions']} training captions name the medium"
        for name, n in species.items()
        if n["right_medium"] < FEW
    ]
    return Section(
        id="exposure",
        title="What the training captions name",
        about="Captions of released training images in the source domains, by species. Right: the caption names the "
        "medium of the species' spoof type. A species with 0 captions is only met in evaluation.",
        head=("species", "captions", "right medium", "no medium", "another medium"),
        rows=table((name, *n.values()) for name, n in species.items()),
        flags=tuple(flags),
        facts={"spoof_types": kinds, "species": species},
    )
