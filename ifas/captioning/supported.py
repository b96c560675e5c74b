"""What a text may say of cues and scene: only what was measured on the picture.

A captioner that is tuned, or one from the web, also says what it usually says. A clause that claims a cue whose
specialist saw nothing, or that contradicts the measured scene, is cut. Other words can't be checked and stay.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ifas.captioning.scene import COLOURS, LIGHTS, Scene
from ifas.captioning.sentences import NOTHING_LEFT, sentences, without_clauses
from ifas.captioning.specialists import Measurement, cues
from ifas.core.claims import Known, invented_cues

_JOINTS = re.compile(r"\s*[,;]\s+|\s+and\s+")
_SAYS_COLOUR = rf"\b({'|'.join(COLOURS)}|gray)\s+"
_WALL = re.compile(rf"{_SAYS_COLOUR}(?:background|wall)\b", re.IGNORECASE)
_TOP = re.compile(rf"{_SAYS_COLOUR}(?:top|clothes|shirt|sweater|jacket)\b", re.IGNORECASE)
_LIGHT = re.compile(rf"\b({'|'.join(LIGHTS)})\s+light(?:ing)?\b", re.IGNORECASE)


def unsupported(text: str, seen: Mapping[str, Measurement], scene: Scene) -> list[str]:
    """What a text says of cues and scene that the measurements do not support: cues, and words of the scene."""
    known = Known("", "", "", {name: one.confidence for name, one in seen.items()})
    wrong = invented_cues(text, known, cues())
    for pattern, measured in ((_WALL, scene.wall), (_TOP, scene.top), (_LIGHT, scene.light)):
        said = [match.group(1).lower().replace("gray", "grey") for match in pattern.finditer(text)]
        wrong += [word for word in said if word != measured]
    return wrong


def supported(text: str, seen: Mapping[str, Measurement], scene: Scene) -> tuple[str, int]:
    """A text without the clauses that the measurements do not support, and how many were cut."""
    cut, kept = 0, []
    for sentence in sentences(text):
        if unsupported(sentence, seen, scene):
            sentence, clauses = without_clauses(sentence, lambda clause: unsupported(clause, seen, scene), _JOINTS)
            cut += clauses
        kept.append(sentence)
    return (" ".join(s for s in kept if s) or NOTHING_LEFT), cut
