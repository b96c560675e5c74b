"""Visual specialists: each measures one thing on a picture and knows the clause that may then be said.

The idea is that of DCE (arXiv 2412.14233): a caption says only what was measured. A specialist is a module of this
package with a `SPECIALIST`; to add one, add a file. Specialists never see the label; `clauses` decides afterwards which
of their clauses fit it.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Protocol

from ifas.core.claims import Cue, Cues

if TYPE_CHECKING:
    from ifas.captioning.measure import Measured


@dataclass(frozen=True)
class Measurement:
    """What was measured, in the specialist's own unit, and how sure it is that its clause holds, 0 to 1."""

    value: float
    confidence: float


class Specialist(Protocol):
    """Measures one thing.

    Attributes:
        name: unique.
        clause: what may be said, without naming a medium.
        words: a caption that contains one of them already says the clause. The clause itself contains one.
        supports: spoof types whose pictures may get the clause; `live` for bona fide.
        refutes: spoof types that a fully confident measurement contradicts. Empty where something else than an attack
            medium can cause the measurement; and a dark or bright rim alone does not tell a print from a replay.
    """

    name: str
    clause: str
    words: tuple[str, ...]
    supports: frozenset[str]
    refutes: frozenset[str]

    def measure(self, seen: Measured) -> Measurement:
        """Measures a picture that is prepared and measured already."""
        ...


@cache
def specialists() -> dict[str, Specialist]:
    """All specialists of this package by name, in the order of their names."""
    found = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda m: m.name):
        one: Specialist = importlib.import_module(f"{__name__}.{module.name}").SPECIALIST
        found[one.name] = one
    return dict(sorted(found.items()))


@cache
def cues() -> Cues:
    """The specialists as cues that texts claim, by name."""
    return {name: Cue(name, one.clause, one.words, one.supports) for name, one in specialists().items()}


def measurements(seen: Measured) -> dict[str, Measurement]:
    """What every specialist measures on a picture."""
    return {name: one.measure(seen) for name, one in specialists().items()}
