"""What the visual specialists see, for the rooms that may not import them: the words of each cue."""

from __future__ import annotations

from typing import Any

from ifas.core.claims import Cues

#: Of the specialists, only their clauses and words change what is made of cues, and `identity` has those.
IN_IDENTITY = ("ifas.captioning",)


def cues() -> Cues:
    """Every specialist's cue, by name."""
    from ifas.captioning import specialists

    return specialists.cues()


def identity() -> dict[str, Any]:
    """The cues as part of a step's identity."""
    return {name: [cue.clause, *cue.words, *sorted(cue.supports)] for name, cue in cues().items()}
