"""The word vocabulary of the captioner network: text to word ids and back."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

_TOKEN = re.compile(r"[a-z0-9]+(?:['-][a-z0-9]+)*|[.,;:!?]")
_ENDS = (".", "!", "?")
_MARKS = (*_ENDS, ",", ";", ":")

PAD, START, END, UNKNOWN = range(4)
_SPECIAL = ("<pad>", "<start>", "<end>", "<unknown>")


def tokens(text: str) -> list[str]:
    """Lower-case words and punctuation marks of a text."""
    return _TOKEN.findall(text.lower())


@dataclass(frozen=True)
class Vocabulary:
    """Words by id; the first four are padding, start, end and unknown."""

    words: tuple[str, ...]

    @classmethod
    def of(cls, texts: Iterable[str], most: int = 4000) -> Vocabulary:
        """The `most` frequent words of some texts, ties in alphabetical order."""
        counts = Counter(word for text in texts for word in tokens(text))
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        return cls(words=(*_SPECIAL, *ranked[:most]))

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    def encode(self, text: str, longest: int) -> list[int]:
        """Start, the ids of the words, end; at most `longest` ids in all."""
        ids = [self._ids.get(word, UNKNOWN) for word in tokens(text)]
        return [START, *ids[: longest - 2], END]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of word ids up to the first end: marks joined to the word before, sentences capitalised."""
        text = ""
        for i in ids:
            if i == END:
                break
            if i in (PAD, START, UNKNOWN):
                continue
            word = self.words[i]
            if word in _MARKS:
                text += word
            else:
                opens = not text or text.endswith(_ENDS)
                text += (" " if text else "") + (word.capitalize() if opens else word)
        return text
