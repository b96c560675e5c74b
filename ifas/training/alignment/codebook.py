"""The error codebook Q and the deterministic G of nSFT (arXiv 2411.14797): what is wrong with an answer, what to ask.

A rule looks at an answer and decides only *which* facts are asked about: one that is false (denial) and one that is
true (affirmation). The answers come from label and evidence alone (`turns`), so no rule can teach anything false,
whatever the model wrote. The paper's G is GPT-4, but it also pairs short answers by rules (OCRVQA).

Not built: questions about counts, attributes of the face, and its place on the screen. No specialist measures them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple
from zlib import crc32

from ifas.core.claims import Cues, Fact, Known, claimed, contradicts, holds, invented_cues, invented_media
from ifas.core.taxonomy import ATTACKS
from ifas.training.alignment.answers import Answer

#: From this confidence on a cue is decisive: an explanation that does not say it has missed it.
DECISIVE = 0.8


class Correction(NamedTuple):
    """A fact to deny and a fact to affirm, and the error that asks for it."""

    error: str
    denied: Fact
    affirmed: Fact


#: Denied and affirmed fact; None leaves the choice to `corrections`.
Pair = tuple[Fact | None, Fact | None]
Rule = Callable[[Answer, Known, Cues], Iterator[Pair]]


def verdict_flip(answer: Answer, known: Known, _cues: Cues) -> Iterator[Pair]:
    """The verdict contradicts the label."""
    if answer.live != known.live:
        live, attack = Fact("live"), Fact("attack")
        yield (attack, live) if known.live else (live, attack)


def contradiction(answer: Answer, known: Known, cues: Cues) -> Iterator[Pair]:
    """Verdict and text can't both be right, whatever the label."""
    if contradicts(answer.live, answer.text, cues):
        yield (None, Fact("live")) if known.live else (Fact("live"), Fact("medium", known.spoof_type))


def wrong_attack(answer: Answer, known: Known, _cues: Cues) -> Iterator[Pair]:
    """The text on an attack names a wrong medium."""
    if not known.live:
        for kind in invented_media(answer.text, known)[:1]:
            yield Fact("medium", kind), Fact("medium", known.spoof_type)


def invented(answer: Answer, known: Known, cues: Cues) -> Iterator[Pair]:
    """The text names a medium on a bona fide image, or a cue that no specialist supports."""
    if known.live:
        for kind in invented_media(answer.text, known)[:1]:
            yield Fact("medium", kind), None
    for name in invented_cues(answer.text, known, cues):
        if holds(Fact("cue", name), known, cues) is False:
            yield Fact("cue", name), None


def missed_cue(answer: Answer, known: Known, cues: Cues) -> Iterator[Pair]:
    """The text does not say the surest cue of the image."""
    there = [name for name in cues if holds(Fact("cue", name), known, cues) and known.sure[name] >= DECISIVE]
    for name in sorted(there, key=lambda name: (-known.sure[name], name))[:1]:
        if name not in claimed(answer.text, cues):
            yield None, Fact("cue", name)


#: Error -> its rule; the first ones are corrected first where an image has many. To add an error, add a line.
CODEBOOK: Mapping[str, Rule] = {
    "verdict flip": verdict_flip,
    "contradiction": contradiction,
    "wrong attack": wrong_attack,
    "invented": invented,
    "missed cue": missed_cue,
}


def corrections(answer: Answer, known: Known, cues: Cues) -> list[Correction]:
    """What has to be corrected in an answer: pairs of a fact known to be false and a fact known to be true.

    Where label and evidence do not decide the fact that a rule asks for, another fact that they decide takes its place.
    """
    found = []
    for error, rule in CODEBOOK.items():
        for denied, affirmed in rule(answer, known, cues):
            no = denied if denied is not None and holds(denied, known, cues) is False else _other(known, cues, False)
            yes = affirmed if affirmed is not None and holds(affirmed, known, cues) else _other(known, cues, True)
            found.append(Correction(error, no, yes))
    return list(dict.fromkeys(found))


def _other(known: Known, cues: Cues, value: bool) -> Fact:
    """A fact that is true or false, as `value` asks: a cue or a medium where one is decided, else what the label says.

    A hash of the image chooses among several, so that no question has the same answer on every image.
    """
    facts = [*(Fact("cue", name) for name in cues), *(Fact("medium", kind) for kind in ATTACKS)]
    decided = [fact for fact in facts if holds(fact, known, cues) is value]
    if not decided:
        decided = [Fact("live") if known.live is value else Fact("attack")]
    return decided[crc32(known.sample_id.encode()) % len(decided)]
