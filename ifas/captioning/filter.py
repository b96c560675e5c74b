"""The filter of Algorithm 1, and the same question asked of the texts that the model learns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from ifas.captioning.media import MEDIA
from ifas.captioning.sentences import NOTHING_LEFT, sentences, without_clauses
from ifas.core.taxonomy import media_named

_JOINTS = re.compile(r"\s*[,;]\s+|\s+and\s+")


def filter_captions(captions: Sequence[Sequence[str]], spoof_types: Sequence[str]) -> list[tuple[str, ...]]:
    """D_S (I-FAS, arXiv 2501.01720, Algorithm 1): of each attack, the captions that name its medium.

    A caption passes when it contains a keyword whose spoof type equals the label. Read literally, the paper adds a
    sample once per matching keyword; here it is added once, as is a caption that was drawn twice. A further keyword of
    another type does not remove a caption: the algorithm asks only whether a right keyword occurs.

    Args:
        captions: what the general captioner said of each attack, once or several times.
        spoof_types: of their labels.
    """
    return [
        tuple(dict.fromkeys(text for text in texts if spoof_type in media_named(text)))
        for texts, spoof_type in zip(captions, spoof_types, strict=True)
    ]


def true_to_label(text: str, spoof_type: str, how: Literal["cut", "correct"]) -> tuple[str, int]:
    """A text that names no medium but that of its label, and how many clauses were cut for it.

    A training text that says "No", of a print, and then names a screen teaches the model to be wrong. So does one that
    says "Yes" and names a screen. Where a clause names a wrong medium, all clauses that name a medium are cut.

    Args:
        spoof_type: of the label; `live` for bona fide, whose medium is none.
        how: cut alone, or correct: the right medium of an attack is named instead, in a sentence of ours.
    """
    if not set(media_named(text)) - {spoof_type}:
        return text, 0
    cut, clauses = without_media(text)
    if how == "correct" and spoof_type in MEDIA:
        ways = MEDIA[spoof_type]
        cut = f"{cut} {ways[len(text) % len(ways)]}"
    return cut, clauses


def without_media(text: str) -> tuple[str, int]:
    """A caption without the clauses that name an attack medium, and how many were cut.

    Clauses end at sentence ends, commas, semicolons and "and". Where no clause remains, the caption is `NOTHING_LEFT`.
    """
    cut = 0
    kept = []
    for sentence in sentences(text):
        if media_named(sentence):
            sentence, clauses = without_clauses(sentence, media_named, _JOINTS)
            cut += clauses
        kept.append(sentence)
    return (" ".join(s for s in kept if s) or NOTHING_LEFT), cut
