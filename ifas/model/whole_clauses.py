"""Explanations of whole clauses: what training captions said, each clause as a whole and once.

A small language model that learned to write from a few hundred captions mixes their words: "the skin shows natural
shades and the face is left", where "hardly any strong colour is left" was learned. It knows no other words than those
of the captions, so it loses nothing if it may only choose among their clauses. Which of them it says, how they follow
each other and where it stops is still its own choice, token by token, behind the verdict.

A clause ends at a punctuation mark or "and". Two clauses may meet if captions joined the last word of the one to the
first word of the other, so a text may be one that no caption was. Our choice (`model.whole_clauses`), not stated in
the paper, and of no use for a pretrained language model, which writes whole sentences by itself.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ifas.core.taxonomy import media_named

#: What a decoder writes for bytes that are no character (yet).
BROKEN = "\ufffd"
#: Where a clause ends: behind a mark, or behind "and".
_ENDS = re.compile(r"(?<=[.!?,;:])\s+|(?<=\sand)\s+")
_SENTENCE_ENDS = (".", "!", "?")


class WholeClauses:
    """Which texts may be written.

    Args:
        clauses: what is between two ends, the mark or "and" that ends it included.
        joints: (last word of a clause, first word of one that may follow); "" is the start or the end of a text. The
            last word of a sentence is its mark, that before an "and" includes it ("shades and").
    """

    def __init__(self, clauses: Iterable[str], joints: Iterable[Sequence[str]]) -> None:
        self._clauses = sorted(set(clauses))
        self._joints = {(last, first) for last, first in joints}
        self._media = [set(media_named(clause)) for clause in self._clauses]

    @classmethod
    def of(cls, captions: Iterable[str]) -> WholeClauses:
        """What these captions say."""
        clauses: set[str] = set()
        joints: set[tuple[str, str]] = set()
        for caption in set(captions):
            said = _split(caption)
            clauses.update(said)
            joints.update(zip(["", *map(_last, said)], [*map(_first, said), ""], strict=True))
        return cls(clauses, joints)

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> WholeClauses:
        """From what `save` returned."""
        return cls(saved["clauses"], saved["joints"])

    def save(self) -> dict[str, Any]:
        """As JSON."""
        return {"clauses": self._clauses, "joints": sorted(map(list, self._joints))}

    def may_go_on(self, text: str, attack: str) -> bool:
        """Whether a text, the last clause of which may be unfinished, is the beginning of one that may be written.

        Args:
            text: it may end with a space, and with replacement characters: bytes of a character that is none yet.
            attack: the only one that the text may name; "" for none.
        """
        whole = text.rstrip(BROKEN)
        *done, growing = _ENDS.split(whole)
        said = {_bare(clause) for clause in done}
        return any(
            self._leads_on(clause, said | {_bare(clause)}, attack)
            for clause in self._beginning_with(growing, attack)
            if _bare(clause) not in said
            and (_last(done[-1]) if done else "", _first(clause)) in self._joints
            and (whole == text or not clause[len(growing) :][:1].isascii())
        )

    def may_end(self, text: str) -> bool:
        """Whether a text may end here: not within a clause, and where a caption ended."""
        *_, last = _split(text) or [""]
        at = bisect_left(self._clauses, last)
        return self._clauses[at : at + 1] == [last] and (_last(last), "") in self._joints

    def _beginning_with(self, start: str, attack: str) -> Iterator[str]:
        """Clauses that begin so and name no other attack, in the order of the alphabet."""
        for at in range(bisect_left(self._clauses, start), len(self._clauses)):
            if not self._clauses[at].startswith(start):
                return
            if self._media[at] <= {attack}:
                yield self._clauses[at]

    def _leads_on(self, clause: str, said: set[str], attack: str) -> bool:
        """Whether a text may end behind a clause, or another one may follow."""
        last = _last(clause)
        if (last, "") in self._joints:
            return True
        return any(
            (last, _first(one)) in self._joints and _bare(one) not in said for one in self._beginning_with("", attack)
        )


def _split(text: str) -> list[str]:
    return [clause for clause in _ENDS.split(text.strip()) if clause]


def _first(clause: str) -> str:
    return clause.partition(" ")[0]


def _last(clause: str) -> str:
    """The last word, mark or "and" included; of a sentence's end the mark alone: what follows does not depend on it."""
    if clause.endswith(_SENTENCE_ENDS):
        return clause[-1]
    return " ".join(clause.split()[-2 if clause.endswith(" and") else -1 :])


def _bare(clause: str) -> str:
    """A clause as such, wherever it stands in a sentence."""
    return clause.lower().removesuffix(" and").rstrip(".!?,;:")
