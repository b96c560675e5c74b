"""Captions as sentences and clauses, and how a clause that must not be said is cut out of one."""

from __future__ import annotations

import re
from collections.abc import Callable

#: The whole caption where nothing that was said may stay.
NOTHING_LEFT = "A face in front of the camera."

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def sentences(text: str) -> list[str]:
    """The sentences of a text, with their marks."""
    return [sentence for sentence in _SENTENCE_END.split(text.strip()) if sentence]


def without_clauses(sentence: str, wrong: Callable[[str], object], joints: re.Pattern[str]) -> tuple[str, int]:
    """A sentence without its wrong clauses, and how many clauses were cut.

    A clause that follows the first one can't open a sentence ("..., with a rim"). So where the first clause is wrong,
    the whole sentence goes: "" is returned.

    Args:
        wrong: true of a clause that must not be said; a clause inside a sentence is given with a comma before it.
        joints: what separates clauses.
    """
    clauses = joints.split(sentence.rstrip(".!?"))
    # A comma before all but the first: a capital after it is a name, at the start of a sentence it is none.
    clean = [clause for n, clause in enumerate(clauses) if clause and not wrong(f", {clause}" if n else clause)]
    if not clean or clean[0] != clauses[0]:
        return "", len(clauses)
    return ", ".join(clean) + ".", len(clauses) - len(clean)
