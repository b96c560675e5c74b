"""Explanations of whole clauses: what training captions said, each clause as a whole and once.

A small language model that learned to write from a few hundred captions mixes their words: "the skin shows natural
shades and the face is left", where "hardly any strong colour is left" was learned. It knows no other words than those
of the captions, so it loses nothing if it may only choose among their clauses. Which of them it says, how they follow
each other and where it stops is still its own choice, token by token, behind the verdict.

A clause ends at a punctuation mark or "and". Two clauses of a sentence may meet if captions joined the last word of the
one to the first two words of the other ("background," to "soft light"; "shades and" to "fine detail"), so a text may be
one that no caption was. Nothing else is known of grammar, and nothing of truth. Our choice (`model.whole_clauses`), not
stated in the paper, and of no use for a pretrained language model, which writes whole sentences by itself.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ifas.core.taxonomy import media_named

#: What a decoder writes for bytes that are no character (yet), and the most of them that a character begins with.
BROKEN, MOST_BROKEN = "\ufffd", 3
#: Where a clause ends: behind a mark, but not behind that of an abbreviation; or behind "and".
_ENDS = re.compile(r"(?<=[.!?])\s+(?=[^a-z\s])|(?<=[,;:])\s+(?=\S)|(?<=\sand)\s+(?=\S)")
_SENTENCE_ENDS = (".", "!", "?")


class WholeClauses:
    """Which texts may be written.

    Args:
        clauses: what is between two ends, the mark or "and" that ends it included.
        joints: (last word of a clause, first two words of one that may follow); "" is the start or the end of a text.
            The last word of a sentence is its mark, that before an "and" includes it ("shades and").
    """

    def __init__(self, clauses: Iterable[str], joints: Iterable[Sequence[str]]) -> None:
        self._clauses = sorted(set(clauses))
        self._joints = {(last, first) for last, first in joints}
        self._media = {clause: set(media_named(clause)) for clause in self._clauses}
        begins = defaultdict(list)
        for clause in self._clauses:
            begins[_first(clause)].append(clause)
        self._behind: dict[str, list[str]] = defaultdict(list)
        for last, first in sorted(self._joints):
            self._behind[last] += begins.get(first, [])

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
        """Whether a text is the beginning of one that may be written.

        Args:
            text: it may end within a clause, with a space, and with replacement characters: bytes of a character that
                is none yet.
            attack: the only one that the text may name; "" for none.
        """
        whole = text.rstrip(BROKEN)
        if len(text) - len(whole) > MOST_BROKEN:
            return False
        *done, growing = _ENDS.split(whole)
        # A space behind a mark ends a clause, or goes on with one that has the mark of an abbreviation.
        ways = [(done, growing), ([*done, growing.rstrip()], "")] if growing.endswith(" ") else [(done, growing)]
        return any(self._goes_on(before, start, attack, broken=whole != text) for before, start in ways)

    def may_end(self, text: str) -> bool:
        """Whether a text may end here: not within a clause, and where a caption ended."""
        said = _split(text)
        return bool(said) and self._joined(said) and (_last(said[-1]), "") in self._joints

    def _goes_on(self, done: Sequence[str], growing: str, attack: str, *, broken: bool) -> bool:
        if not self._joined(done) or any(not self._media[clause] <= {attack} for clause in done):
            return False
        said = {_bare(clause) for clause in done}
        return any(
            self._leads_to_an_end(clause, said, attack)
            for clause in self._next(done[-1] if done else "", said, attack, growing)
            if not (broken and clause[len(growing) :][:1].isascii())
        )

    def _joined(self, said: Sequence[str]) -> bool:
        """Whether these are clauses that may follow each other, none of them said twice."""
        pairs = zip(["", *map(_last, said)], map(_first, said), strict=False)
        known = all(clause in self._media for clause in said) and all(pair in self._joints for pair in pairs)
        return known and len({_bare(clause) for clause in said}) == len(said)

    def _next(self, clause: str, said: set[str], attack: str, start: str = "") -> Iterator[str]:
        """Clauses with this start that may stand behind one, or at the beginning of a text where that is ""."""
        for one in self._behind.get(_last(clause), ()):
            if one.startswith(start) and _bare(one) not in said and self._media[one] <= {attack}:
                yield one

    def _leads_to_an_end(self, clause: str, said: set[str], attack: str) -> bool:
        """Whether a text with this clause can be brought to an end."""
        seen, open_ends = {clause}, [clause]
        said = said | {_bare(clause)}
        while open_ends:
            one = open_ends.pop()
            if (_last(one), "") in self._joints:
                return True
            fresh = [follower for follower in self._next(one, said, attack) if follower not in seen]
            seen.update(fresh)
            open_ends += fresh
        return False


def _split(text: str) -> list[str]:
    return [clause for clause in _ENDS.split(" ".join(text.split())) if clause]


def _first(clause: str) -> str:
    """The first two words."""
    return " ".join(clause.split()[:2])


def _last(clause: str) -> str:
    """The last word, mark or "and" included; of a sentence's end the mark alone: what follows does not depend on it."""
    if clause.endswith(_SENTENCE_ENDS):
        return clause[-1]
    return " ".join(clause.split()[-2 if clause.endswith(" and") else -1 :])


def _bare(clause: str) -> str:
    """A clause as such, wherever it stands in a sentence."""
    return clause.lower().removesuffix(" and").rstrip(".!?,;:")
