"""What one audit found, in the form that the report shows: a table, notes, and images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

#: Cases that a sentence names; a report shows more.
SAID = 3
#: Digits of a sample id that a sentence shows.
ID_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A sample whose image is shown, and the text below it."""

    id: str
    value: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """Outcome of one audit.

    Args:
        about: what was measured and how, in plain words.
        head, rows: the table; cells are text.
        flags: findings that a person should look into.
        blocking: findings that stop the run.
        pictures: samples to show, the most important first.
        facts: the same figures as JSON values.
    """

    id: str
    title: str
    about: str
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    flags: tuple[str, ...] = ()
    blocking: tuple[str, ...] = ()
    pictures: tuple[Shown, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


def a_few(cases: Sequence[str]) -> str:
    """The first cases by name, and how many more there are."""
    rest = len(cases) - SAID
    return ", ".join(cases[:SAID]) + (f" and {rest} more" if rest > 0 else "")


def table(rows: Iterable[Iterable[object]]) -> tuple[tuple[str, ...], ...]:
    """Cells as text: numbers with at most three digits after the point."""
    return tuple(tuple(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row) for row in rows)
