"""Is an explanation true: does it fit its verdict, the attack that was really made, and what was measured.

Media are read from a text by the keyword dictionary of Algorithm 1 (`core.taxonomy.media_named`), cues by the words of
the visual specialists (`core.claims`). A negation ("no paper is visible") counts as naming the medium; the captions
that the model learns from do not contain any.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ifas.core.taxonomy import ATTACKS, SPOOF_TYPES, media_named
from ifas.evaluation.rates import Rate, people

if TYPE_CHECKING:
    import pandas as pd


def agreement(rows: pd.DataFrame) -> Rate:
    """Explanations that name an attack medium exactly when the image was rejected: (agreeing, all explained)."""
    explained = _explained(rows)
    fits = [
        bool(media_named(text)) != bool(accepted)
        for text, accepted in zip(explained["explanation"], explained["verdict"], strict=True)
    ]
    return Rate.of(fits, people(explained))


def contradictions(rows: pd.DataFrame) -> Rate:
    """Explanations that name a medium which is not that of their answer's spoof type, or any after a live verdict."""
    explained = _explained(rows)
    wrong = [
        any(kind != named for kind in media_named(text))
        for text, named in zip(explained["explanation"], explained["spoof_type_named"], strict=True)
    ]
    return Rate.of(wrong, people(explained))


def commonest(rows: pd.DataFrame) -> Rate:
    """How many explanations are the commonest one, word by word."""
    explained = _explained(rows)
    # Of two that are as common, the first in the alphabet: its interval must not depend on the order of the rows.
    counts = sorted(Counter(explained["explanation"]).items(), key=lambda item: (-item[1], item[0]))
    return Rate.of(explained["explanation"] == (counts[0][0] if counts else None), people(explained))


def right_medium(rows: pd.DataFrame) -> Rate:
    """Attacks that were rejected and explained: (those whose spoof type was named, all of them)."""
    caught = _explained(rows)
    caught = caught[(caught["label"] == "spoof") & ~caught["verdict"].astype(bool)]
    return Rate.of(caught["spoof_type_named"] == caught["spoof_type"], people(caught))


def right_medium_by_type(rows: pd.DataFrame) -> dict[str, Rate]:
    """`right_medium` of each spoof type of which an attack was rejected and explained."""
    rates = {kind: right_medium(rows[rows["spoof_type"] == kind]) for kind in ATTACKS}
    return {kind: rate for kind, rate in rates.items() if rate.n}


def attacks_named(rows: pd.DataFrame) -> dict[str, dict[str, int]]:
    """True spoof type -> what the answer said it is -> number of explained images; `live`: bona fide, or accepted."""
    explained = _explained(rows)
    counts = Counter(zip(explained["spoof_type"], explained["spoof_type_named"], strict=True))
    there = [kind for kind in SPOOF_TYPES if (explained["spoof_type"] == kind).any()]
    return {true: {named: counts[true, named] for named in SPOOF_TYPES} for true in there}


def cues_not_measured(rows: pd.DataFrame) -> Rate:
    """Of the cues that explanations claim, those that no specialist measured; images without evidence don't count."""
    known = _with_evidence(rows)
    pairs = list(_cues(known))
    wrong = [len(claimed - measured) for claimed, measured in pairs]
    return Rate.of(wrong, people(known), [len(claimed) for claimed, _ in pairs])


def cues_claimed(rows: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Cue -> explained images on which it was `measured`, on which it was `claimed`, and `both`."""
    pairs = list(_cues(_with_evidence(rows)))
    names = sorted({name for claimed, measured in pairs for name in claimed | measured})
    return {
        name: {
            "measured": sum(name in measured for _, measured in pairs),
            "claimed": sum(name in claimed for claimed, _ in pairs),
            "both": sum(name in claimed & measured for claimed, measured in pairs),
        }
        for name in names
    }


def _cues(known: pd.DataFrame) -> Iterator[tuple[set[str], set[str]]]:
    """Cues claimed and cues measured on each image of `_with_evidence`."""
    for claimed, measured in zip(known["cues_claimed"], known["cues_measured"], strict=True):
        yield set(json.loads(claimed)), set(json.loads(measured))


def _with_evidence(rows: pd.DataFrame) -> pd.DataFrame:
    known = _explained(rows)
    return known[known["cues_measured"].notna()]


def _explained(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["explanation"].notna()]
