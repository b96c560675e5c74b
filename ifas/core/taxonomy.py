"""One taxonomy of presentation attacks for all datasets, and the words that name an attack medium.

The four spoof types are those of I-FAS (arXiv 2501.01720, Algorithm 1). The PAI species (ISO/IEC 30107-3) is
kept underneath as a dotted name that begins with its spoof type: `print.a4`, `replay.phone`.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Literal, get_args

from ifas.core.errors import DataError

Label = Literal["live", "spoof"]
SpoofType = Literal["live", "print", "replay", "mask", "mannequin"]
Split = Literal["train", "dev", "test"]

SPOOF_TYPES: tuple[str, ...] = get_args(SpoofType)
ATTACKS: tuple[str, ...] = SPOOF_TYPES[1:]
SPLITS: tuple[str, ...] = get_args(Split)

#: PAI species known to ifas -> spoof type. To add one, add a line.
PAI_SPECIES: dict[str, SpoofType] = {
    "live": "live",
    "print": "print",
    "print.photo": "print",
    "print.poster": "print",
    "print.a4": "print",
    "print.flat": "print",
    "print.bent": "print",
    "print.warped": "print",
    "print.cut_eyes": "print",
    "print.still": "print",
    "print.quivering": "print",
    "replay": "replay",
    "replay.pc": "replay",
    "replay.monitor": "replay",
    "replay.laptop": "replay",
    "replay.tablet": "replay",
    "replay.phone": "replay",
    "mask": "mask",
    "mask.paper_face": "mask",
    "mask.paper_upper_body": "mask",
    "mask.paper_region": "mask",
    "mask.paper": "mask",
    "mask.paper_cropped": "mask",
    "mask.paper_full": "mask",
    "mask.paper_upper": "mask",
    "mask.rigid3d": "mask",
    "mask.flexible": "mask",
    "mask.silicone": "mask",
    "mask.transparent": "mask",
    "mask.plaster": "mask",
    "mask.resin": "mask",
    "mask.half": "mask",
    # The paper has four spoof types. Disguises that cover or paint part of a real face are kept under mask: our choice.
    "mask.glasses": "mask",
    "mask.makeup_cosmetic": "mask",
    "mask.makeup_impersonation": "mask",
    "mask.makeup_obfuscation": "mask",
    "mask.partial_eye": "mask",
    "mask.partial_mouth": "mask",
    "mask.partial_funny_glasses": "mask",
    "mask.partial_paper_glasses": "mask",
    "mannequin": "mannequin",
    "mannequin.fake_head": "mannequin",
}

#: Keyword -> spoof type: K of Algorithm 1. The article names only `paper` and `screen`; the other keywords are our
#: choice. Matched on word boundaries, plural allowed.
KEYWORDS: dict[str, SpoofType] = {
    "paper": "print",
    "printed": "print",
    "printout": "print",
    "photograph": "print",
    "poster": "print",
    "screen": "replay",
    "display": "replay",
    "tablet": "replay",
    "phone": "replay",
    "monitor": "replay",
    "mask": "mask",
    "mannequin": "mannequin",
    "dummy": "mannequin",
}


def spoof_type_of(species: str) -> SpoofType:
    """Spoof type of a PAI species.

    Raises:
        DataError: the species is not in `PAI_SPECIES`.
    """
    try:
        return PAI_SPECIES[species]
    except KeyError:
        raise DataError(
            f"PAI species {species!r} is not in the taxonomy",
            f"add a line to PAI_SPECIES in ifas/core/taxonomy.py, or use one of: {', '.join(PAI_SPECIES)}",
        ) from None


_WORD = re.compile(r"\w+")


@cache
def _forms(table: tuple[tuple[str, SpoofType], ...]) -> dict[str, SpoofType]:
    """Keywords, which are single words, and their plurals."""
    return {form: kind for word, kind in table for form in (word.lower(), f"{word.lower()}s")}


def keyword_forms() -> dict[SpoofType, list[str]]:
    """Words that name each attack medium, in lower case: `KEYWORDS` and their plurals."""
    found: dict[SpoofType, list[str]] = {}
    for form, kind in _forms(tuple(KEYWORDS.items())).items():
        found.setdefault(kind, []).append(form)
    return found


def media_named(text: str, keywords: dict[str, SpoofType] | None = None) -> list[SpoofType]:
    """Attack media that `text` names, in order of appearance, each once.

    Words are matched on their boundaries, so "newspaper" does not name paper.
    """
    table = KEYWORDS if keywords is None else keywords
    forms = _forms(tuple(table.items()))
    return list(dict.fromkeys([forms[word] for word in _WORD.findall(text.lower()) if word in forms]))
