"""What a text claims about an image, and what is known about the image: its label and the specialists' measurements.

A fact is True or False only if label and evidence decide it. Otherwise it is None (unknown), and the model must not be
asked or taught about it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from ifas.core.taxonomy import media_named

#: Key of the specialists' confidences in a manifest's `evidence`.
SPECIALISTS = "specialists"
#: Confidence from which a specialist supports its clause (as captioning says it), and below which it does not at all.
SUPPORTED_FROM, UNSUPPORTED_BELOW = 0.5, 0.2

#: Species, by the beginning of their name -> media of which neither "it is" nor "it is not" is plainly true: a mask of
#: paper is printed paper too, and make-up is kept under mask but is none.
UNCLEAR: Mapping[str, frozenset[str]] = {
    "mask.paper": frozenset({"print"}),
    "mask.partial_paper": frozenset({"print", "mask"}),
    "mask.partial": frozenset({"mask"}),
    "mask.glasses": frozenset({"mask"}),
    "mask.makeup": frozenset({"mask"}),
    "mask.plaster": frozenset({"mannequin"}),
    "mask.resin": frozenset({"mannequin"}),
}


@dataclass(frozen=True)
class Cue:
    """Something a specialist measures.

    Attributes:
        name: of the specialist.
        clause: what may be said, without naming a medium.
        words: a text that holds one of them claims it.
        supports: spoof types of which the clause may be said.
    """

    name: str
    clause: str
    words: tuple[str, ...]
    supports: frozenset[str]


Cues = Mapping[str, Cue]


class Fact(NamedTuple):
    """Something that is so, or not: a living person, an attack, a medium (`name`: spoof type), a cue (`name`)."""

    about: Literal["live", "attack", "medium", "cue"]
    name: str = ""


@dataclass(frozen=True)
class Known:
    """What is known of an image. `sure`: confidence of every specialist, 0 to 1; empty where none was asked."""

    sample_id: str
    spoof_type: str
    species: str
    sure: Mapping[str, float] = field(default_factory=dict)

    @property
    def live(self) -> bool:
        """Bona fide or not."""
        return self.spoof_type == "live"

    def medium(self, kind: str) -> bool | None:
        """Whether the face is shown by this medium."""
        for beginning, unclear in UNCLEAR.items():
            if self.species.startswith(beginning) and kind in unclear:
                return None
        return kind == self.spoof_type


def sure_of(evidence: str) -> dict[str, float]:
    """Confidences of the specialists in a manifest's `evidence`; empty where captioning asked none."""
    found = json.loads(evidence or "{}").get(SPECIALISTS, {})
    return {str(name): float(value) for name, value in found.items()}


def holds(fact: Fact, known: Known, cues: Cues) -> bool | None:
    """Whether label and evidence say that a fact is so; None where they do not decide it.

    A cue is there when its specialist is sure and it fits the label (the conditional rule of DCE, arXiv 2412.14233). It
    is not there when neither its specialist nor one that shares words with it saw anything: the bezel's is silent
    beside a brighter edge, which does not mean that no dark frame is in the image.
    """
    if fact.about == "live":
        return known.live
    if fact.about == "attack":
        return not known.live
    if fact.about == "medium":
        return known.medium(fact.name)
    cue = cues[fact.name]
    if fact.name not in known.sure or not cue.supports:
        return None
    if known.sure[fact.name] >= SUPPORTED_FROM and known.spoof_type in cue.supports:
        return True
    return False if _surest(cue, known, cues) < UNSUPPORTED_BELOW else None


def claimed(text: str, cues: Cues) -> list[str]:
    """Names of the cues that a text claims, in the order of the table."""
    lower = text.lower()
    return [name for name, cue in cues.items() if any(word in lower for word in cue.words)]


def measured(known: Known, cues: Cues) -> list[str]:
    """Cues that a specialist supports, its own or one that shares words with it, whatever the label."""
    return [name for name, cue in cues.items() if _surest(cue, known, cues) >= SUPPORTED_FROM]


def invented_cues(text: str, known: Known, cues: Cues) -> list[str]:
    """Cues that a text claims and that were not `measured`. None where no specialist was asked."""
    there = measured(known, cues) if known.sure else cues
    return [name for name in claimed(text, cues) if name not in there]


def invented_media(text: str, known: Known) -> list[str]:
    """Media that a text names and the image does not show."""
    return [kind for kind in media_named(text) if known.medium(kind) is False]


def contradicts(accepted: bool, text: str, cues: Cues) -> bool:
    """A verdict and a text that can't both be right: accepted, and a medium is named; or rejected, and the text names
    neither a medium nor a cue that only attacks have."""
    named = bool(media_named(text))
    if accepted:
        return named
    supported = [cues[name].supports for name in claimed(text, cues)]
    return not named and not any(kinds and "live" not in kinds for kinds in supported)


def _surest(cue: Cue, known: Known, cues: Cues) -> float:
    """Highest confidence of the cue's specialist and of those that share words with it."""
    return max(known.sure.get(name, 0.0) for name, other in cues.items() if _alike(cue.words, other.words))


def _alike(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    return any(a in b or b in a for a in ours for b in theirs)
