"""The words of a corrective turn: a question about a fact, and the answer that label and evidence give.

No text repeats what it denies, or the model would learn to write those very words after "No". After "No" the text says
what the image does show.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ifas.core.claims import Cues, Fact, Known, holds

#: Fact -> question, and the sentence that says it is so. Cues are asked in their clause's own words.
WORDS: Mapping[Fact, tuple[str, str]] = {
    Fact("live"): ("Is a living person in front of the camera?", "A living person is in front of the camera."),
    Fact("attack"): ("Is this an attempt to deceive the camera?", "This is no living person."),
    Fact("medium", "print"): ("Is the face on printed paper?", "The face is on printed paper."),
    Fact("medium", "replay"): ("Is the face on a screen?", "The face is on a screen."),
    Fact("medium", "mask"): ("Does a mask cover the face?", "A mask covers the face."),
    Fact("medium", "mannequin"): ("Is it the face of a mannequin?", "It is the face of a mannequin."),
}
#: Facts whose Yes or No is a judgment; the others are interpretation.
JUDGED = ("live", "attack")


class Turn(NamedTuple):
    """A question about an image and its answer: Yes or No, then `text`. `judged`: its Yes or No is the judgment."""

    question: str
    yes: bool
    text: str
    judged: bool


def turn(fact: Fact, known: Known, cues: Cues) -> Turn:
    """The turn that asks about a fact.

    Raises:
        ValueError: label and evidence do not decide it.
    """
    so = holds(fact, known, cues)
    if so is None:
        raise ValueError(f"nothing is known of {fact} on {known.sample_id}")
    question, sentence = _words(fact, cues)
    text = _shown(known, cues) if fact.about == "attack" or not so else sentence
    return Turn(question, so, text, fact.about in JUDGED)


def _words(fact: Fact, cues: Cues) -> tuple[str, str]:
    if fact.about != "cue":
        return WORDS[fact]
    clause = cues[fact.name].clause
    return f"Can it be seen that {clause}?", f"{clause[0].upper()}{clause[1:]}."


def _shown(known: Known, cues: Cues) -> str:
    """What the label says of the image: its medium where that is plain, else whether a living person is there."""
    if known.live:
        return WORDS[Fact("live")][1]
    medium = Fact("medium", known.spoof_type)
    return WORDS[medium if holds(medium, known, cues) else Fact("attack")][1]
