"""Visual specialists: each measures one thing on a picture and knows the clause that may then be said.

The idea is that of DCE (arXiv 2412.14233): evidence decides what a caption says, not the other way round. A specialist
is a module of this package with a `SPECIALIST`; to add one, add a file. Specialists never see the label; `clauses`
decides afterwards what may be said of a picture so labelled.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Protocol

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
        words: a caption that holds one of them says it already.
        supports: spoof types of which the clause may be said; `live` for bona fide.
        refutes: spoof types that full confidence speaks against. What other things than the medium can bring about
            refutes nothing, and the colour of a rim does not tell a print from a replay.
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


def measurements(seen: Measured) -> dict[str, Measurement]:
    """What every specialist measures on a picture."""
    return {name: one.measure(seen) for name, one in specialists().items()}
